/* Whole sequences in training: forward with what backward needs kept, and backward through time. */
#include "../include/sparsecirc_training.h"

#include <string.h>

#define SC_LONG_FLOATS (512 * 1024) /* from here on a sequence is written past the caches */
#define SC_LINEAR_WIDE 64           /* vectors of a linear layer that are handled together */

extern const sc_train_ops sc_train_ops_scalar;
#ifdef SC_X86
extern const sc_train_ops sc_train_ops_avx2, sc_train_ops_avx512;
#endif

const sc_train_ops *sc_train_ops_for(const sc_ops *ops) {
#ifdef SC_X86
  if (!strcmp(ops->isa, "avx512")) return &sc_train_ops_avx512;
  if (!strcmp(ops->isa, "avx2")) return &sc_train_ops_avx2;
#endif
  return &sc_train_ops_scalar;
}

static int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t gate_rows(int cell) { return cell == SC_CELL_gru ? 3 : cell == SC_CELL_lstm ? 4 : 1; }

int64_t sc_train_gates(int cell) { return cell == SC_CELL_gru || cell == SC_CELL_lstm ? 4 : 0; }
int64_t sc_train_blocks(int cell) { return cell == SC_CELL_gru || cell == SC_CELL_lstm ? 4 : 1; }

typedef struct arena {
  float *base;
  size_t used;
} arena;

static float *take(arena *a, int64_t n) {
  float *p = a->base ? a->base + a->used : NULL;
  a->used += (size_t)padded(n, 16);
  return p;
}

static int64_t width_of(const sc_ops *ops, const sc_train *t) { return padded(t->batch, ops->vector); }

static int states_of(const sc_train *t) { return t->cell == SC_CELL_lstm || t->cell == SC_CELL_lif ? 2 : 1; }

/* Whether a sequence of `features` is larger than what the caches keep. */
static int is_long(const sc_train *t, int64_t features) { return t->steps * t->batch * features > SC_LONG_FLOATS; }

static int64_t time_of(const sc_train *t, int64_t k) { return t->reverse ? t->steps - 1 - k : k; }

/* ---- forward ---------------------------------------------------------------------------------------------------- */
typedef struct forward_space {
  float *x, *rec, *gates, *states[2], *fired;
} forward_space;

static size_t lay_out_forward(const sc_ops *ops, const sc_train *t, float *base, forward_space *s) {
  arena a = {base, 0};
  const int64_t wide = width_of(ops, t), n = t->units * wide;
  s->x = take(&a, t->ih ? t->in * wide : 0);
  s->rec = take(&a, gate_rows(t->cell) * n);
  s->gates = take(&a, sc_train_blocks(t->cell) * n);
  for (int i = 0; i < 2; i++) s->states[i] = take(&a, t->states[i] ? 0 : 2 * n);
  s->fired = take(&a, n);
  return a.used;
}

size_t sc_train_forward_workspace(const sc_ops *ops, const sc_train *t) {
  forward_space s;
  return lay_out_forward(ops, t, NULL, &s);
}

void sc_train_forward(const sc_ops *ops, const sc_train *t, float *workspace) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  forward_space s;
  lay_out_forward(ops, t, workspace, &s);
  const int64_t wide = width_of(ops, t), n = t->units * wide, gate_floats = sc_train_gates(t->cell) * n;
  const int states = states_of(t);
  const int keep[2] = {t->states[0] != NULL, t->states[1] != NULL};
  sc_train_point p = {.n = n,
                      .units = t->units,
                      .wide = wide,
                      .rec = s.rec,
                      .fired = s.fired,
                      .beta = t->beta,
                      .theta = t->theta,
                      .reset = t->reset,
                      .delay = t->delay};
  float *held[2];
  for (int i = 0; i < states; i++) {
    held[i] = keep[i] ? t->states[i] : s.states[i];
    train->to_columns(t->state[i], t->batch, t->units, held[i], wide);
  }
  memset(s.rec, 0, (size_t)(gate_rows(t->cell) * n) * sizeof(float)); /* stays so without a recurrent weight */
  for (int64_t k = 0; k < t->steps; k++) {
    const int64_t at = time_of(t, k);
    p.gates = t->gates && gate_floats ? t->gates + k * gate_floats : s.gates;
    if (t->fired) p.fired = t->fired + k * n;
    const float *x = t->x + at * t->batch * t->in;
    train->to_columns(x, t->batch, t->in, t->ih ? s.x : p.gates, wide);
    if (t->ih) sc_mm(ops, t->ih, s.x, t->bias_ih, p.gates, wide);
    for (int i = 0; i < states; i++) {
      p.before[i] = held[i] + (keep[i] ? k : k % 2) * n;
      p.after[i] = held[i] + (keep[i] ? k + 1 : (k + 1) % 2) * n;
    }
    if (t->hh) sc_mm(ops, t->hh, p.before[0], t->bias_hh, s.rec, wide);
    train->forward[t->cell](&p);
    for (int i = 0; i < states; i++)
      if (t->out[i])
        train->to_rows(p.after[i], wide, t->batch, t->units, t->out[i] + at * t->batch * t->units,
                       is_long(t, t->units));
  }
  for (int i = 0; i < states; i++)
    if (t->last[i])
      train->to_rows(held[i] + (keep[i] ? t->steps : t->steps % 2) * n, wide, t->batch, t->units, t->last[i], 0);
}

