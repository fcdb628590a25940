/* Whole sequences of one layer: input product, recurrent product, pointwise part, outputs. */
#include <string.h>

#include "sequence.h"

#define SC_CHUNK 32   /* steps whose input products are computed together, so that weights are read once for all */
#define SC_TOGETHER 8 /* vectors that a kernel may multiply in another way than one alone */
#define SC_VECTORS 64 /* most vectors of a product that are multiplied as one batch */
#define SC_BLOCK 64   /* units of a batch whose products, gates and outputs are done while they are in cache */

/* (batch, n) with ldx floats per sample -> (n, wide), in pieces that stay in cache. */
static void to_columns(const float *x, int64_t ldx, int64_t batch, int64_t n, float *y, int64_t wide) {
  for (int64_t i0 = 0; i0 < n; i0 += 16)
    for (int64_t b = 0; b < batch; b++)
      for (int64_t i = i0; i < n && i < i0 + 16; i++) y[i * wide + b] = x[b * ldx + i];
}

static void to_rows(const float *y, int64_t wide, int64_t batch, int64_t n, float *x, int64_t ldx) {
  for (int64_t i0 = 0; i0 < n; i0 += 16)
    for (int64_t b = 0; b < batch; b++)
      for (int64_t i = i0; i < n && i < i0 + 16; i++) x[b * ldx + i] = y[i * wide + b];
}

/* Whether many vectors are multiplied as one batch: compressed rows then read each weight once for all. */
static int in_batches(const sc_matrix *w) { return w->format == SC_FMT_csr || w->format == SC_FMT_tiled_csr; }

size_t sc_product_workspace(const sc_matrix *w) {
  const int64_t one = 2 * sc_padded(w->cols, SC_PAD);
  const int64_t many = in_batches(w) ? (w->cols + SC_BLOCK) * SC_VECTORS : 0;
  return (size_t)(many > one ? many : one);
}

/* n vectors, at most SC_VECTORS, as a batch that is padded with zeros. */
static void product_of_batch(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t ldx, int64_t n,
                             const float *bias, float *y, int64_t ldy, float *workspace) {
  const int64_t wide = sc_padded(n, ops->vector);
  float *rows = workspace + w->cols * wide;
  if (wide != n) memset(workspace, 0, (size_t)(w->cols * wide) * sizeof(float));
  to_columns(x, ldx, n, w->cols, workspace, wide);
  for (int64_t first = 0; first < w->rows; first += SC_BLOCK) {
    const int64_t last = first + SC_BLOCK < w->rows ? first + SC_BLOCK : w->rows;
    ops->mm_rows[w->format](w, workspace, bias, rows, wide, first, last);
    to_rows(rows, wide, n, last - first, y + first, ldy);
  }
}

void sc_product_step(const sc_ops *ops, const sc_matrix *w, const float *x, const float *bias, float *y,
                     float *workspace) {
  const int64_t wide = sc_padded(w->cols, SC_PAD);
  if (sc_reads_past_end(w) && wide != w->cols) {
    memcpy(workspace, x, (size_t)w->cols * sizeof(float));
    memset(workspace + w->cols, 0, (size_t)(wide - w->cols) * sizeof(float));
    x = workspace;
  }
  ops->mv[w->format](w, x, bias, y, (int32_t *)(void *)(workspace + wide));
}

void sc_product(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias,
                float *y, int64_t ldy, float *workspace) {
  if (w->format == SC_FMT_dense) {
    ops->mvn_dense(w, x, ldx, n, bias, y, ldy);
    return;
  }
  if (in_batches(w)) {
    for (int64_t k = 0; k < n; k += SC_VECTORS)
      product_of_batch(ops, w, x + k * ldx, ldx, n - k < SC_VECTORS ? n - k : SC_VECTORS, bias, y + k * ldy, ldy,
                       workspace);
    return;
  }
  for (int64_t k = 0; k < n; k++) sc_product_step(ops, w, x + k * ldx, bias, y + k * ldy, workspace);
}

/* Features of state s: the projection narrows the first one. */
static int64_t features(const sc_layer *l, int s) { return s == 0 ? l->width : l->units; }

/* product and scratch are the member's own, all else is shared by its team. */
typedef struct sample_space {
  float *h, *out, *c, *syn, *mem, *rec, *drive, *product, *hr_product;
  int32_t *scratch;
} sample_space;

