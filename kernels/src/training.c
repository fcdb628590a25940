/* Whole sequences of gated layers in training: forward with what backward needs kept, and backward through time. */
#include "training_common.h"

extern const sc_train_ops sc_train_ops_scalar;
#ifdef SC_X86
extern const sc_train_ops sc_train_ops_avx2, sc_train_ops_avx512;
#endif
#ifdef SC_AARCH64
extern const sc_train_ops sc_train_ops_neon;
#endif

const sc_train_ops *sc_train_ops_for(const sc_ops *ops) {
#ifdef SC_X86
  if (!strcmp(ops->isa, "avx512")) return &sc_train_ops_avx512;
  if (!strcmp(ops->isa, "avx2")) return &sc_train_ops_avx2;
#endif
#ifdef SC_AARCH64
  if (!strcmp(ops->isa, "neon")) return &sc_train_ops_neon;
#endif
  return &sc_train_ops_scalar;
}

static int64_t gate_rows(int cell) { return cell == SC_CELL_gru ? 3 : cell == SC_CELL_lstm ? 4 : 1; }

int64_t sc_train_gates(int cell) { return cell == SC_CELL_gru || cell == SC_CELL_lstm ? 4 : 0; }
static int64_t gradient_blocks(int cell) { return cell == SC_CELL_gru || cell == SC_CELL_lstm ? 4 : 1; }

static int64_t wide_of(const sc_ops *ops, const sc_train *t) { return sc_padded(t->batch, ops->vector); }

static int states_of(const sc_train *t) { return t->cell == SC_CELL_lstm ? 2 : 1; }

static int64_t features_of(const sc_train *t, int state) { return state ? t->units : t->width; }

/* Whether a sequence of `features` is larger than what the caches keep. */
static int is_long(const sc_train *t, int64_t features) { return t->steps * t->batch * features > SC_LONG_FLOATS; }

/* The samples that step k of the processing has: `count` rows from `row` on. */
typedef struct moment {
  int64_t row, count;
} moment;

static moment moment_of(const sc_train *t, int64_t k) {
  const int64_t at = t->reverse ? t->steps - 1 - k : k;
  if (!t->offsets) return (moment){at * t->batch, t->batch};
  return (moment){t->offsets[at], t->offsets[at + 1] - t->offsets[at]};
}