/* ---- backward --------------------------------------------------------------------------------------------------- */

/* CSR of the transpose; rows of w from `split` on are columns `skip` further right. index: cols + 1 + nnz int32. */
static sc_matrix transpose(const sc_matrix *w, int64_t split, int64_t skip, float *values, int32_t *index) {
  int32_t *ptr = index, *column = index + w->cols + 1;
  memset(ptr, 0, (size_t)(w->cols + 1) * sizeof *ptr);
  for (int64_t i = 0; i < w->n_values; i++) ptr[w->index32[i] + 1]++;
  for (int64_t c = 0; c < w->cols; c++) ptr[c + 1] += ptr[c];
  for (int64_t r = 0; r < w->rows; r++)
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) {
      const int32_t to = ptr[w->index32[i]]++;
      column[to] = (int32_t)(r < split ? r : r + skip);
      values[to] = w->values[i];
    }
  for (int64_t c = w->cols; c > 0; c--) ptr[c] = ptr[c - 1];
  ptr[0] = 0;
  sc_matrix m = {.format = SC_FMT_csr,
                 .rows = w->cols,
                 .cols = w->rows + skip,
                 .n_values = w->n_values,
                 .n_index = w->n_values,
                 .n_ptr = w->cols + 1,
                 .values = values,
                 .ptr = ptr,
                 .index32 = column};
  return m;
}

static int64_t index_of(const sc_matrix *w) { return w ? padded(w->cols + 1 + w->n_values, 16) : 0; }

size_t sc_train_index(const sc_train *t) { return (size_t)(index_of(t->ih) + index_of(t->hh)); }

typedef struct backward_space {
  float *da, *x, *dx, *spk, *rec, *carry[2], *g_out[2], *slope, *d_beta, *d_theta, *ih, *hh;
} backward_space;

static size_t lay_out_backward(const sc_ops *ops, const sc_train *t, float *base, backward_space *s) {
  arena a = {base, 0};
  const int64_t wide = width_of(ops, t), n = t->units * wide;
  const int spiking = t->cell == SC_CELL_lif;
  s->da = take(&a, sc_train_blocks(t->cell) * n);
  s->x = take(&a, t->d_ih ? t->in * wide : 0);
  s->spk = take(&a, spiking ? n : 0);
  s->dx = take(&a, t->ih && t->dx ? t->in * wide : 0);
  s->rec = take(&a, n);
  for (int i = 0; i < 2; i++) {
    s->carry[i] = take(&a, n);
    s->g_out[i] = take(&a, n);
  }
  s->slope = take(&a, wide);
  s->d_beta = take(&a, spiking ? n : 0);
  s->d_theta = take(&a, spiking ? n : 0);
  s->ih = take(&a, t->ih && t->dx ? t->ih->n_values : 0);
  s->hh = take(&a, t->hh ? t->hh->n_values : 0);
  return a.used;
}

size_t sc_train_backward_workspace(const sc_ops *ops, const sc_train *t) {
  backward_space s;
  return lay_out_backward(ops, t, NULL, &s);
}

static void clear(float *p, int64_t n) {
  if (p) memset(p, 0, (size_t)n * sizeof *p);
}

