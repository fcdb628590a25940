/* AVX-512 F/BW/DQ/VL. */
#include <immintrin.h>

#define SC_ISA "avx512"
#define SC_NAME(x) sc_f32_##x##__avx512
#define SC_VL 16
#define SC_VEC_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define SC_OWN_MV(X) \
  X(dense)           \
  X(csr)             \
  X(block16x1)       \
  X(block8x1)        \
  X(block8x4)        \
  X(block4x4) X(block_diagonal) X(lookup) X(mantissa) X(lookup_bf16) X(lookup16) X(lookup8) X(dense16) X(dense8)
#define SC_OWN_MVN SC_NAME(dense_mvn)
#define SC_OWN_SPIKES &SC_NAME(spikes)
#define SC_TILES(X)            \
  X(lookup, 16, 64, 16, 2 + 4) \
  X(mantissa, 16, 64, 16, 2 + 4) X(lookup_bf16, 16, 64, 16, 2 + 4) X(lookup16, 16, 64, 16, 2) X(lookup8, 16, 128, 64, 2)
#include "generic.h"
#include "integer.h"
#include "pointwise.h"

static inline __mmask16 sc_tail(int64_t n) { return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u); }

/* bias (or zero) of 16 rows from r on. */
static inline __m512 sc_begin(const float *bias, int64_t r, __mmask16 m) {
  return bias ? _mm512_maskz_loadu_ps(m, bias + r) : _mm512_setzero_ps();
}

/* Stores 16 rows of the matrix from r on where y has them. */
static inline void sc_end(const sc_matrix *w, int64_t r, __mmask16 m, __m512 v, float *y) {
  if (w->order)
    _mm512_mask_i32scatter_ps(y, m, _mm512_maskz_loadu_epi32(m, w->order + r), v, 4);
  else
    _mm512_mask_storeu_ps(y + r, m, v);
}

static void SC_NAME(dense_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t cols = w->cols;
  int64_t r = 0;
  for (; r + 64 <= w->rows; r += 64) {
    const float *p0 = w->values + r * cols, *p1 = p0 + 16 * cols, *p2 = p1 + 16 * cols, *p3 = p2 + 16 * cols;
    __m512 s0 = sc_begin(bias, r, 0xffff), s1 = sc_begin(bias, r + 16, 0xffff);
    __m512 s2 = sc_begin(bias, r + 32, 0xffff), s3 = sc_begin(bias, r + 48, 0xffff);
    for (int64_t c = 0; c < cols; c++) {
      const __m512 b = _mm512_set1_ps(x[c]);
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(p0 + 16 * c), b, s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(p1 + 16 * c), b, s1);
      s2 = _mm512_fmadd_ps(_mm512_loadu_ps(p2 + 16 * c), b, s2);
      s3 = _mm512_fmadd_ps(_mm512_loadu_ps(p3 + 16 * c), b, s3);
    }
    _mm512_storeu_ps(y + r, s0);
    _mm512_storeu_ps(y + r + 16, s1);
    _mm512_storeu_ps(y + r + 32, s2);
    _mm512_storeu_ps(y + r + 48, s3);
  }
  for (; r < w->rows; r += 16) {
    const __mmask16 m = sc_tail(w->rows - r);
    const float *p = w->values + r * cols;
    __m512 s0 = sc_begin(bias, r, m), s1 = _mm512_setzero_ps(), s2 = s1, s3 = s1;
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(p + 16 * c), _mm512_set1_ps(x[c]), s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(p + 16 * c + 16), _mm512_set1_ps(x[c + 1]), s1);
      s2 = _mm512_fmadd_ps(_mm512_loadu_ps(p + 16 * c + 32), _mm512_set1_ps(x[c + 2]), s2);
      s3 = _mm512_fmadd_ps(_mm512_loadu_ps(p + 16 * c + 48), _mm512_set1_ps(x[c + 3]), s3);
    }
    for (; c < cols; c++) s0 = _mm512_fmadd_ps(_mm512_loadu_ps(p + 16 * c), _mm512_set1_ps(x[c]), s0);
    _mm512_mask_storeu_ps(y + r, m, _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
  }
}