static size_t lay_out_sample(const sc_layer *l, int64_t member, int64_t members, float *base, sample_space *s) {
  sc_arena a = {.floats = base};
  const int64_t rows = l->units * sc_gates_of[l->cell];
  s->h = sc_take(&a, sc_padded(l->width, SC_PAD));
  s->out = sc_take(&a, sc_padded(l->units, SC_PAD));
  s->c = sc_take(&a, l->units);
  s->syn = sc_take(&a, l->units);
  s->mem = sc_take(&a, l->units);
  s->rec = sc_take(&a, sc_padded(rows, 16));
  s->drive = sc_take(&a, l->ih ? rows * SC_CHUNK : 0);
  s->hr_product = sc_take(&a, l->hr ? (int64_t)sc_product_workspace(l->hr) : 0);
  for (int64_t k = 0; k < members; k++) {
    float *product = sc_take(&a, l->ih ? (int64_t)sc_product_workspace(l->ih) : 0);
    float *scratch = sc_take(&a, l->hh ? sc_padded(l->hh->cols, SC_PAD) : 0);
    if (k == member) {
      s->product = product;
      s->scratch = (int32_t *)(void *)scratch;
    }
  }
  return a.used.floats;
}

/* rec = recurrent product of h with its bias, as far as it is this member's; zero without recurrence. */
static void recur(const sc_ops *ops, const sc_layer *l, const sc_matrix *hh, int64_t first, const sample_space *s) {
  const int64_t rows = l->units * sc_gates_of[l->cell];
  if (hh) {
    const float *bias = l->bias_hh ? l->bias_hh + first : NULL;
    ops->mv[hh->format](hh, s->h, bias, hh->order ? s->rec : s->rec + first, s->scratch);
  } else if (l->hh_diag) {
    for (int64_t i = 0; i < rows; i++) s->rec[i] = s->h[i] * l->hh_diag[i] + (l->bias_hh ? l->bias_hh[i] : 0.0f);
  } /* else it was filled once */
}

/* The arrays that hold the states of a cell, in its order. */
static void state_arrays(const sc_layer *l, const sample_space *s, float *of[3]) {
  of[0] = s->h;
  of[1] = l->cell == SC_CELL_lstm ? s->c : sc_states_of[l->cell] == 3 ? s->syn : s->mem;
  of[2] = s->mem;
}

static void wait_for(const sc_team *team) {
  if (team->members > 1) team->wait(team->at);
}

/* Where the share of a member begins, of n steps whose products kernels may take SC_TOGETHER at a time. */
static int64_t share(int64_t n, int64_t member, int64_t members) {
  return member == members ? n : n / SC_TOGETHER * member / members * SC_TOGETHER;
}

/* Outputs of step t, from the states. */
static void emit(const sc_layer *l, const sc_io *io, int64_t b, int64_t t, float *const held[3]) {
  for (int i = 0; i < sc_states_of[l->cell]; i++)
    if (io->out[i])
      memcpy(io->out[i] + (t * io->stride + b) * features(l, i), held[i], (size_t)features(l, i) * sizeof(float));
}

/* Each member of a team does its part of the input product (steps) and of every recurrent one (rows); the first does
 * all else.
 */
