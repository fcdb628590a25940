/* Training in double precision with dual numbers: a value and its derivative along one direction of the inputs. It
 * shares nothing with the kernels, and needs no backward pass of its own to check theirs.
 */
#ifndef SPARSECIRC_TEST_DUAL_H
#define SPARSECIRC_TEST_DUAL_H

#pragma GCC diagnostic ignored "-Wunused-function" /* of packing.h */
#include "../include/sparsecirc_training.h"
#include "packing.h"

typedef struct dual {
  double v, d;
} dual;

static dual number(double v) { return (dual){v, 0}; }
static dual add(dual a, dual b) { return (dual){a.v + b.v, a.d + b.d}; }
static dual sub(dual a, dual b) { return (dual){a.v - b.v, a.d - b.d}; }
static dual mul(dual a, dual b) { return (dual){a.v * b.v, a.v * b.d + a.d * b.v}; }
static dual dual_tanh(dual a) {
  const double t = tanh(a.v);
  return (dual){t, (1 - t * t) * a.d};
}
static dual dual_sigmoid(dual a) {
  const double s = 1 / (1 + exp(-a.v));
  return (dual){s, s * (1 - s) * a.d};
}

/* An argument of a kernel: values, a direction, and the gradient that the kernel returns. */
typedef struct argument {
  const char *name;
  int64_t n;
  float *value, *gradient;
  double *direction;
} argument;

static dual of(const argument *a, int64_t i) { return (dual){(double)a->value[i], a->direction[i]}; }

/* A sparse matrix with its live values as an argument. */
typedef struct live {
  sc_matrix m;
  int32_t *ptr, *column;
  argument values;
} live;

/* y = W x for one vector */
static void product(const live *w, const dual *x, dual *y) {
  for (int64_t r = 0; r < w->m.rows; r++) {
    y[r] = number(0);
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) y[r] = add(y[r], mul(of(&w->values, i), x[w->column[i]]));
  }
}

/* Numbers with the size that is asked for; dyadic ones keep a membrane exact in single precision. */
static argument make_argument(const char *name, int64_t n, float size, int dyadic) {
  argument a = {name, n, floats(n), poisoned(n), exactly(n, sizeof(double))};
  for (int64_t i = 0; i < n; i++) a.value[i] = size * (dyadic ? random_dyadic(0.25f) : random_float());
  return a;
}

static void free_argument(argument *a) {
  free(a->value);
  free(a->gradient);
  free(a->direction);
}

static live make_live(const char *name, int64_t rows, int64_t cols, int percent, int dyadic) {
  live w = {0};
  plain p = make_plain(rows, cols, percent, dyadic);
  int64_t nnz = 0;
  for (int64_t i = 0; i < rows * cols; i++) nnz += p.w[i] != 0;
  w.ptr = exactly(rows + 1, sizeof(int32_t));
  w.column = exactly(nnz, sizeof(int32_t));
  w.values = make_argument(name, nnz, 0, 0);
  int32_t k = 0;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < cols; c++)
      if (p.w[r * cols + c] != 0) {
        w.column[k] = (int32_t)c;
        w.values.value[k++] = p.w[r * cols + c];
      }
    w.ptr[r + 1] = k;
  }
  free(p.w);
  w.m = (sc_matrix){.format = SC_FMT_csr,
                    .rows = rows,
                    .cols = cols,
                    .n_values = nnz,
                    .n_index = nnz,
                    .n_ptr = rows + 1,
                    .values = w.values.value,
                    .ptr = w.ptr,
                    .index32 = w.column};
  return w;
}

static void free_live(live *w) {
  free(w->ptr);
  free(w->column);
  free_argument(&w->values);
}

/* Workspace of exactly the size that is asked for, with nothing sensible in it. */
typedef struct space {
  float *floats;
  int32_t *ints;
} space;

static space make_space(sc_space size) {
  space s = {poisoned((int64_t)size.floats), exactly((int64_t)size.ints, sizeof(int32_t))};
  for (size_t i = 0; i < size.ints; i++) s.ints[i] = INT32_MAX / 2;
  return s;
}

static void free_space(space *s) {
  free(s->floats);
  free(s->ints);
}

/* What the neurons pass back instead of the derivative of the step function. */
static double surrogate_slope(int kind, double v, double k) {
  const double pi = 3.14159265358979323846, e = exp(-k * fabs(v));
  switch (kind) {
    case SC_SURROGATE_fast_sigmoid:
      return 1 / ((k * fabs(v) + 1) * (k * fabs(v) + 1));
    case SC_SURROGATE_atan:
      return k / 2 / (1 + (pi / 2 * k * v) * (pi / 2 * k * v));
    case SC_SURROGATE_sigmoid:
      return k * e / ((e + 1) * (e + 1));
    case SC_SURROGATE_triangular:
      return v >= 0 ? -k : k;
    default:
      return 1;
  }
}

#endif
