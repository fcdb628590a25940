/* Training kernels of one instruction set, on the vectors of generic.h and the functions of pointwise.h. */
#ifndef SC_TRAINING_H
#define SC_TRAINING_H

#pragma GCC diagnostic ignored "-Wunused-function" /* of generic.h and pointwise.h only the helpers are used here */
#include "../include/sparsecirc_training.h"
#include "generic.h"
#include "pointwise.h"

typedef float sc_quad __attribute__((vector_size(16)));

static inline sc_vec sc_fma(sc_vec a, sc_vec b, sc_vec c) {
#ifdef SC_VEC_FMA
  return SC_VEC_FMA(a, b, c);
#else
  return a * b + c;
#endif
}

static inline float sc_sum(sc_vec v) {
#ifdef SC_VEC_SUM
  return SC_VEC_SUM(v);
#else
  float s[SC_VL];
  sc_store(s, v);
  for (int n = SC_VL / 2; n; n /= 2)
    for (int i = 0; i < n; i++) s[i] += s[i + n];
  return s[0];
#endif
}

#ifndef SC_STORE_LINE
#define SC_STREAM_LINE SC_STORE_LINE
#define SC_STREAM_END() (void)0
#define SC_STORE_LINE(p, a, b, c, d)              \
  do {                                            \
    const sc_quad line[4] = {(a), (b), (c), (d)}; \
    memcpy((p), line, sizeof line);               \
  } while (0)
#endif

static inline sc_quad sc_load4(const float *p) {
  sc_quad v;
  memcpy(&v, p, sizeof v);
  return v;
}

/* The sums of four vectors. */
static inline sc_quad sc_sum4(sc_vec a, sc_vec b, sc_vec c, sc_vec d) {
#ifdef SC_VEC_SUM4
  return SC_VEC_SUM4(a, b, c, d);
#else
  const sc_quad sums = {sc_sum(a), sc_sum(b), sc_sum(c), sc_sum(d)};
  return sums;
#endif
}

/* r[j] = column j of a 4 x 4 tile. */
static inline void sc_turn4(const float *x, int64_t ldx, sc_quad r[4]) {
  const sc_quad a = sc_load4(x), b = sc_load4(x + ldx), c = sc_load4(x + 2 * ldx), d = sc_load4(x + 3 * ldx);
  const sc_quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const sc_quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  r[1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
  r[3] = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
}

/* Four columns of 16 rows of x become four whole lines of y. */
SC_INLINE void sc_turn16(const float *x, int64_t ldx, float *y, int64_t ldy, const int past) {
  sc_quad a[4], b[4], c[4], d[4];
  sc_turn4(x, ldx, a);
  sc_turn4(x + 4 * ldx, ldx, b);
  sc_turn4(x + 8 * ldx, ldx, c);
  sc_turn4(x + 12 * ldx, ldx, d);
  for (int j = 0; j < 4; j++) {
    if (past)
      SC_STREAM_LINE(y + j * ldy, a[j], b[j], c[j], d[j]);
    else
      SC_STORE_LINE(y + j * ldy, a[j], b[j], c[j], d[j]);
  }
}

/* y (n, ldy) from x (m, ldx): the transpose of the m x n corner, `block` columns of x at a time. */
SC_INLINE void SC_NAME(turn)(const float *x, int64_t m, int64_t n, int64_t ldx, float *y, int64_t ldy, int64_t block,
                             const int past) {
  const int64_t m16 = m / 16 * 16, n4 = n / 4 * 4;
  for (int64_t from = 0; from < n4; from += block) {
    const int64_t to = from + block < n4 ? from + block : n4;
    for (int64_t i = 0; i < m16; i += 16)
      for (int64_t j = from; j < to; j += 4) sc_turn16(x + i * ldx + j, ldx, y + j * ldy + i, ldy, past);
  }
  for (int64_t i = m16; i < m; i++)
    for (int64_t j = 0; j < n4; j++) y[j * ldy + i] = x[i * ldx + j];
  for (int64_t j = n4; j < n; j++)
    for (int64_t i = 0; i < m; i++) y[j * ldy + i] = x[i * ldx + j];
}

static void SC_NAME(turn_block)(const float *x, int64_t m, int64_t n, int64_t ldx, float *y, int64_t ldy) {
  SC_NAME(turn)(x, m, n, ldx, y, ldy, 16, 0);
}

/* Whole lines of x at once: rows of a power of two would else push each other out of the cache. */
static void SC_NAME(to_columns)(const float *x, int64_t batch, int64_t n, float *y, int64_t wide) {
  SC_NAME(turn)(x, batch, n, n, y, wide, 16, 0);
  for (int64_t i = 0; batch < wide && i < n; i++) memset(y + i * wide + batch, 0, (size_t)(wide - batch) * sizeof *y);
}

/* Results that the caches could not hold go past them, line by line. */
static void SC_NAME(to_rows)(const float *y, int64_t wide, int64_t batch, int64_t n, float *x, int past) {
  if (past && ((uintptr_t)x | (uintptr_t)n * sizeof *x) % 64 == 0) {
    SC_NAME(turn)(y, n, batch, wide, x, n, 8, 1);
    SC_STREAM_END();
  } else {
    SC_NAME(turn)(y, n, batch, wide, x, n, 8, 0);
  }
}

#include "training_products.h"

/* Gradient that reaches the fed-back state of a gated cell. */
#define SC_INCOMING(i) (g[i] + rec[i] + carry[i])

static void SC_NAME(forward_rnn_tanh)(const sc_train_point *p) {
  const float *restrict a = p->gates, *restrict b = p->rec;
  float *restrict h = p->after[0];
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) h[i] = sc_tanh(a[i] + b[i]);
}

