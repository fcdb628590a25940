/* Whole sequences of spiking neurons in training.
 *
 * The product of the recurrent weight with a step's spikes, and the gradient of the weight, are made in one of two
 * ways: spike by spike from lists of active units, or for all samples at once on (units, wide). Both add the columns in
 * order, so which one is taken never shows in a membrane. The product in the backward pass has nothing sparse but the
 * weight: surrogate gradients reach every unit. Neurons are computed row by row, some samples' rows at a time, so that
 * these stay in the first cache while they are turned to and from the products.
 */
#include "training_common.h"

#define SC_EVENT_STEPS 4 /* fewer steps do not pay for a transposed matrix */
#define SC_ROWS 16       /* samples that are computed together */
#define SC_AHEAD 2       /* rows from which the next one is asked for: each lies in a page of its own */

/* An active input costs one scattered addition per connection, a product over the batch one vector per connection and
 * `vector` samples: events win up to about this share of a vector.
 */
#define SC_EVENT_SHARE 0.5

static int64_t wide_of(const sc_ops *ops, const sc_spiking *t) { return sc_padded(t->batch, ops->vector); }

static int by_events(const sc_ops *ops, const sc_spiking *t, int64_t active, int64_t samples) {
  return (double)active * (double)ops->vector <= SC_EVENT_SHARE * (double)(samples * t->units);
}

/* Whether rows of a sequence at `p` go past the caches. */
static int past(const sc_spiking *t, const float *p) {
  return t->steps * t->batch * t->units > SC_LONG_FLOATS && ((uintptr_t)p | (uintptr_t)t->units * sizeof *p) % 64 == 0;
}

static const float *row_of(const float *sequence, const sc_spiking *t, int64_t k, int64_t b) {
  return sequence + (k * t->batch + b) * t->units;
}

static void fetch(const float *sequence, const sc_spiking *t, int64_t row) {
  if (!sequence || row < 0 || row >= t->steps * t->batch) return;
  for (int64_t i = 0; i < t->units; i += 16) __builtin_prefetch(sequence + row * t->units + i);
}

static int64_t samples_from(const sc_spiking *t, int64_t b) { return t->batch - b < SC_ROWS ? t->batch - b : SC_ROWS; }

/* The active units of each sample. */
typedef struct active {
  int32_t *list, *count; /* [samples][units], [samples] */
  int64_t total;
} active;

static void find_active(const sc_train_ops *train, const sc_spiking *t, active *a, int64_t b, const float *mem) {
  a->count[b] = (int32_t)train->list_fired(mem, t->theta, t->units, a->list + b * t->units);
  a->total += a->count[b];
}

