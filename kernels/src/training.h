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

/* The dot products of `a` with four rows of h. */
SC_INLINE sc_quad SC_NAME(dot4)(const float *a, const float *h, const int32_t *index, int64_t wide) {
  const float *h0 = h + (int64_t)index[0] * wide, *h1 = h + (int64_t)index[1] * wide;
  const float *h2 = h + (int64_t)index[2] * wide, *h3 = h + (int64_t)index[3] * wide;
  sc_vec s0 = sc_splat(0.0f), s1 = s0, s2 = s0, s3 = s0;
  for (int64_t k = 0; k < wide; k += SC_VL) {
    const sc_vec v = sc_load(a + k);
    s0 = sc_fma(v, sc_load(h0 + k), s0);
    s1 = sc_fma(v, sc_load(h1 + k), s1);
    s2 = sc_fma(v, sc_load(h2 + k), s2);
    s3 = sc_fma(v, sc_load(h3 + k), s3);
  }
  return sc_sum4(s0, s1, s2, s3);
}

SC_INLINE void SC_NAME(sampled_wide)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h,
                                     const int64_t wide, float *dv) {
  for (int64_t r = 0; r < w->rows; r++) {
    const float *ar = a + (r < split ? r : r + skip) * wide;
    int32_t i = w->ptr[r];
    const int32_t to = w->ptr[r + 1];
    for (; i + 4 <= to; i += 4) {
      const sc_quad sums = sc_load4(dv + i) + SC_NAME(dot4)(ar, h, w->index32 + i, wide);
      memcpy(dv + i, &sums, sizeof sums);
    }
    if (i == to) continue;
    int32_t index[4]; /* the last few, filled up with repetitions */
    for (int32_t n = 0; n < 4; n++) index[n] = w->index32[i + n < to ? i + n : to - 1];
    const sc_quad sums = SC_NAME(dot4)(ar, h, index, wide);
    for (int32_t n = 0; i + n < to; n++) dv[i + n] += sums[n];
  }
}

/* A width that the compiler knows keeps the row of `a` in registers. */
static void SC_NAME(sampled)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h,
                             int64_t wide, float *dv) {
  if (wide == 4 * SC_VL)
    SC_NAME(sampled_wide)(w, a, split, skip, h, 4 * SC_VL, dv);
  else
    SC_NAME(sampled_wide)(w, a, split, skip, h, wide, dv);
}

static void SC_NAME(row_sums)(const float *a, int64_t rows, int64_t wide, float *sum) {
  for (int64_t r = 0; r < rows; r++) {
    sc_vec s = sc_splat(0.0f);
    for (int64_t k = 0; k < wide; k += SC_VL) s += sc_load(a + r * wide + k);
    sum[r] += sc_sum(s);
  }
}

static void SC_NAME(fire)(const float *restrict mem, const float *theta, int64_t units, int64_t wide,
                          float *restrict spk) {
  for (int64_t u = 0; u < units; u++) {
    const float limit = theta[u];
    SC_NO_OVERLAP
    for (int64_t i = u * wide; i < (u + 1) * wide; i++) spk[i] = mem[i] > limit ? 1.0f : 0.0f;
  }
}

/* Gradient that reaches the fed-back state of a gated cell. */
#define SC_INCOMING(i) (g[i] + rec[i] + carry[i])

static void SC_NAME(forward_rnn_tanh)(const sc_train_point *p) {
  const float *restrict a = p->gates, *restrict b = p->rec;
  float *restrict h = p->after[0];
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) h[i] = sc_tanh(a[i] + b[i]);
}

