/* Pointwise parts of every cell, in plain C that the compiler vectorises for the instruction set of the including file.
 *
 * sc_exp, sc_sigmoid and sc_tanh are branch-free. Largest errors over all floats in range, measured against float64 by
 * tests/test_native.py: exp 1.2 ulp, sigmoid 2.5 ulp, tanh 1.5 ulp (docs/cells.md). Spiking cells are built without
 * contraction, in the order of the reference equations, so that a membrane is the same float on every instruction set.
 */
#ifndef SC_POINTWISE_H
#define SC_POINTWISE_H

#include <string.h>

#include "../include/sparsecirc.h"

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define SC_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define SC_FMA(a, b, c) ((a) * (b) + (c))
#endif

/* The loops below vectorise only once these are inlined; the compiler's own limits would stop before. */
#define SC_INLINE static inline __attribute__((always_inline))

/* The arrays of one step never overlap; compilers do not trust `restrict` on locals enough to drop their checks. */
#if defined(__clang__)
#define SC_NO_OVERLAP _Pragma("clang loop vectorize(assume_safety)")
#else
#define SC_NO_OVERLAP _Pragma("GCC ivdep")
#endif

static inline float sc_bits_to_float(int32_t i) {
  float f;
  memcpy(&f, &i, sizeof f);
  return f;
}

static inline int32_t sc_float_to_bits(float f) {
  int32_t i;
  memcpy(&i, &f, sizeof i);
  return i;
}

/* e^x for x in [-87, 88], clamped there. x = n ln2 + r; the Taylor series to r^7 leaves r^8 / 8! < 5.2e-9. */
SC_INLINE float sc_exp(float x) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number in the low mantissa bits */
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  float z = SC_FMA(x, 1.44269504f, magic);
  float n = z - magic;
  float r = SC_FMA(n, -0.693145752f, x);
  r = SC_FMA(n, -1.42860677e-6f, r);
  float p = 1.98412698e-4f;
  p = SC_FMA(p, r, 1.38888889e-3f);
  p = SC_FMA(p, r, 8.33333333e-3f);
  p = SC_FMA(p, r, 4.16666667e-2f);
  p = SC_FMA(p, r, 1.66666667e-1f);
  p = SC_FMA(p, r, 0.5f);
  p = SC_FMA(p * r, r, r) + 1.0f;
  int32_t e = (int32_t)((uint32_t)sc_float_to_bits(z) << 23) + 0x3f800000;
  return p * sc_bits_to_float(e);
}

SC_INLINE float sc_sigmoid(float x) { return 1.0f / (1.0f + sc_exp(-x)); }

/* tanh: an odd polynomial below 0.625 (minimax by Lawson's iteration, 0.074 * 2^-24), else 1 - 2 / (e^2|x| + 1) with
 * the sign put back.
 */
SC_INLINE float sc_tanh(float x) {
  float a = __builtin_fabsf(x);
  float big = 1.0f - 2.0f / (sc_exp(2.0f * a) + 1.0f);
  float s = x * x;
  float p = -5.704223808e-3f;
  p = SC_FMA(p, s, 2.063843151e-2f);
  p = SC_FMA(p, s, -5.373952313e-2f);
  p = SC_FMA(p, s, 1.333144002e-1f);
  p = SC_FMA(p, s, -3.333328187e-1f);
  float small = SC_FMA(p * s, x, x);
  float y = __builtin_copysignf(big, x);
  return a < 0.625f ? small : y;
}

static void SC_NAME(exp_n)(int64_t n, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = sc_exp(x[i]);
}

static void SC_NAME(tanh_n)(int64_t n, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = sc_tanh(x[i]);
}

static void SC_NAME(sigmoid_n)(int64_t n, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = sc_sigmoid(x[i]);
}

static void SC_NAME(point_rnn_tanh)(const sc_point *p) {
  const float *restrict a = p->drive, *restrict b = p->rec;
  float *restrict h = p->h;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) h[i] = sc_tanh(a[i] + b[i]);
}

static void SC_NAME(point_rnn_relu)(const sc_point *p) {
  const float *restrict a = p->drive, *restrict b = p->rec;
  float *restrict h = p->h;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    float v = a[i] + b[i];
    h[i] = v < 0.0f ? 0.0f : v;
  }
}

static void SC_NAME(point_gru)(const sc_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->drive, *restrict b = p->rec;
  float *restrict h = p->h;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float r = sc_sigmoid(a[i] + b[i]);
    float z = sc_sigmoid(a[n + i] + b[n + i]);
    float c = sc_tanh(SC_FMA(r, b[2 * n + i], a[2 * n + i]));
    h[i] = SC_FMA(z, h[i] - c, c);
  }
}

static void SC_NAME(point_lstm)(const sc_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->drive, *restrict b = p->rec;
  float *restrict h = p->h, *restrict c = p->c;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < n; i++) {
    float in = sc_sigmoid(a[i] + b[i]);
    float keep = sc_sigmoid(a[n + i] + b[n + i]);
    float g = sc_tanh(a[2 * n + i] + b[2 * n + i]);
    float o = sc_sigmoid(a[3 * n + i] + b[3 * n + i]);
    c[i] = SC_FMA(keep, c[i], in * g);
    h[i] = o * sc_tanh(c[i]);
  }
}