/* Spikes of n samples as columns of (units, wide). */
static void spread(const sc_spiking *t, const active *a, int64_t n, float *columns, int64_t wide) {
  for (int64_t b = 0; b < n; b++)
    for (int32_t i = 0; i < a->count[b]; i++) columns[a->list[b * t->units + i] * wide + b] = 1.0f;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */
typedef struct forward_space {
  float *syn, *mem, *spk, *fired, *one, *rec; /* rec: of SC_ROWS samples */
  float *turned, *product;                    /* (units, wide) */
  sc_copy columns, tiles;                     /* the transpose, the tiles */
  active on;
} forward_space;

static int uses_events(const sc_spiking *t) { return t->hh && t->steps > SC_EVENT_STEPS; }

static int64_t tiles_of(const sc_ops *ops, const sc_spiking *t) {
  return t->hh ? sc_tiles(t->hh, wide_of(ops, t), t->steps) : 1; /* square: as many for the transpose */
}

static void lay_out_forward(const sc_ops *ops, const sc_spiking *t, sc_arena *a, forward_space *s) {
  const int64_t n = t->units * t->batch, turned = t->hh ? t->units * wide_of(ops, t) : 0;
  s->syn = sc_take(a, t->alpha ? n : 0);
  s->mem = sc_take(a, n);
  s->spk = sc_take(a, t->units);
  s->fired = sc_take(a, t->units);
  s->one = sc_take(a, t->units);
  s->rec = sc_take(a, t->hh ? SC_ROWS * t->units : 0);
  s->turned = sc_take(a, turned);
  s->product = sc_take(a, turned);
  if (uses_events(t)) s->columns = sc_take_transpose(a, t->hh);
  if (t->hh) s->tiles = sc_take_tiles(a, t->hh, tiles_of(ops, t));
  s->on.list = sc_take_ints(a, n);
  s->on.count = sc_take_ints(a, t->batch);
}

sc_space sc_spiking_forward_space(const sc_ops *ops, const sc_spiking *t) {
  forward_space s;
  sc_arena a = {0};
  lay_out_forward(ops, t, &a, &s);
  return a.used;
}

/* rec = bias + the columns of the active inputs of sample b */
static void add_columns(const sc_spiking *t, const sc_matrix *columns, const active *on, int64_t b, float *rec) {
  if (t->bias)
    memcpy(rec, t->bias, (size_t)t->units * sizeof *rec);
  else
    sc_clear(rec, t->units);
  const int32_t *list = on->list + b * t->units;
  for (int32_t k = 0; k < on->count[b]; k++) {
    const int32_t to = columns->ptr[list[k] + 1];
    for (int32_t i = columns->ptr[list[k]]; i < to; i++) rec[columns->index32[i]] += columns->values[i];
  }
}

/* The recurrent product of step k for all samples at once. */
static void product_of(const sc_ops *ops, const sc_spiking *t, const forward_space *s, const sc_matrix *hh, int64_t k,
                       int64_t wide) {
  if (k) {
    sc_clear(s->turned, t->units * wide);
    spread(t, &s->on, t->batch, s->turned, wide);
  } else {
    sc_train_ops_for(ops)->to_columns(t->spk0, t->batch, t->units, s->turned, wide);
  }
  sc_mm(ops, hh, s->turned, t->bias, s->product, wide);
}

void sc_spiking_forward(const sc_ops *ops, const sc_spiking *t, float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  forward_space s = {0};
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_forward(ops, t, &a, &s);
  const int64_t units = t->units, wide = wide_of(ops, t), n = units * t->batch;
  const int events = uses_events(t);
  sc_matrix columns = {0}, hh = {0};
  if (events) columns = sc_transpose(t->hh, units, 0, s.columns, NULL);
  if (t->hh) hh = sc_in_tiles(t->hh, wide, tiles_of(ops, t), s.tiles);
  memcpy(s.mem, t->mem0, (size_t)n * sizeof(float));
  if (t->alpha) memcpy(s.syn, t->syn0, (size_t)n * sizeof(float));
  s.on.total = 0;
  if (t->bias)
    memcpy(s.one, t->bias, (size_t)units * sizeof(float));
  else
    sc_clear(s.one, units);
  const int past_spk = past(t, t->spk), past_syn = past(t, t->syn), past_mem = past(t, t->mem);
  sc_spike_row p = {.n = units,
                    .reset = t->reset,
                    .delay = t->delay,
                    .alpha = t->alpha,
                    .beta = t->beta,
                    .theta = t->theta,
                    .spk = s.spk,
                    .fired = s.fired};
  for (int64_t k = 0; k < t->steps; k++) {
    const int one_by_one = k && events && by_events(ops, t, s.on.total, t->batch);
    if (t->hh && !one_by_one) product_of(ops, t, &s, &hh, k, wide);
    s.on.total = 0;
    for (int64_t b = 0; b < t->batch; b++) {
      const int64_t at = (k * t->batch + b) * units, in_block = b % SC_ROWS;
      if (t->hh && !one_by_one && !in_block) train->turn(s.product + b, units, samples_from(t, b), wide, s.rec, units);
      fetch(t->x, t, k * t->batch + b + SC_AHEAD);
      float *rec = s.rec + in_block * units;
      if (one_by_one) add_columns(t, &columns, &s.on, b, rec);
      p.rec = t->hh ? rec : s.one;
      p.x = t->x + at;
      p.mem = s.mem + b * units;
      p.syn = t->alpha ? s.syn + b * units : NULL;
      train->spike_forward(&p);
      if (t->hh) find_active(train, t, &s.on, b, t->delay ? p.mem : s.fired);
      if (t->theta) train->put_row(t->spk + at, s.spk, units, past_spk);
      train->put_row(t->mem + at, p.mem, units, past_mem);
      if (t->alpha) train->put_row(t->syn + at, p.syn, units, past_syn);
      if (t->fired) memcpy(t->fired + at, s.fired, (size_t)units * sizeof(float));
    }
  }
  train->put_done();
}

/* ---- backward --------------------------------------------------------------------------------------------------- */
enum { D_BIAS, D_ALPHA, D_BETA, D_THETA, N_SUMS };

typedef struct backward_space {
  float *carry_syn, *carry_mem, *slope, *none;
  float *rec, *da;                   /* of SC_ROWS samples */
  float *step[N_SUMS], *sum[N_SUMS]; /* gradients that are sums over samples: of one step, of all */
  float *turned, *product, *inputs;  /* (units, wide): da, its product, spikes */
  sc_copy columns, tiles;            /* the transpose, and that in tiles */
  float *d_events;                   /* gradients in the order of the transpose, */
  int32_t *moved;                    /* and where in it each value of the matrix is */
  active on;                         /* of SC_ROWS samples */
} backward_space;

static void lay_out_backward(const sc_ops *ops, const sc_spiking *t, sc_arena *a, backward_space *s) {
  const int64_t n = t->units * t->batch, turned = t->hh ? t->units * wide_of(ops, t) : 0;
  s->carry_syn = sc_take(a, t->alpha ? n : 0);
  s->carry_mem = sc_take(a, n);
  s->slope = sc_take(a, t->units);
  s->none = sc_take(a, t->units);
  s->rec = sc_take(a, t->hh ? SC_ROWS * t->units : 0);
  s->da = sc_take(a, SC_ROWS * t->units);
  for (int i = 0; i < N_SUMS; i++) {
    s->step[i] = sc_take(a, t->units);
    s->sum[i] = sc_take(a, t->units);
  }
  s->turned = sc_take(a, turned);
  s->product = sc_take(a, turned);
  s->on.list = sc_take_ints(a, SC_ROWS * t->units);
  s->on.count = sc_take_ints(a, SC_ROWS);
  if (t->hh) {
    const int64_t nnz = t->hh->n_values;
    s->inputs = sc_take(a, t->d_hh ? turned : 0);
    s->columns = sc_take_transpose(a, t->hh);
    s->tiles = sc_take_tiles(a, t->hh, tiles_of(ops, t));
    s->d_events = sc_take(a, t->d_hh ? nnz : 0);
    s->moved = sc_take_ints(a, nnz);
  }
}

sc_space sc_spiking_backward_space(const sc_ops *ops, const sc_spiking *t) {
  backward_space s;
  sc_arena a = {0};
  lay_out_backward(ops, t, &a, &s);
  return a.used;
}

/* Adds the gradient da of a sample to the connections from its active inputs. */
static void add_events(const sc_spiking *t, const sc_matrix *columns, const active *on, int64_t b, const float *da,
                       float *d_events) {
  const int32_t *list = on->list + b * t->units;
  for (int32_t k = 0; k < on->count[b]; k++) {
    const int32_t to = columns->ptr[list[k] + 1];
    for (int32_t i = columns->ptr[list[k]]; i < to; i++) d_events[i] += da[columns->index32[i]];
  }
}

/* The neurons of n samples in step k: the next step's gradients in, the previous step's out. */
static void backward_rows(const sc_train_ops *train, const sc_spiking *t, backward_space *s, int64_t k, int64_t from,
                          int64_t n, int dx_past) {
  const int64_t units = t->units;
  sc_spike_row p = {.n = units,
                    .reset = t->reset,
                    .delay = t->delay,
                    .alpha = t->alpha,
                    .beta = t->beta,
                    .theta = t->theta,
                    .surrogate = t->surrogate,
                    .scale = t->scale,
                    .slope = s->slope,
                    .d_bias = s->step[D_BIAS],
                    .d_alpha = s->step[D_ALPHA],
                    .d_beta = s->step[D_BETA],
                    .d_theta = s->step[D_THETA]};
  for (int64_t i = 0; i < n; i++) {
    const int64_t b = from + i, at = b * units, soon = b + SC_AHEAD;
    const int64_t next = soon < t->batch ? k * t->batch + soon : (k - 2) * t->batch + soon;
    fetch(t->g_spk, t, next);
    fetch(t->g_syn, t, next);
    fetch(t->g_mem, t, next);
    fetch(t->mem, t, next - t->batch);
    if (t->alpha) fetch(t->syn, t, next - t->batch);
    p.rec = t->hh ? s->rec + i * units : s->none;
    p.mem_before = k ? row_of(t->mem, t, k - 1, b) : t->mem0 + at;
    if (t->alpha) p.syn_before = k ? row_of(t->syn, t, k - 1, b) : t->syn0 + at;
    p.compared = row_of(t->fired ? t->fired : t->mem, t, k, b);
    p.g_spk = t->g_spk ? row_of(t->g_spk, t, k, b) : s->none;
    p.g_syn = t->g_syn ? row_of(t->g_syn, t, k, b) : s->none;
    p.g_mem = t->g_mem ? row_of(t->g_mem, t, k, b) : s->none;
    p.carry_syn = t->alpha ? s->carry_syn + at : NULL;
    p.carry_mem = s->carry_mem + at;
    p.da = s->da + i * units;
    train->spike_backward(&p);
    if (t->dx) train->put_row(t->dx + k * t->batch * units + at, p.da, units, dx_past);
    if (t->d_hh && k) find_active(train, t, &s->on, i, row_of(t->fired ? t->fired : t->mem, t, k - 1, b));
  }
}

/* One step. Samples with few spikes give their part of the weight's gradient at once, the others together. */
static void backward_step(const sc_ops *ops, const sc_spiking *t, backward_space *s, const sc_matrix *columns,
                          int64_t k, int dx_past) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  const int64_t units = t->units, wide = wide_of(ops, t);
  int together = 0;
  for (int i = 0; i < N_SUMS; i++) sc_clear(s->step[i], units);
  for (int64_t b = 0; b < t->batch; b += SC_ROWS) {
    const int64_t n = samples_from(t, b);
    if (t->hh) train->turn(s->product + b, units, n, wide, s->rec, units);
    s->on.total = 0;
    backward_rows(train, t, s, k, b, n, dx_past);
    if (t->hh) train->turn(s->da, n, units, units, s->turned + b, wide);
    if (!t->d_hh || !k) continue;
    if (by_events(ops, t, s->on.total, n)) {
      for (int64_t i = 0; i < n; i++) add_events(t, columns, &s->on, i, s->da + i * units, s->d_events);
    } else {
      if (!together) sc_clear(s->inputs, units * wide);
      together = 1;
      spread(t, &s->on, n, s->inputs + b, wide);
    }
  }
  for (int i = 0; i < N_SUMS; i++)
    for (int64_t u = 0; u < units; u++) s->sum[i][u] += s->step[i][u];
  if (!t->d_hh) return;
  if (!k) train->to_columns(t->spk0, t->batch, units, s->inputs, wide);
  if (!k || together) train->sampled(t->hh, s->turned, units, 0, s->inputs, wide, t->d_hh);
}