/* Samples from `count` on, of (rows, wide): set to those of `from`, or to zero. */
static void hold(float *to, const float *from, int64_t rows, int64_t wide, int64_t count) {
  for (int64_t r = 0; r < rows; r++) {
    if (from)
      memcpy(to + r * wide + count, from + r * wide + count, (size_t)(wide - count) * sizeof *to);
    else
      sc_clear(to + r * wide + count, wide - count);
  }
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

/* A weight as its products want it: as it is where it has every connection, else in tiles where these pay. */
typedef struct weight {
  sc_matrix m;
  int full;
  int64_t split, skip; /* of a transpose: see sc_transpose */
} weight;

static int is_full(const sc_matrix *w) {
  if (w->n_values != w->rows * w->cols) return 0;
  for (int64_t i = 0; i < w->n_values; i++)
    if (w->index32[i] != (int32_t)(i % w->cols)) return 0;
  return 1;
}

/* Room for sc_in_tiles; `transposed`: for the tiles of the transpose, with `skip` columns more. */
static sc_copy take_tiles(sc_arena *a, const sc_ops *ops, const sc_train *t, const sc_matrix *w, int transposed,
                          int64_t skip) {
  sc_matrix m = *w;
  if (transposed) {
    m.rows = w->cols;
    m.cols = w->rows + skip;
  }
  return sc_take_tiles(a, &m, sc_tiles(&m, wide_of(ops, t), t->steps));
}

static weight weight_of(const sc_ops *ops, const sc_train *t, const sc_matrix *m, int full, sc_copy room) {
  const int64_t wide = wide_of(ops, t), tiles = full ? 1 : sc_tiles(m, wide, t->steps);
  return (weight){.m = sc_in_tiles(m, wide, tiles, room), .full = full, .split = m->cols};
}

static weight transpose_of(const sc_ops *ops, const sc_train *t, const sc_matrix *m, int full, int64_t split,
                           int64_t skip, sc_copy room, sc_copy tiles) {
  const sc_matrix back = sc_transpose(m, split, skip, room, NULL);
  weight w = weight_of(ops, t, &back, full, tiles);
  w.split = split;
  w.skip = skip;
  return w;
}

/* y = bias + W x over (features, wide). */
static void multiply(const sc_ops *ops, const weight *w, const float *x, const float *bias, float *y, int64_t wide) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  if (!w->full) {
    sc_mm(ops, &w->m, x, bias, y, wide);
    return;
  }
  const int64_t lda = w->m.cols - w->skip;
  sc_dense p = {.rows = w->m.rows,
                .inner = w->split,
                .cols = wide,
                .a = w->m.values,
                .x = x,
                .bias = bias,
                .y = y,
                .lda = lda,
                .ldx = wide,
                .ldy = wide};
  train->dense_mm(&p);
  if (lda == w->split) return;
  p.a += w->split;
  p.x += (w->split + w->skip) * wide;
  p.inner = lda - w->split;
  p.add = 1;
  train->dense_mm(&p);
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */
typedef struct forward_space {
  float *x, *rec, *gates, *states[2], *wide_h;
  sc_copy ih, hh, hr;
} forward_space;

static void lay_out_forward(const sc_ops *ops, const sc_train *t, sc_arena *a, forward_space *s) {
  const int64_t wide = wide_of(ops, t), n = t->units * wide;
  s->x = sc_take(a, t->in * wide);
  s->rec = sc_take(a, gate_rows(t->cell) * n);
  s->gates = sc_take(a, t->gates ? 0 : gradient_blocks(t->cell) * n);
  for (int i = 0; i < 2; i++) s->states[i] = sc_take(a, t->states[i] ? 0 : 2 * features_of(t, i) * wide);
  s->wide_h = sc_take(a, t->hr ? n : 0);
  s->ih = take_tiles(a, ops, t, t->ih, 0, 0);
  s->hh = take_tiles(a, ops, t, t->hh, 0, 0);
  if (t->hr) s->hr = take_tiles(a, ops, t, t->hr, 0, 0);
}

sc_space sc_train_forward_space(const sc_ops *ops, const sc_train *t) {
  forward_space s;
  sc_arena a = {0};
  lay_out_forward(ops, t, &a, &s);
  return a.used;
}

void sc_train_forward(const sc_ops *ops, const sc_train *t, float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  forward_space s = {0};
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_forward(ops, t, &a, &s);
  const int64_t wide = wide_of(ops, t), n = t->units * wide, gate_floats = sc_train_gates(t->cell) * n;
  const int states = states_of(t);
  const int keep[2] = {t->states[0] != NULL, t->states[1] != NULL};
  const weight ih = weight_of(ops, t, t->ih, is_full(t->ih), s.ih);
  const weight hh = weight_of(ops, t, t->hh, is_full(t->hh), s.hh);
  weight hr = {0};
  if (t->hr) hr = weight_of(ops, t, t->hr, is_full(t->hr), s.hr);
  sc_train_point p = {.n = n, .rec = s.rec};
  float *held[2];
  int64_t size[2];
  for (int i = 0; i < states; i++) {
    held[i] = keep[i] ? t->states[i] : s.states[i];
    size[i] = features_of(t, i) * wide;
    train->to_columns(t->state[i], t->batch, features_of(t, i), held[i], wide);
  }
  for (int64_t k = 0; k < t->steps; k++) {
    const moment now = moment_of(t, k);
    p.gates = t->gates ? t->gates + k * gate_floats : s.gates;
    train->to_columns(t->x + now.row * t->in, now.count, t->in, s.x, wide);
    multiply(ops, &ih, s.x, t->bias_ih, p.gates, wide);
    float *after[2];
    for (int i = 0; i < states; i++) {
      p.before[i] = held[i] + (keep[i] ? k : k % 2) * size[i];
      p.after[i] = after[i] = held[i] + (keep[i] ? k + 1 : (k + 1) % 2) * size[i];
    }
    multiply(ops, &hh, p.before[0], t->bias_hh, s.rec, wide);
    if (t->hr) p.after[0] = s.wide_h;
    train->forward[t->cell](&p);
    if (t->hr) multiply(ops, &hr, s.wide_h, NULL, after[0], wide);
    for (int i = 0; i < states && now.count < t->batch; i++)
      hold(after[i], p.before[i], features_of(t, i), wide, now.count);
    train->to_rows(after[0], wide, now.count, t->width, t->out + now.row * t->width, is_long(t, t->width));
  }
  for (int i = 0; i < states; i++)
    train->to_rows(held[i] + (keep[i] ? t->steps : t->steps % 2) * size[i], wide, t->batch, features_of(t, i),
                   t->last[i], 0);
}

/* ---- backward --------------------------------------------------------------------------------------------------- */
typedef struct backward_space {
  float *da, *x, *dx, *rec, *carry[2], *idle[2], *g_out;
  float *wide_h, *d_wide_h, *d_h, *none; /* projection: its input and the gradient of that, that of its output, zeros */
  float *x_rows, *d_full;                /* full input weight: a step's input and the gradient, rows of whole vectors */
  sc_copy ih, hh, hr, ih_tiles, hh_tiles, hr_tiles;
} backward_space;

static int64_t skip_of(const sc_train *t) { return t->cell == SC_CELL_gru ? t->units : 0; }

static int64_t split_of(const sc_train *t) { return (t->cell == SC_CELL_gru ? 2 : gate_rows(t->cell)) * t->units; }

static void lay_out_backward(const sc_ops *ops, const sc_train *t, int full, sc_arena *a, backward_space *s) {
  const int64_t wide = wide_of(ops, t), n = t->units * wide, projected = t->hr ? n : 0;
  const int64_t row = sc_padded(t->in, ops->vector), padded = full && t->d_ih && row > t->in;
  s->da = sc_take(a, gradient_blocks(t->cell) * n);
  s->x = sc_take(a, t->d_ih && !full ? t->in * wide : 0);
  s->x_rows = sc_take(a, padded ? t->batch * row : 0);
  s->d_full = sc_take(a, padded ? t->ih->rows * row : 0);
  s->dx = sc_take(a, t->dx ? t->in * wide : 0);
  s->rec = sc_take(a, t->width * wide);
  s->g_out = sc_take(a, t->width * wide);
  for (int i = 0; i < 2; i++) {
    s->carry[i] = sc_take(a, features_of(t, i) * wide);
    s->idle[i] = sc_take(a, t->offsets ? features_of(t, i) * wide : 0);
  }
  s->wide_h = sc_take(a, projected);
  s->d_wide_h = sc_take(a, projected);
  s->d_h = sc_take(a, t->hr ? t->width * wide : 0);
  s->none = sc_take(a, projected);
  if (t->dx) {
    s->ih = sc_take_transpose(a, t->ih);
    s->ih_tiles = take_tiles(a, ops, t, t->ih, 1, skip_of(t));
  }
  s->hh = sc_take_transpose(a, t->hh);
  s->hh_tiles = take_tiles(a, ops, t, t->hh, 1, 0);
  if (t->hr) {
    s->hr = sc_take_transpose(a, t->hr);
    s->hr_tiles = take_tiles(a, ops, t, t->hr, 1, 0);
  }
}

sc_space sc_train_backward_space(const sc_ops *ops, const sc_train *t) {
  backward_space s;
  sc_arena a = {0};
  lay_out_backward(ops, t, is_full(t->ih), &a, &s);
  return a.used;
}

/* Adds a step's part of the gradient of an input weight that has every connection. */
static void full_gradient(const sc_ops *ops, const sc_train *t, const backward_space *s, moment now, int64_t wide) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  const int64_t row = sc_padded(t->in, ops->vector), split = split_of(t), left = t->ih->rows - split;
  const float *x = t->x + now.row * t->in;
  for (int64_t b = 0; s->x_rows && b < now.count; b++) {
    memcpy(s->x_rows + b * row, x + b * t->in, (size_t)t->in * sizeof *x);
    sc_clear(s->x_rows + b * row + t->in, row - t->in);
  }
  float *y = s->x_rows ? s->d_full : t->d_ih;
  sc_dense p = {.rows = split,
                .inner = now.count,
                .cols = row,
                .a = s->da,
                .x = s->x_rows ? s->x_rows : x,
                .y = y,
                .lda = wide,
                .ldx = row,
                .ldy = row,
                .add = 1};
  train->dense_mm(&p);
  if (!left) return;
  p.a += (split + skip_of(t)) * wide;
  p.y += split * row;
  p.rows = left;
  train->dense_mm(&p);
}

