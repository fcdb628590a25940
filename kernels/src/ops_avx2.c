/* AVX2 + FMA. */
#include <immintrin.h>

#define SC_ISA "avx2"
#define SC_NAME(x) sc_f32_##x##__avx2
#define SC_VL 8
#define SC_VEC_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define SC_OWN_MV(X) \
  X(dense)           \
  X(csr)             \
  X(block16x1)       \
  X(block8x1)        \
  X(block8x4)        \
  X(block4x4) X(block_diagonal) X(lookup) X(mantissa) X(lookup_bf16) X(lookup16) X(lookup8) X(dense16) X(dense8)
#define SC_OWN_MVN SC_NAME(dense_mvn)
#define SC_TILES(X)       \
  X(lookup, 16, 16, 4, 1) \
  X(mantissa, 16, 16, 4, 1) X(lookup_bf16, 8, 16, 8, 2) X(lookup16, 16, 32, 1, 1) X(lookup8, 8, 32, 1, 1)
#include "generic.h"
#include "integer.h"
#include "pointwise.h"

static inline __m256 sc_sum4(__m256 a, __m256 b, __m256 c, __m256 d) {
  return _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
}

/* The rows of y for 8 of the matrix, from r on, are s + bias, as far as there are rows. */
static inline void sc_finish(const sc_matrix *w, int64_t r, __m256 s, const float *bias, float *y) {
  if (r + 8 <= w->rows && !w->order) {
    _mm256_storeu_ps(y + r, bias ? _mm256_add_ps(s, _mm256_loadu_ps(bias + r)) : s);
    return;
  }
  float t[8];
  _mm256_storeu_ps(t, s);
  for (int64_t i = 0; i < 8 && r + i < w->rows; i++) y[sc_place(w, r + i)] = t[i] + (bias ? bias[r + i] : 0.0f);
}

static void SC_NAME(dense_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t cols = w->cols;
  for (int64_t r = 0; r < w->rows; r += 32) {
    const int64_t left = w->rows - r;
    const float *p = w->values + r * cols, *q = left > 16 ? p + 16 * cols : p;
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t c = 0; c < cols; c++) {
      const __m256 b = _mm256_broadcast_ss(x + c);
      s0 = _mm256_fmadd_ps(_mm256_loadu_ps(p + 16 * c), b, s0);
      s1 = _mm256_fmadd_ps(_mm256_loadu_ps(p + 16 * c + 8), b, s1);
      s2 = _mm256_fmadd_ps(_mm256_loadu_ps(q + 16 * c), b, s2);
      s3 = _mm256_fmadd_ps(_mm256_loadu_ps(q + 16 * c + 8), b, s3);
    }
    sc_finish(w, r, s0, bias, y);
    if (left > 8) sc_finish(w, r + 8, s1, bias, y);
    if (left > 16) sc_finish(w, r + 16, s2, bias, y);
    if (left > 24) sc_finish(w, r + 24, s3, bias, y);
  }
}

/* One strip times four vectors. */
static void SC_NAME(dense_mvn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                               int64_t ldy) {
  const int64_t cols = w->cols;
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    const float *x0 = x + k * ldx, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
    float *o = y + k * ldy;
    for (int64_t r = 0; r < w->rows; r += 16) {
      const float *p = w->values + r * cols;
      __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
      for (int64_t c = 0; c < cols; c++) {
        const __m256 va = _mm256_loadu_ps(p + 16 * c), vb = _mm256_loadu_ps(p + 16 * c + 8);
        const __m256 q0 = _mm256_broadcast_ss(x0 + c), q1 = _mm256_broadcast_ss(x1 + c);
        const __m256 q2 = _mm256_broadcast_ss(x2 + c), q3 = _mm256_broadcast_ss(x3 + c);
        a0 = _mm256_fmadd_ps(va, q0, a0);
        b0 = _mm256_fmadd_ps(vb, q0, b0);
        a1 = _mm256_fmadd_ps(va, q1, a1);
        b1 = _mm256_fmadd_ps(vb, q1, b1);
        a2 = _mm256_fmadd_ps(va, q2, a2);
        b2 = _mm256_fmadd_ps(vb, q2, b2);
        a3 = _mm256_fmadd_ps(va, q3, a3);
        b3 = _mm256_fmadd_ps(vb, q3, b3);
      }
      sc_finish(w, r, a0, bias, o);
      sc_finish(w, r, a1, bias, o + ldy);
      sc_finish(w, r, a2, bias, o + 2 * ldy);
      sc_finish(w, r, a3, bias, o + 3 * ldy);
      if (w->rows - r > 8) {
        sc_finish(w, r + 8, b0, bias, o);
        sc_finish(w, r + 8, b1, bias, o + ldy);
        sc_finish(w, r + 8, b2, bias, o + 2 * ldy);
        sc_finish(w, r + 8, b3, bias, o + 3 * ldy);
      }
    }
  }
  for (; k < n; k++) SC_NAME(dense_mv)(w, x + k * ldx, bias, y + k * ldy, NULL);
}