static void SC_NAME(backward_rnn_tanh)(const sc_train_point *p) {
  const float *restrict h = p->after[0], *restrict g = p->g_out[0], *restrict rec = p->g_rec;
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
  const float *restrict h = p->after[0], *restrict g = p->g_out[0], *restrict rec = p->g_rec;
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
  const float *restrict g = p->g_out[0], *restrict rec = p->g_rec;
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

static void SC_NAME(backward_lstm)(const sc_train_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->gates, *restrict before = p->before[1], *restrict after = p->after[1];
  const float *restrict g = p->g_out[0], *restrict rec = p->g_rec;
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

/* The order of the sums is that of point_lif, so that a membrane is the same float in training and at run time. */
SC_INLINE void SC_NAME(lif_step)(const sc_train_point *p, const int reset, const int delay) {
  for (int64_t u = 0; u < p->units; u++) {
    const int64_t at = u * p->wide;
    const float *restrict a = p->gates + at, *restrict b = p->rec + at, *restrict mem = p->before[1] + at;
    float *restrict spk = p->after[0] + at, *restrict after = p->after[1] + at;
    float *restrict fired = p->fired + at;
    const float beta = p->beta[u], theta = p->theta[u];
    SC_NO_OVERLAP
    for (int64_t i = 0; i < p->wide; i++) {
      float m = mem[i], due = m > theta ? 1.0f : 0.0f;
      if (reset == SC_RESET_zero) m = (1.0f - due) * m;
      m = beta * m + a[i] + b[i];
      if (reset == SC_RESET_subtract) m = m - due * theta;
      if (reset == SC_RESET_zero_update) m = m - due * m;
      float s = m > theta ? 1.0f : 0.0f;
      spk[i] = s;
      if (!delay) {
        float now = s - due;
        fired[i] = m;
        if (reset == SC_RESET_subtract) m = m - now * theta;
        if (reset == SC_RESET_zero || reset == SC_RESET_zero_update) m = m - now * m;
      }
      after[i] = m;
    }
  }
}

/* Derivatives that stand in for the one of the step function, as snntorch.surrogate has them. */
SC_INLINE float sc_surrogate_slope(const int kind, float v, float k) {
  const float half_pi = 1.57079633f;
  float q = 1.0f;
  if (kind == SC_SURROGATE_fast_sigmoid) {
    q = k * __builtin_fabsf(v) + 1.0f;
    return 1.0f / (q * q);
  }
  if (kind == SC_SURROGATE_atan) {
    q = half_pi * k * v;
    return 0.5f * k / (1.0f + q * q);
  }
  if (kind == SC_SURROGATE_sigmoid) {
    float e = sc_exp(-k * __builtin_fabsf(v)); /* even in v: no overflow */
    return k * e / ((e + 1.0f) * (e + 1.0f));
  }
  if (kind == SC_SURROGATE_triangular) return v >= 0.0f ? -k : k;
  return 1.0f;
}

#define SC_SLOPES(kind)                                                                           \
  case kind:                                                                                      \
    SC_NO_OVERLAP                                                                                 \
    for (int64_t i = 0; i < n; i++) slope[i] = sc_surrogate_slope(kind, fired[i] - theta, scale); \
    break;

static void SC_NAME(slopes)(int surrogate, int64_t n, const float *restrict fired, float theta, float scale,
                            float *restrict slope) {
  switch (surrogate) {
    SC_SLOPES(SC_SURROGATE_fast_sigmoid)
    SC_SLOPES(SC_SURROGATE_atan)
    SC_SLOPES(SC_SURROGATE_sigmoid)
    SC_SLOPES(SC_SURROGATE_triangular)
    default:
      SC_SLOPES(SC_SURROGATE_straight_through)
  }
}
#undef SC_SLOPES

/* The reset signal of the previous spike is detached; the one of the step's own spike (no delay) is not: snntorch. */
SC_INLINE void SC_NAME(lif_back)(const sc_train_point *p, const int reset, const int delay) {
  for (int64_t u = 0; u < p->units; u++) {
    const int64_t at = u * p->wide;
    const float beta = p->beta[u], theta = p->theta[u];
    const float *restrict mem = p->before[1] + at;
    const float *restrict fired = (delay ? p->after[1] : p->fired) + at;
    const float *restrict g_spk = p->g_out[0] + at, *restrict g_mem = p->g_out[1] + at;
    const float *restrict rec = p->g_rec + at, *restrict slope = p->slope;
    float *restrict c_mem = p->g_carry[1] + at, *restrict da = p->da + at;
    float *restrict d_beta = p->d_beta + at, *restrict d_theta = p->d_theta + at;
    SC_NAME(slopes)(p->surrogate, p->wide, fired, theta, p->scale, p->slope);
    SC_NO_OVERLAP
    for (int64_t i = 0; i < p->wide; i++) {
      float before = mem[i], due = before > theta ? 1.0f : 0.0f, m = fired[i];
      float gs = g_spk[i] + rec[i], gm = g_mem[i] + c_mem[i], gt = 0.0f;
      if (!delay) {
        float now = (m > theta ? 1.0f : 0.0f) - due;
        if (reset == SC_RESET_subtract) {
          gs -= theta * gm;
          gt -= now * gm;
        }
        if (reset == SC_RESET_zero || reset == SC_RESET_zero_update) {
          gs -= m * gm;
          gm = gm * (1.0f - now);
        }
      }
      float fire = gs * slope[i];
      gm += fire;
      gt -= fire;
      if (reset == SC_RESET_subtract) gt -= due * gm;
      if (reset == SC_RESET_zero_update) gm = (1.0f - due) * gm;
      float kept = reset == SC_RESET_zero ? (1.0f - due) * gm : gm;
      da[i] = gm;
      c_mem[i] = beta * kept;
      d_beta[i] += before * kept;
      d_theta[i] += gt;
    }
  }
}

#define SC_EACH_RESET(body)                      \
  switch (2 * p->reset + (p->delay != 0)) {      \
    case 2 * SC_RESET_subtract:                  \
      SC_NAME(body)(p, SC_RESET_subtract, 0);    \
      break;                                     \
    case 2 * SC_RESET_subtract + 1:              \
      SC_NAME(body)(p, SC_RESET_subtract, 1);    \
      break;                                     \
    case 2 * SC_RESET_zero:                      \
      SC_NAME(body)(p, SC_RESET_zero, 0);        \
      break;                                     \
    case 2 * SC_RESET_zero + 1:                  \
      SC_NAME(body)(p, SC_RESET_zero, 1);        \
      break;                                     \
    case 2 * SC_RESET_zero_update:               \
      SC_NAME(body)(p, SC_RESET_zero_update, 0); \
      break;                                     \
    case 2 * SC_RESET_zero_update + 1:           \
      SC_NAME(body)(p, SC_RESET_zero_update, 1); \
      break;                                     \
    case 2 * SC_RESET_none + 1:                  \
      SC_NAME(body)(p, SC_RESET_none, 1);        \
      break;                                     \
    default:                                     \
      SC_NAME(body)(p, SC_RESET_none, 0);        \
  }

static void SC_NAME(forward_lif)(const sc_train_point *p) { SC_EACH_RESET(lif_step) }
static void SC_NAME(backward_lif)(const sc_train_point *p){SC_EACH_RESET(lif_back)}
#undef SC_EACH_RESET

#define SC_DEFINE_TRAIN_OPS(symbol)                                 \
  const sc_train_ops symbol = {                                     \
      .vector = SC_VL,                                              \
      .to_columns = SC_NAME(to_columns),                            \
      .to_rows = SC_NAME(to_rows),                                  \
      .sampled = SC_NAME(sampled),                                  \
      .row_sums = SC_NAME(row_sums),                                \
      .fire = SC_NAME(fire),                                        \
      .forward = {[SC_CELL_rnn_tanh] = SC_NAME(forward_rnn_tanh),   \
                  [SC_CELL_rnn_relu] = SC_NAME(forward_rnn_relu),   \
                  [SC_CELL_gru] = SC_NAME(forward_gru),             \
                  [SC_CELL_lstm] = SC_NAME(forward_lstm),           \
                  [SC_CELL_lif] = SC_NAME(forward_lif)},            \
      .backward = {[SC_CELL_rnn_tanh] = SC_NAME(backward_rnn_tanh), \
                   [SC_CELL_rnn_relu] = SC_NAME(backward_rnn_relu), \
                   [SC_CELL_gru] = SC_NAME(backward_gru),           \
                   [SC_CELL_lstm] = SC_NAME(backward_lstm),         \
                   [SC_CELL_lif] = SC_NAME(backward_lif)},          \
  };

#endif