/* Adds step k's part of the gradients of weights and biases. */
static void weight_gradients(const sc_ops *ops, const sc_train *t, const backward_space *s, int full, int64_t k,
                             int64_t wide) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  const int64_t rows = t->hh->rows, split = split_of(t), skip = skip_of(t);
  const moment now = moment_of(t, k);
  if (t->d_hh) train->sampled(t->hh, s->da, rows, 0, t->states[0] + k * t->width * wide, wide, t->d_hh);
  if (t->d_ih && full) {
    full_gradient(ops, t, s, now, wide);
  } else if (t->d_ih) {
    train->to_columns(t->x + now.row * t->in, now.count, t->in, s->x, wide);
    train->sampled(t->ih, s->da, split, skip, s->x, wide, t->d_ih);
  }
  if (t->d_bias_hh) train->row_sums(s->da, rows, wide, t->d_bias_hh);
  if (t->d_bias_ih) {
    train->row_sums(s->da, split, wide, t->d_bias_ih);
    train->row_sums(s->da + (split + skip) * wide, rows - split, wide, t->d_bias_ih + split);
  }
}

/* Through the projection of step k: d_wide_h from what reaches the projected state. */
static void project_back(const sc_ops *ops, const sc_train *t, const backward_space *s, const weight *hr, int64_t k,
                         int64_t wide, int64_t count) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  const int64_t n = t->units * wide;
  for (int64_t i = 0; i < t->width * wide; i++) s->d_h[i] = s->g_out[i] + s->rec[i] + s->carry[0][i];
  hold(s->d_h, NULL, t->width, wide, count);
  sc_clear(s->carry[0], t->width * wide);
  multiply(ops, hr, s->d_h, NULL, s->d_wide_h, wide);
  if (!t->d_hr) return;
  train->lstm_out(t->gates + (4 * k + 3) * n, t->states[1] + (k + 1) * n, n, s->wide_h);
  train->sampled(t->hr, s->d_h, t->width, 0, s->wide_h, wide, t->d_hr);
}