static void SC_NAME(csr_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r++) {
    __m256 s = _mm256_setzero_ps();
    int32_t k = w->ptr[r];
    const int32_t end = w->ptr[r + 1];
    for (; k + 8 <= end; k += 8) {
      const __m256i ix = _mm256_loadu_si256((const __m256i *)(w->index32 + k));
      s = _mm256_fmadd_ps(_mm256_loadu_ps(w->values + k), _mm256_i32gather_ps(x, ix, 4), s);
    }
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    float t = _mm_cvtss_f32(q) + _mm_cvtss_f32(_mm_movehdup_ps(q));
    for (; k < end; k++) t += w->values[k] * x[w->index32[k]];
    y[r] = t + (bias ? bias[r] : 0.0f);
  }
}

/* Columns of strips of 16 rows, which begin at multiples of 16 or where base says. Rows beyond the end of a shorter
 * strip are written again by the next one.
 */
SC_INLINE void sc_strips(const sc_matrix *w, const float *x, const float *bias, float *y, const uint16_t *base) {
  for (int64_t strip = 0; strip + 1 < w->n_ptr; strip++) {
    const int64_t r = base ? base[strip] : 16 * strip;
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1];
    const float *v = w->values + (int64_t)k * 16;
    __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (; k + 4 <= end; k += 4, v += 64) {
      const int32_t *ix = w->index32 + k;
      const __m256 q0 = _mm256_broadcast_ss(x + ix[0]), q1 = _mm256_broadcast_ss(x + ix[1]);
      const __m256 q2 = _mm256_broadcast_ss(x + ix[2]), q3 = _mm256_broadcast_ss(x + ix[3]);
      a0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), q0, a0);
      b0 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), q0, b0);
      a1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 16), q1, a1);
      b1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 24), q1, b1);
      a2 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 32), q2, a2);
      b2 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 40), q2, b2);
      a3 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 48), q3, a3);
      b3 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 56), q3, b3);
    }
    for (; k < end; k++, v += 16) {
      const __m256 q = _mm256_broadcast_ss(x + w->index32[k]);
      a0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), q, a0);
      b0 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), q, b0);
    }
    sc_finish(w, r, sc_sum4(a0, a1, a2, a3), bias, y);
    if (w->rows - r > 8) sc_finish(w, r + 8, sc_sum4(b0, b1, b2, b3), bias, y);
  }
}

static void SC_NAME(block16x1_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  sc_strips(w, x, bias, y, NULL);
}

static void SC_NAME(block_diagonal_mv)(const sc_matrix *w, const float *x, const float *bias, float *y,
                                       int32_t *scratch) {
  (void)scratch;
  sc_strips(w, x, bias, y, w->base);
}

#include "block8x1.h"

static void SC_NAME(block8x4_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0, strip = 0; r < w->rows; r += 8, strip++) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    const float *v = w->values + (int64_t)w->ptr[strip] * 32;
    for (int32_t k = w->ptr[strip]; k < w->ptr[strip + 1]; k++, v += 32) {
      const float *q = x + w->index32[k];
      s0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_broadcast_ss(q), s0);
      s1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), _mm256_broadcast_ss(q + 1), s1);
      s2 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 16), _mm256_broadcast_ss(q + 2), s2);
      s3 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 24), _mm256_broadcast_ss(q + 3), s3);
    }
    sc_finish(w, r, sc_sum4(s0, s1, s2, s3), bias, y);
  }
}

static void SC_NAME(block4x4_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const __m256i first = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), second = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
  for (int64_t r = 0, strip = 0; r < w->rows; r += 4, strip++) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1];
    const float *v = w->values + (int64_t)k * 16;
    for (; k + 2 <= end; k += 2, v += 32) {
      const __m256 p = _mm256_broadcast_ps((const __m128 *)(x + w->index32[k]));
      const __m256 q = _mm256_broadcast_ps((const __m128 *)(x + w->index32[k + 1]));
      s0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_permutevar_ps(p, first), s0);
      s1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), _mm256_permutevar_ps(p, second), s1);
      s2 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 16), _mm256_permutevar_ps(q, first), s2);
      s3 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 24), _mm256_permutevar_ps(q, second), s3);
    }
    if (k < end) {
      const __m256 p = _mm256_broadcast_ps((const __m128 *)(x + w->index32[k]));
      s0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_permutevar_ps(p, first), s0);
      s1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), _mm256_permutevar_ps(p, second), s1);
    }
    const __m256 s = sc_sum4(s0, s1, s2, s3);
    float t[4];
    _mm_storeu_ps(t, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
    for (int64_t i = 0; i < 4 && r + i < w->rows; i++) y[r + i] = t[i] + (bias ? bias[r + i] : 0.0f);
  }
}

#include "integer_avx2.h"
#include "lookup_avx2.h"

SC_DEFINE_OPS(sc_ops_avx2)