static void SC_NAME(backward_rnn_tanh)(const sc_train_point *p) {
  const float *restrict h = p->after[0], *restrict g = p->g_out, *restrict rec = p->g_rec;
  float *restrict carry = p->g_carry[0], *restrict da = p->da;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    da[i] = SC_INCOMING(i) * (1.0f - h[i] * h[i]);
    carry[i] = 0.0f;
  }
}

static void SC_NAME(forward_rnn_relu)(const sc_train_point *p) {
  const float *restrict a = p->gates, *restrict b = p->rec;
  float *restrict h = p->after[0];
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    float v = a[i] + b[i];
    h[i] = v < 0.0f ? 0.0f : v;
  }
}

static void SC_NAME(backward_rnn_relu)(const sc_train_point *p) {
  const float *restrict h = p->after[0], *restrict g = p->g_out, *restrict rec = p->g_rec;
  float *restrict carry = p->g_carry[0], *restrict da = p->da;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    da[i] = h[i] > 0.0f ? SC_INCOMING(i) : 0.0f;
    carry[i] = 0.0f;
  }
}

static void SC_NAME(forward_gru)(const sc_train_point *p) {
  const int64_t n = p->n;
  float *restrict a = p->gates;
  const float *restrict b = p->rec, *restrict before = p->before[0];
  float *restrict h = p->after[0];
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float r = sc_sigmoid(a[i] + b[i]);
    float z = sc_sigmoid(a[n + i] + b[n + i]);
    float bn = b[2 * n + i];
    float c = sc_tanh(SC_FMA(r, bn, a[2 * n + i]));
    a[i] = r;
    a[n + i] = z;
    a[2 * n + i] = c;
    a[3 * n + i] = bn;
    h[i] = SC_FMA(z, before[i] - c, c);
  }
}

static void SC_NAME(backward_gru)(const sc_train_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->gates, *restrict before = p->before[0];
  const float *restrict g = p->g_out, *restrict rec = p->g_rec;
  float *restrict carry = p->g_carry[0], *restrict da = p->da;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float r = a[i], z = a[n + i], c = a[2 * n + i], bn = a[3 * n + i];
    float dh = SC_INCOMING(i);
    float dn = dh * (1.0f - z) * (1.0f - c * c);
    carry[i] = dh * z;
    da[i] = dn * bn * r * (1.0f - r);
    da[n + i] = dh * (before[i] - c) * z * (1.0f - z);
    da[2 * n + i] = dn * r;
    da[3 * n + i] = dn;
  }
}