/* Keeps what samples that have no step k carry on to the steps before it. */
static void set_aside(const sc_train *t, const backward_space *s, int64_t wide) {
  for (int64_t i = 0; i < t->width * wide; i++) s->idle[0][i] = s->carry[0][i] + s->rec[i];
  if (states_of(t) > 1) memcpy(s->idle[1], s->carry[1], (size_t)(t->units * wide) * sizeof(float));
}

static void put_back(const sc_train *t, const backward_space *s, int64_t wide, int64_t count) {
  for (int i = 0; i < states_of(t); i++) hold(s->carry[i], s->idle[i], features_of(t, i), wide, count);
  hold(s->da, NULL, gradient_blocks(t->cell) * t->units, wide, count);
}

/* Gradients before the last step: those of weights are sums that begin at zero. */
static void begin(const sc_train_ops *train, const sc_train *t, const backward_space *s, int64_t wide, int64_t row) {
  sc_clear(t->d_ih, t->ih->n_values);
  sc_clear(t->d_hh, t->hh->n_values);
  sc_clear(t->d_hr, t->hr ? t->hr->n_values : 0);
  sc_clear(t->d_bias_ih, t->ih->rows);
  sc_clear(t->d_bias_hh, t->hh->rows);
  sc_clear(s->d_full, t->ih->rows * row);
  sc_clear(s->rec, t->width * wide);
  sc_clear(s->g_out, t->width * wide);
  if (t->hr) sc_clear(s->none, t->units * wide);
  for (int i = 0; i < states_of(t); i++) {
    sc_clear(s->carry[i], features_of(t, i) * wide);
    if (t->g_last[i]) train->to_columns(t->g_last[i], t->batch, features_of(t, i), s->carry[i], wide);
  }
}