/* What the recurrent weight multiplied in step k. */
static const float *fed_back(const sc_train_ops *train, const sc_train *t, const backward_space *s, int64_t k,
                             int64_t wide) {
  const int64_t n = t->units * wide;
  if (t->cell != SC_CELL_lif) return t->states[0] + k * n;
  if (k == 0)
    train->to_columns(t->state[0], t->batch, t->units, s->spk, wide);
  else
    train->fire(t->fired ? t->fired + (k - 1) * n : t->states[1] + k * n, t->theta, t->units, wide, s->spk);
  return s->spk;
}

/* Adds step k's part of the gradients of weights and biases. */
static void weight_gradients(const sc_train_ops *train, const sc_train *t, const backward_space *s, int64_t k,
                             int64_t wide) {
  const int64_t units = t->units, rows = gate_rows(t->cell) * units;
  const int64_t split = t->cell == SC_CELL_gru ? 2 * units : rows, skip = t->cell == SC_CELL_gru ? units : 0;
  if (t->d_hh) train->sampled(t->hh, s->da, rows, 0, fed_back(train, t, s, k, wide), wide, t->d_hh);
  if (t->d_ih) {
    train->to_columns(t->x + time_of(t, k) * t->batch * t->in, t->batch, t->in, s->x, wide);
    train->sampled(t->ih, s->da, split, skip, s->x, wide, t->d_ih);
  }
  if (t->d_bias_hh) train->row_sums(s->da, rows, wide, t->d_bias_hh);
  if (t->d_bias_ih) {
    train->row_sums(s->da, split, wide, t->d_bias_ih);
    train->row_sums(s->da + (split + skip) * wide, rows - split, wide, t->d_bias_ih + split);
  }
}

void sc_train_backward(const sc_ops *ops, const sc_train *t, float *workspace, int32_t *index) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  backward_space s;
  lay_out_backward(ops, t, workspace, &s);
  const int64_t wide = width_of(ops, t), units = t->units, n = units * wide;
  const int64_t gate_floats = sc_train_gates(t->cell) * n;
  const int64_t rows = gate_rows(t->cell) * units, skip = t->cell == SC_CELL_gru ? units : 0;
  const int states = states_of(t);
  sc_matrix ih, hh;
  if (t->ih && t->dx) ih = transpose(t->ih, skip ? 2 * units : rows, skip, s.ih, index);
  if (t->hh) hh = transpose(t->hh, rows, 0, s.hh, index + index_of(t->ih));
  clear(t->d_ih, t->ih ? t->ih->n_values : 0);
  clear(t->d_hh, t->hh ? t->hh->n_values : 0);
  clear(t->d_bias_ih, rows);
  clear(t->d_bias_hh, rows);
  clear(s.rec, n);
  if (t->cell == SC_CELL_lif) {
    clear(s.d_beta, n);
    clear(s.d_theta, n);
  }
  for (int i = 0; i < 2; i++) {
    clear(s.carry[i], n);
    clear(s.g_out[i], n);
    if (i < states && t->g_last[i]) train->to_columns(t->g_last[i], t->batch, units, s.carry[i], wide);
  }
  if (t->cell == SC_CELL_lif) memcpy(s.rec, s.carry[0], (size_t)n * sizeof(float));
  sc_train_point p = {.n = n,
                      .units = units,
                      .wide = wide,
                      .beta = t->beta,
                      .theta = t->theta,
                      .reset = t->reset,
                      .delay = t->delay,
                      .surrogate = t->surrogate,
                      .scale = t->scale,
                      .g_out = {s.g_out[0], s.g_out[1]},
                      .g_rec = s.rec,
                      .g_carry = {s.carry[0], s.carry[1]},
                      .da = s.da,
                      .slope = s.slope,
                      .d_beta = s.d_beta,
                      .d_theta = s.d_theta};
  for (int64_t k = t->steps - 1; k >= 0; k--) {
    const int64_t at = time_of(t, k);
    p.gates = gate_floats ? t->gates + k * gate_floats : NULL;
    p.fired = t->fired ? t->fired + k * n : NULL;
    for (int i = 0; i < states; i++) {
      p.before[i] = t->states[i] ? t->states[i] + k * n : NULL;
      p.after[i] = t->states[i] ? t->states[i] + (k + 1) * n : NULL;
      if (t->g_out[i]) train->to_columns(t->g_out[i] + at * t->batch * units, t->batch, units, s.g_out[i], wide);
    }
    train->backward[t->cell](&p);
    if (t->hh)
      sc_mm(ops, &hh, s.da, NULL, s.rec, wide);
    else
      clear(s.rec, n);
    if (t->dx && t->ih) sc_mm(ops, &ih, s.da, NULL, s.dx, wide);
    if (t->dx)
      train->to_rows(t->ih ? s.dx : s.da, wide, t->batch, t->in, t->dx + at * t->batch * t->in, is_long(t, t->in));
    weight_gradients(train, t, &s, k, wide);
  }
  if (t->cell != SC_CELL_lif) {
    for (int64_t i = 0; i < n; i++) s.carry[0][i] += s.rec[i];
  } else {
    memcpy(s.carry[0], s.rec, (size_t)n * sizeof(float));
    clear(t->d_beta, units);
    clear(t->d_theta, units);
    if (t->d_beta) train->row_sums(s.d_beta, units, wide, t->d_beta);
    if (t->d_theta) train->row_sums(s.d_theta, units, wide, t->d_theta);
  }
  for (int i = 0; i < states; i++)
    if (t->d_state[i]) train->to_rows(s.carry[i], wide, t->batch, units, t->d_state[i], 0);
}