/* Two strips times four vectors: eight sums share two loads of weights per column. */
static void SC_NAME(dense_mvn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                               int64_t ldy) {
  const int64_t cols = w->cols;
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    const float *x0 = x + k * ldx, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
    float *o = y + k * ldy;
    for (int64_t r = 0; r < w->rows; r += 32) {
      const int64_t left = w->rows - r;
      const __mmask16 ma = sc_tail(left), mb = left > 16 ? sc_tail(left - 16) : (__mmask16)0;
      const float *pa = w->values + r * cols, *pb = left > 16 ? pa + 16 * cols : pa;
      __m512 a0 = sc_begin(bias, r, ma), a1 = a0, a2 = a0, a3 = a0;
      __m512 b0 = sc_begin(bias, r + 16, mb), b1 = b0, b2 = b0, b3 = b0;
      for (int64_t c = 0; c < cols; c++) {
        const __m512 va = _mm512_loadu_ps(pa + 16 * c), vb = _mm512_loadu_ps(pb + 16 * c);
        const __m512 q0 = _mm512_set1_ps(x0[c]), q1 = _mm512_set1_ps(x1[c]);
        const __m512 q2 = _mm512_set1_ps(x2[c]), q3 = _mm512_set1_ps(x3[c]);
        a0 = _mm512_fmadd_ps(va, q0, a0);
        b0 = _mm512_fmadd_ps(vb, q0, b0);
        a1 = _mm512_fmadd_ps(va, q1, a1);
        b1 = _mm512_fmadd_ps(vb, q1, b1);
        a2 = _mm512_fmadd_ps(va, q2, a2);
        b2 = _mm512_fmadd_ps(vb, q2, b2);
        a3 = _mm512_fmadd_ps(va, q3, a3);
        b3 = _mm512_fmadd_ps(vb, q3, b3);
      }
      _mm512_mask_storeu_ps(o + r, ma, a0);
      _mm512_mask_storeu_ps(o + ldy + r, ma, a1);
      _mm512_mask_storeu_ps(o + 2 * ldy + r, ma, a2);
      _mm512_mask_storeu_ps(o + 3 * ldy + r, ma, a3);
      if (mb) {
        _mm512_mask_storeu_ps(o + r + 16, mb, b0);
        _mm512_mask_storeu_ps(o + ldy + r + 16, mb, b1);
        _mm512_mask_storeu_ps(o + 2 * ldy + r + 16, mb, b2);
        _mm512_mask_storeu_ps(o + 3 * ldy + r + 16, mb, b3);
      }
    }
  }
  for (; k < n; k++) SC_NAME(dense_mv)(w, x + k * ldx, bias, y + k * ldy, NULL);
}

static void SC_NAME(csr_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r++) {
    __m512 s = _mm512_setzero_ps();
    int32_t k = w->ptr[r];
    const int32_t end = w->ptr[r + 1];
    for (; k + 16 <= end; k += 16)
      s = _mm512_fmadd_ps(_mm512_loadu_ps(w->values + k), _mm512_i32gather_ps(_mm512_loadu_si512(w->index32 + k), x, 4),
                          s);
    if (k < end) {
      const __mmask16 m = sc_tail(end - k);
      const __m512i ix = _mm512_maskz_loadu_epi32(m, w->index32 + k);
      s = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, w->values + k),
                          _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, ix, x, 4), s);
    }
    y[r] = _mm512_reduce_add_ps(s) + (bias ? bias[r] : 0.0f);
  }
}

/* Columns of strips of 16 rows, which begin at multiples of 16 or where base says. Rows beyond the end of a shorter
 * strip are written again by the next one.
 */
SC_INLINE void sc_strips(const sc_matrix *w, const float *x, const float *bias, float *y, const uint16_t *base) {
  for (int64_t strip = 0; strip + 1 < w->n_ptr; strip++) {
    const int64_t r = base ? base[strip] : 16 * strip;
    const __mmask16 m = sc_tail(w->rows - r);
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1];
    const float *v = w->values + (int64_t)k * 16;
    const int32_t *ix = w->index32;
    __m512 s0 = sc_begin(bias, r, m), s1 = _mm512_setzero_ps(), s2 = s1, s3 = s1;
    for (; k + 4 <= end; k += 4, v += 64) {
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), _mm512_set1_ps(x[ix[k]]), s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 16), _mm512_set1_ps(x[ix[k + 1]]), s1);
      s2 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 32), _mm512_set1_ps(x[ix[k + 2]]), s2);
      s3 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 48), _mm512_set1_ps(x[ix[k + 3]]), s3);
    }
    for (; k < end; k++, v += 16) s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), _mm512_set1_ps(x[ix[k]]), s0);
    sc_end(w, r, m, _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)), y);
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

