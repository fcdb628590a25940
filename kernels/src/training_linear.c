/* Sparse linear layers in training. */
#include "training_common.h"

#define SC_LINEAR_WIDE 64 /* vectors that are handled together */

static int64_t linear_wide(const sc_ops *ops, int64_t n) {
  const int64_t all = sc_padded(n, ops->vector);
  return all < SC_LINEAR_WIDE ? all : SC_LINEAR_WIDE;
}

typedef struct linear_space {
  float *x, *y, *dx;
  sc_copy back;
} linear_space;

static void lay_out_linear(const sc_ops *ops, const sc_matrix *w, int64_t n, sc_arena *a, linear_space *s) {
  const int64_t wide = linear_wide(ops, n);
  s->x = sc_take(a, w->cols * wide);
  s->y = sc_take(a, w->rows * wide);
  s->dx = sc_take(a, w->cols * wide);
  s->back = sc_take_transpose(a, w);
}

sc_space sc_train_linear_space(const sc_ops *ops, const sc_matrix *w, int64_t n) {
  linear_space s;
  sc_arena a = {0};
  lay_out_linear(ops, w, n, &a, &s);
  return a.used;
}

void sc_train_linear(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *bias, float *y,
                     float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  linear_space s;
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_linear(ops, w, n, &a, &s);
  for (int64_t from = 0; from < n; from += SC_LINEAR_WIDE) {
    const int64_t count = n - from < SC_LINEAR_WIDE ? n - from : SC_LINEAR_WIDE, wide = linear_wide(ops, count);
    train->to_columns(x + from * w->cols, count, w->cols, s.x, wide);
    sc_mm(ops, w, s.x, bias, s.y, wide);
    train->to_rows(s.y, wide, count, w->rows, y + from * w->rows, 0);
  }
}

void sc_train_linear_backward(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *g,
                              float *dx, float *d_w, float *d_bias, float *floats, int32_t *ints) {
  const sc_train_ops *train = sc_train_ops_for(ops);
  linear_space s;
  sc_arena a = {floats, ints, {0, 0}};
  lay_out_linear(ops, w, n, &a, &s);
  sc_matrix back;
  if (dx) back = sc_transpose(w, w->rows, 0, s.back, NULL);
  sc_clear(d_w, w->n_values);
  sc_clear(d_bias, w->rows);
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