void sc_train_backward(const sc_ops *ops, const sc_train *t, float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  const int full = is_full(t->ih), states = states_of(t);
  backward_space s = {0};
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_backward(ops, t, full, &a, &s);
  const int64_t wide = wide_of(ops, t), n = t->units * wide, gate_floats = sc_train_gates(t->cell) * n;
  const int64_t row = sc_padded(t->in, ops->vector);
  const int padded = full && t->d_ih && row > t->in;
  if (!padded) s.d_full = s.x_rows = NULL;
  weight ih = {0}, hr = {0};
  if (t->dx) ih = transpose_of(ops, t, t->ih, full, split_of(t), skip_of(t), s.ih, s.ih_tiles);
  const weight hh = transpose_of(ops, t, t->hh, is_full(t->hh), t->hh->rows, 0, s.hh, s.hh_tiles);
  if (t->hr) hr = transpose_of(ops, t, t->hr, is_full(t->hr), t->width, 0, s.hr, s.hr_tiles);
  begin(train, t, &s, wide, row);
  sc_train_point p = {.n = n,
                      .g_out = t->hr ? s.d_wide_h : s.g_out,
                      .g_rec = t->hr ? s.none : s.rec,
                      .g_carry = {t->hr ? s.none : s.carry[0], s.carry[1]},
                      .da = s.da};
  for (int64_t k = t->steps - 1; k >= 0; k--) {
    const moment now = moment_of(t, k);
    p.gates = gate_floats ? t->gates + k * gate_floats : NULL;
    for (int i = 0; i < states; i++) {
      const int64_t size = features_of(t, i) * wide;
      p.before[i] = t->states[i] + k * size;
      p.after[i] = t->states[i] + (k + 1) * size;
    }
    if (t->g_out) train->to_columns(t->g_out + now.row * t->width, now.count, t->width, s.g_out, wide);
    if (now.count < t->batch) set_aside(t, &s, wide);
    if (t->hr) project_back(ops, t, &s, &hr, k, wide, now.count);
    train->backward[t->cell](&p);
    if (now.count < t->batch) put_back(t, &s, wide, now.count);
    multiply(ops, &hh, s.da, NULL, s.rec, wide);
    if (t->dx) {
      multiply(ops, &ih, s.da, NULL, s.dx, wide);
      train->to_rows(s.dx, wide, now.count, t->in, t->dx + now.row * t->in, is_long(t, t->in));
    }
    weight_gradients(ops, t, &s, full, k, wide);
  }
  for (int64_t r = 0; padded && r < t->ih->rows; r++)
    memcpy(t->d_ih + r * t->in, s.d_full + r * row, (size_t)t->in * sizeof(float));
  for (int64_t i = 0; i < t->width * wide; i++) s.carry[0][i] += s.rec[i];
  for (int i = 0; i < states; i++)
    if (t->d_state[i]) train->to_rows(s.carry[i], wide, t->batch, features_of(t, i), t->d_state[i], 0);
}