/* The rows of y for 8 of the matrix, from r on, are s + bias, as far as there are rows. */
static inline void sc_finish(const sc_matrix *w, int64_t r, __m256 s, const float *bias, float *y) {
  const __mmask8 m = (__mmask8)sc_tail(w->rows - r);
  const __m256 v = bias ? _mm256_add_ps(s, _mm256_maskz_loadu_ps(m, bias + r)) : s;
  if (w->order)
    _mm256_mask_i32scatter_ps(y, m, _mm256_maskz_loadu_epi32(m, w->order + r), v, 4);
  else
    _mm256_mask_storeu_ps(y + r, m, v);
}

static inline __m256 sc_sum4(__m256 a, __m256 b, __m256 c, __m256 d) {
  return _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
}

#include "block8x1.h" /* pairs of blocks in one vector were slower than half vectors */

/* Two registers hold a block; each takes two of the four inputs, repeated down a column of eight weights. */
static void SC_NAME(block8x4_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
  for (int64_t r = 0, strip = 0; r < w->rows; r += 8, strip++) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1], *ix = w->index32;
    const float *v = w->values + (int64_t)k * 32;
    for (; k + 2 <= end; k += 2, v += 64) {
      const __m512 p = _mm512_broadcast_f32x4(_mm_loadu_ps(x + ix[k]));
      const __m512 q = _mm512_broadcast_f32x4(_mm_loadu_ps(x + ix[k + 1]));
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), _mm512_permutevar_ps(p, first), s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 16), _mm512_permutevar_ps(p, second), s1);
      s2 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 32), _mm512_permutevar_ps(q, first), s2);
      s3 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 48), _mm512_permutevar_ps(q, second), s3);
    }
    if (k < end) {
      const __m512 p = _mm512_broadcast_f32x4(_mm_loadu_ps(x + ix[k]));
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), _mm512_permutevar_ps(p, first), s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 16), _mm512_permutevar_ps(p, second), s1);
    }
    s0 = _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3));
    sc_finish(w, r, _mm256_add_ps(_mm512_castps512_ps256(s0), _mm512_extractf32x8_ps(s0, 1)), bias, y);
  }
}

/* Four inputs, each repeated down its column of four weights. */
static inline __m512 sc_spread4(const float *x) {
  const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(x)), lane);
}

static void SC_NAME(block4x4_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0, strip = 0; r < w->rows; r += 4, strip++) {
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1];
    const float *v = w->values + (int64_t)k * 16;
    const int32_t *ix = w->index32;
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    for (; k + 4 <= end; k += 4, v += 64) {
      s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), sc_spread4(x + ix[k]), s0);
      s1 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 16), sc_spread4(x + ix[k + 1]), s1);
      s2 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 32), sc_spread4(x + ix[k + 2]), s2);
      s3 = _mm512_fmadd_ps(_mm512_loadu_ps(v + 48), sc_spread4(x + ix[k + 3]), s3);
    }
    for (; k < end; k++, v += 16) s0 = _mm512_fmadd_ps(_mm512_loadu_ps(v), sc_spread4(x + ix[k]), s0);
    s0 = _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3));
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s0), _mm512_extractf32x8_ps(s0, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __mmask8 m = (__mmask8)(w->rows - r >= 4 ? 0xfu : (1u << (w->rows - r)) - 1u);
    _mm_mask_storeu_ps(y + r, m, bias ? _mm_add_ps(q, _mm_maskz_loadu_ps(m, bias + r)) : q);
  }
}

#include "integer_avx512.h"
#include "lookup_avx512.h"
#include "spikes_avx512.h"

SC_DEFINE_OPS(sc_ops_avx512)