static void SC_NAME(forward_lstm)(const sc_train_point *p) {
  const int64_t n = p->n;
  float *restrict a = p->gates;
  const float *restrict b = p->rec, *restrict before = p->before[1];
  float *restrict h = p->after[0], *restrict cell = p->after[1];
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float in = sc_sigmoid(a[i] + b[i]);
    float keep = sc_sigmoid(a[n + i] + b[n + i]);
    float g = sc_tanh(a[2 * n + i] + b[2 * n + i]);
    float o = sc_sigmoid(a[3 * n + i] + b[3 * n + i]);
    float c = SC_FMA(keep, before[i], in * g);
    a[i] = in;
    a[n + i] = keep;
    a[2 * n + i] = g;
    a[3 * n + i] = o;
    cell[i] = c;
    h[i] = o * sc_tanh(c);
  }
}

/* The hidden state before a projection, again. */
static void SC_NAME(lstm_out)(const float *restrict o, const float *restrict cell, int64_t n, float *restrict h) {
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) h[i] = o[i] * sc_tanh(cell[i]);
}

static void SC_NAME(backward_lstm)(const sc_train_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->gates, *restrict before = p->before[1], *restrict after = p->after[1];
  const float *restrict g = p->g_out, *restrict rec = p->g_rec;
  float *restrict carry = p->g_carry[0], *restrict carry_c = p->g_carry[1], *restrict da = p->da;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float in = a[i], keep = a[n + i], cand = a[2 * n + i], o = a[3 * n + i];
    float tc = sc_tanh(after[i]);
    float dh = SC_INCOMING(i);
    float dc = carry_c[i] + dh * o * (1.0f - tc * tc);
    carry[i] = 0.0f;
    carry_c[i] = dc * keep;
    da[i] = dc * cand * in * (1.0f - in);
    da[n + i] = dc * before[i] * keep * (1.0f - keep);
    da[2 * n + i] = dc * in * (1.0f - cand * cand);
    da[3 * n + i] = dh * tc * o * (1.0f - o);
  }
}
#undef SC_INCOMING

#include "training_spiking.h"

#define SC_DEFINE_TRAIN_OPS(symbol)                                 \
  const sc_train_ops symbol = {                                     \
      .vector = SC_VL,                                              \
      .to_columns = SC_NAME(to_columns),                            \
      .to_rows = SC_NAME(to_rows),                                  \
      .turn = SC_NAME(turn_block),                                  \
      .dense_mm = SC_NAME(dense_product),                           \
      .sampled = SC_NAME(sampled),                                  \
      .row_sums = SC_NAME(row_sums),                                \
      .forward = {[SC_CELL_rnn_tanh] = SC_NAME(forward_rnn_tanh),   \
                  [SC_CELL_rnn_relu] = SC_NAME(forward_rnn_relu),   \
                  [SC_CELL_gru] = SC_NAME(forward_gru),             \
                  [SC_CELL_lstm] = SC_NAME(forward_lstm)},          \
      .backward = {[SC_CELL_rnn_tanh] = SC_NAME(backward_rnn_tanh), \
                   [SC_CELL_rnn_relu] = SC_NAME(backward_rnn_relu), \
                   [SC_CELL_gru] = SC_NAME(backward_gru),           \
                   [SC_CELL_lstm] = SC_NAME(backward_lstm)},        \
      .lstm_out = SC_NAME(lstm_out),                                \
      .spike_forward = SC_NAME(spike_forward),                      \
      .spike_backward = SC_NAME(spike_backward),                    \
      .list_fired = SC_NAME(list_fired),                            \
      .put_row = SC_NAME(put_row),                                  \
      .put_done = SC_NAME(put_done),                                \
  };

#endif