/* Reset and fire of one neuron; `due` is the spike of the membrane before this step (see cells/_cell.py). */
#define SC_FIRE(RESET_BEFORE, RESET_AFTER, RESET_NOW)   \
  SC_NO_OVERLAP                                         \
  for (int64_t i = 0; i < n; i++) {                     \
    float m = mem[i], due = m > theta[i] ? 1.0f : 0.0f; \
    RESET_BEFORE;                                       \
    SC_INTEGRATE;                                       \
    RESET_AFTER;                                        \
    float s = m > theta[i] ? 1.0f : 0.0f;               \
    if (!delay) {                                       \
      float now = s - due;                              \
      RESET_NOW;                                        \
    }                                                   \
    spk[i] = s;                                         \
    mem[i] = m;                                         \
  }

#define SC_SPIKING_BODY                                                               \
  const int64_t n = p->n;                                                             \
  const float *restrict a = p->drive, *restrict b = p->rec, *restrict beta = p->beta; \
  const float *restrict theta = p->theta;                                             \
  float *restrict spk = p->spk, *restrict mem = p->mem;                               \
  const int delay = p->delay;                                                         \
  switch (p->reset) {                                                                 \
    case SC_RESET_subtract:                                                           \
      SC_FIRE((void)0, m = m - due * theta[i], m = m - now * theta[i]);               \
      break;                                                                          \
    case SC_RESET_zero:                                                               \
      SC_FIRE(m = (1.0f - due) * m, (void)0, m = m - now * m);                        \
      break;                                                                          \
    case SC_RESET_zero_update:                                                        \
      SC_FIRE((void)0, m = m - due * m, m = m - now * m);                             \
      break;                                                                          \
    default:                                                                          \
      SC_FIRE((void)0, (void)0, (void)now);                                           \
  }

#define SC_INTEGRATE m = beta[i] * m + a[i] + b[i]
static void SC_NAME(point_lif)(const sc_point *p){SC_SPIKING_BODY}
#undef SC_INTEGRATE

#define SC_INTEGRATE                         \
  float u = alpha[i] * syn[i] + a[i] + b[i]; \
  syn[i] = u;                                \
  m = beta[i] * m + u
static void SC_NAME(point_synaptic)(const sc_point *p) {
  const float *restrict alpha = p->alpha;
  float *restrict syn = p->syn;
  SC_SPIKING_BODY
}
#undef SC_INTEGRATE
#undef SC_FIRE
#undef SC_SPIKING_BODY

/* One step of an adaptive neuron; z is its spike of the step before, `level` the threshold now (cells/_adaptive.py). */
#define SC_ADAPT(RESET_BEFORE, RESET_AFTER, RESET_NOW)                 \
  SC_NO_OVERLAP                                                        \
  for (int64_t i = 0; i < n; i++) {                                    \
    const float z = spk[i], late = delay * z, old = adapt[i];          \
    const float w = rho[i] * old + z, level = theta[i] + kappa[i] * w; \
    const float rise = adapted * kappa[i];                             \
    float m = mem[i];                                                  \
    RESET_BEFORE;                                                      \
    m = beta[i] * m + a[i] + b[i];                                     \
    RESET_AFTER;                                                       \
    const float s = m > level ? 1.0f : 0.0f, now = (1.0f - delay) * s; \
    RESET_NOW;                                                         \
    spk[i] = s;                                                        \
    adapt[i] = w;                                                      \
    mem[i] = m;                                                        \
  }

static void SC_NAME(point_alif)(const sc_point *p) {
  const int64_t n = p->n;
  const float *restrict a = p->drive, *restrict b = p->rec, *restrict beta = p->beta;
  const float *restrict theta = p->theta, *restrict rho = p->alpha, *restrict kappa = p->strength;
  float *restrict spk = p->spk, *restrict adapt = p->syn, *restrict mem = p->mem;
  const float delay = p->delay ? 1.0f : 0.0f, adapted = p->adapted ? 1.0f : 0.0f;
  switch (p->reset) {
    case SC_RESET_subtract:
      SC_ADAPT((void)0, m = m - late * (theta[i] + rise * old), m = m - now * (theta[i] + rise * w));
      break;
    case SC_RESET_zero:
      SC_ADAPT((void)rise; m = (1.0f - late) * m, (void)0, m = (1.0f - now) * m);
      break;
    case SC_RESET_zero_update:
      SC_ADAPT((void)rise, m = (1.0f - late) * m, m = (1.0f - now) * m);
      break;
    default:
      SC_ADAPT((void)rise; (void)late, (void)0, (void)now);
  }
}
#undef SC_ADAPT

static void SC_NAME(point_li)(const sc_point *p) {
  const float *restrict a = p->drive, *restrict b = p->rec, *restrict beta = p->beta;
  float *restrict h = p->h;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) h[i] = beta[i] * h[i] + a[i] + b[i];
}

#endif