/* ---- linear ----------------------------------------------------------------------------------------------------- */
static int64_t linear_wide(const sc_ops *ops, int64_t n) {
  const int64_t all = padded(n, ops->vector);
  return all < SC_LINEAR_WIDE ? all : SC_LINEAR_WIDE;
}

typedef struct linear_space {
  float *x, *y, *dx, *values;
} linear_space;

static size_t lay_out_linear(const sc_ops *ops, const sc_matrix *w, int64_t n, float *base, linear_space *s) {
  arena a = {base, 0};
  const int64_t wide = linear_wide(ops, n);
  s->x = take(&a, w->cols * wide);
  s->y = take(&a, w->rows * wide);
  s->dx = take(&a, w->cols * wide);
  s->values = take(&a, w->n_values);
  return a.used;
}

size_t sc_train_linear_workspace(const sc_ops *ops, const sc_matrix *w, int64_t n) {
  linear_space s;
  return lay_out_linear(ops, w, n, NULL, &s);
}

size_t sc_train_linear_index(const sc_matrix *w) { return (size_t)index_of(w); }

void sc_train_linear(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *bias, float *y,
                     float *workspace) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  linear_space s;
  lay_out_linear(ops, w, n, workspace, &s);
  for (int64_t from = 0; from < n; from += SC_LINEAR_WIDE) {
    const int64_t count = n - from < SC_LINEAR_WIDE ? n - from : SC_LINEAR_WIDE, wide = linear_wide(ops, count);
    train->to_columns(x + from * w->cols, count, w->cols, s.x, wide);
    sc_mm(ops, w, s.x, bias, s.y, wide);
    train->to_rows(s.y, wide, count, w->rows, y + from * w->rows, 0);
  }
}

void sc_train_linear_backward(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *g,
                              float *dx, float *d_w, float *d_bias, float *workspace, int32_t *index) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  linear_space s;
  lay_out_linear(ops, w, n, workspace, &s);
  sc_matrix back;
  if (dx) back = transpose(w, w->rows, 0, s.values, index);
  clear(d_w, w->n_values);
  clear(d_bias, w->rows);
  for (int64_t from = 0; from < n; from += SC_LINEAR_WIDE) {
    const int64_t count = n - from < SC_LINEAR_WIDE ? n - from : SC_LINEAR_WIDE, wide = linear_wide(ops, count);
    train->to_columns(g + from * w->rows, count, w->rows, s.y, wide);
    if (d_w) {
      train->to_columns(x + from * w->cols, count, w->cols, s.x, wide);
      train->sampled(w, s.y, w->rows, 0, s.x, wide, d_w);
    }
    if (d_bias) train->row_sums(s.y, w->rows, wide, d_bias);
    if (dx) {
      sc_mm(ops, &back, s.y, NULL, s.dx, wide);
      train->to_rows(s.dx, wide, count, w->cols, dx + from * w->cols, 0);
    }
  }
}