static void copy_out(float *to, const float *from, int64_t n) {
  if (to) memcpy(to, from, (size_t)n * sizeof *to);
}

void sc_spiking_backward(const sc_ops *ops, const sc_spiking *t, float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  backward_space s = {0};
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_backward(ops, t, &a, &s);
  const int64_t units = t->units, wide = wide_of(ops, t), n = units * t->batch;
  const int dx_past = past(t, t->dx);
  sc_matrix columns = {0}, back = {0};
  if (t->hh) {
    columns = sc_transpose(t->hh, units, 0, s.columns, s.moved);
    back = sc_in_tiles(&columns, wide, tiles_of(ops, t), s.tiles);
    sc_clear(s.turned, units * wide);
    sc_clear(s.product, units * wide);
  }
  if (t->d_hh) {
    sc_clear(t->d_hh, t->hh->n_values);
    sc_clear(s.d_events, t->hh->n_values);
  }
  if (t->alpha) sc_clear(s.carry_syn, n);
  sc_clear(s.carry_mem, n);
  sc_clear(s.none, units);
  for (int i = 0; i < N_SUMS; i++) sc_clear(s.sum[i], units);
  for (int64_t k = t->steps - 1; k >= 0; k--) {
    backward_step(ops, t, &s, &columns, k, dx_past);
    if (t->hh) sc_mm(ops, &back, s.turned, NULL, s.product, wide);
  }
  train->put_done();
  for (int64_t i = 0; t->d_hh && i < t->hh->n_values; i++) t->d_hh[i] += s.d_events[s.moved[i]];
  copy_out(t->d_bias, s.sum[D_BIAS], units);
  copy_out(t->d_alpha, s.sum[D_ALPHA], units);
  copy_out(t->d_beta, s.sum[D_BETA], units);
  copy_out(t->d_theta, s.sum[D_THETA], units);
  copy_out(t->d_syn0, s.carry_syn, n);
  copy_out(t->d_mem0, s.carry_mem, n);
  if (!t->d_spk0) return;
  if (t->hh)
    train->to_rows(s.product, wide, t->batch, units, t->d_spk0, 0);
  else
    sc_clear(t->d_spk0, n);
}