static void run_sample(const sc_ops *ops, const sc_layer *l, const sc_io *io, int64_t b, float *workspace,
                       const sc_team *team) {
  sample_space s = {0}; /* compilers cannot see that the layout fills all of it */
  lay_out_sample(l, team->member, team->members, workspace, &s);
  const int lead = team->member == 0;
  sc_matrix part;
  const sc_matrix *hh = l->hh;
  int64_t first_row = 0;
  if (hh && team->members > 1) {
    first_row = sc_part(hh, team->member, team->members, &part);
    hh = &part;
  }
  const int64_t rows = l->units * sc_gates_of[l->cell];
  const int64_t steps = io->lengths ? io->lengths[b] : io->steps;
  const int states = sc_states_of[l->cell];
  float *held[3];
  state_arrays(l, &s, held);
  if (lead) {
    memset(s.h, 0, (size_t)sc_padded(l->width, SC_PAD) * sizeof(float));
    memset(s.out, 0, (size_t)sc_padded(l->units, SC_PAD) * sizeof(float));
    memset(s.rec, 0, (size_t)sc_padded(rows, 16) * sizeof(float));
    for (int i = 0; i < states; i++)
      memcpy(held[i], io->state[i] + b * features(l, i), (size_t)features(l, i) * sizeof(float));
  }
  wait_for(team);
  sc_point p = {.n = l->units,
                .rec = s.rec,
                .h = l->hr ? s.out : s.h,
                .c = s.c,
                .spk = s.h,
                .syn = s.syn,
                .mem = s.mem,
                .alpha = l->alpha,
                .beta = l->beta,
                .theta = l->theta,
                .strength = l->strength,
                .reset = l->reset,
                .delay = l->delay,
                .adapted = l->adapted};
  for (int64_t from = 0; from < steps; from += SC_CHUNK) {
    const int64_t n = steps - from < SC_CHUNK ? steps - from : SC_CHUNK;
    const int64_t first = l->reverse ? steps - from - n : from; /* the chunk covers times first .. first + n */
    const float *x = io->x + (first * io->stride + b) * l->in;
    const int64_t begin = share(n, team->member, team->members), end = share(n, team->member + 1, team->members);
    if (l->ih)
      sc_product(ops, l->ih, x + begin * io->stride * l->in, io->stride * l->in, end - begin, l->bias_ih,
                 s.drive + begin * rows, rows, s.product);
    for (int64_t k = 0; k < n; k++) {
      const int64_t at = l->reverse ? n - 1 - k : k, t = first + at;
      if (hh || lead) recur(ops, l, hh, first_row, &s);
      wait_for(team); /* all products of this step are there */
      if (!lead) {
        wait_for(team);
        continue;
      }
      p.drive = l->ih ? s.drive + at * rows : x + at * io->stride * l->in;
      ops->point[l->cell](&p);
      if (l->hr) sc_product(ops, l->hr, s.out, 0, 1, NULL, s.h, 0, s.hr_product);
      wait_for(team); /* the new state is there */
      emit(l, io, b, t, held);
    }
  }
  if (!lead) return;
  for (int64_t t = steps; t < io->steps; t++) /* past its end a sample emits zeros */
    for (int i = 0; i < states; i++)
      if (io->out[i])
        memset(io->out[i] + (t * io->stride + b) * features(l, i), 0, (size_t)features(l, i) * sizeof(float));
  for (int i = 0; i < states; i++)
    memcpy(io->state[i] + b * features(l, i), held[i], (size_t)features(l, i) * sizeof(float));
}

/* h: the state before a step, next: after it; out: what a projection narrows; was: states kept for ended samples. */
typedef struct batch_space {
  float *h, *next, *out, *c, *rec, *drive, *x, *was;
} batch_space;

static size_t lay_out_batch(const sc_layer *l, int64_t wide, int keep, float *base, batch_space *s) {
  sc_arena a = {.floats = base};
  const int64_t block = l->units < SC_BLOCK ? l->units : SC_BLOCK, gates = sc_gates_of[l->cell];
  s->h = sc_take(&a, l->width * wide);
  s->next = sc_take(&a, l->width * wide);
  s->out = sc_take(&a, l->hr ? l->units * wide : 0);
  s->c = sc_take(&a, l->units * wide);
  s->rec = sc_take(&a, gates * block * wide);
  s->drive = sc_take(&a, gates * block * wide);
  s->x = sc_take(&a, l->ih ? l->in * wide : 0);
  s->was = sc_take(&a, keep ? l->units * wide : 0);
  return a.used.floats;
}

/* Samples that have ended at step t keep their old state; their outputs of this step are zero. */
static void hold_ended(const sc_layer *l, const sc_io *io, int64_t t, int64_t wide, const batch_space *s) {
  float *now[2] = {s->next, s->c};
  const float *was[2] = {s->h, s->was};
  for (int64_t b = 0; b < io->batch; b++) {
    if (t < io->lengths[b]) continue;
    for (int i = 0; i < sc_states_of[l->cell]; i++) {
      const int64_t n = features(l, i);
      for (int64_t k = 0; k < n; k++) now[i][k * wide + b] = was[i][k * wide + b];
      if (io->out[i]) memset(io->out[i] + (t * io->stride + b) * n, 0, (size_t)n * sizeof(float));
    }
  }
}

/* Units first .. last of step t: their products, their pointwise part, their outputs. */
static void step_block(const sc_ops *ops, const sc_layer *l, const sc_io *io, int64_t t, int64_t first, int64_t last,
                       int64_t wide, const batch_space *s) {
  const int64_t n = (last - first) * wide;
  for (int64_t g = 0; g < sc_gates_of[l->cell]; g++) {
    const int64_t row = g * l->units + first, end = g * l->units + last;
    if (l->hh) ops->mm_rows[l->hh->format](l->hh, s->h, l->bias_hh, s->rec + g * n, wide, row, end);
    if (l->ih)
      ops->mm_rows[l->ih->format](l->ih, s->x, l->bias_ih, s->drive + g * n, wide, row, end);
    else
      to_columns(io->x + t * io->stride * l->in + row, l->in, io->batch, last - first, s->drive + g * n, wide);
  }
  float *h = (l->hr ? s->out : s->next) + first * wide, *c = s->c + first * wide;
  if (!l->hr) memcpy(h, s->h + first * wide, (size_t)n * sizeof(float)); /* a gru reads the state that it replaces */
  const sc_point p = {.n = n, .drive = s->drive, .rec = s->rec, .h = h, .c = c};
  ops->point[l->cell](&p);
  const float *made[2] = {l->hr ? NULL : h, c};
  for (int i = 0; i < sc_states_of[l->cell]; i++)
    if (made[i] && io->out[i])
      to_rows(made[i], wide, io->batch, last - first, io->out[i] + t * io->stride * features(l, i) + first,
              features(l, i));
}

static void run_batch(const sc_ops *ops, const sc_layer *l, const sc_io *io, float *workspace) {
  const int64_t wide = sc_padded(io->batch, ops->vector);
  batch_space s;
  const size_t used = lay_out_batch(l, wide, io->lengths != NULL, workspace, &s);
  memset(workspace, 0, used * sizeof(float));
  float *held[2] = {s.h, s.c};
  const int states = sc_states_of[l->cell];
  for (int i = 0; i < states; i++) to_columns(io->state[i], features(l, i), io->batch, features(l, i), held[i], wide);
  for (int64_t k = 0; k < io->steps; k++) {
    const int64_t t = l->reverse ? io->steps - 1 - k : k;
    if (io->lengths) memcpy(s.was, s.c, (size_t)(l->units * wide) * sizeof(float));
    if (l->ih) to_columns(io->x + t * io->stride * l->in, l->in, io->batch, l->in, s.x, wide);
    for (int64_t first = 0; first < l->units; first += SC_BLOCK)
      step_block(ops, l, io, t, first, first + SC_BLOCK < l->units ? first + SC_BLOCK : l->units, wide, &s);
    if (l->hr) {
      sc_mm(ops, l->hr, s.out, NULL, s.next, wide);
      if (io->out[0]) to_rows(s.next, wide, io->batch, l->width, io->out[0] + t * io->stride * l->width, l->width);
    }
    if (io->lengths) hold_ended(l, io, t, wide, &s);
    float *before = s.h;
    s.h = s.next;
    s.next = before;
  }
  held[0] = s.h;
  for (int i = 0; i < states; i++) to_rows(held[i], wide, io->batch, features(l, i), io->state[i], features(l, i));
}

size_t sc_workspace(const sc_ops *ops, const sc_layer *layer, const sc_io *io, int batched) {
  sample_space s;
  batch_space m;
  if (batched && sc_spiking_of[layer->cell]) {
    const size_t alone = lay_out_sample(layer, 0, 1, NULL, &s), many = sc_spikes_workspace(layer, io);
    return alone > many ? alone : many;
  }
  if (batched) return lay_out_batch(layer, sc_padded(io->batch, ops->vector), io->lengths != NULL, NULL, &m);
  return lay_out_sample(layer, 0, 1, NULL, &s);
}

size_t sc_team_workspace(const sc_layer *layer, int64_t members) {
  sample_space s;
  return lay_out_sample(layer, 0, members, NULL, &s);
}

void sc_run_in_team(const sc_ops *ops, const sc_layer *layer, const sc_io *io, float *workspace, const sc_team *team) {
  for (int64_t b = 0; b < io->batch; b++) run_sample(ops, layer, io, b, workspace, team);
}

void sc_run(const sc_ops *ops, const sc_layer *layer, const sc_io *io, int batched, float *workspace) {
  if (batched && !sc_spiking_of[layer->cell]) {
    run_batch(ops, layer, io, workspace);
    return;
  }
  if (batched && sc_runs_spikes(ops, layer, io) && sc_run_spikes(ops, layer, io, workspace)) return;
  const sc_team alone = {.members = 1};
  sc_run_in_team(ops, layer, io, workspace, &alone);
}
