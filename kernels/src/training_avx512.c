/* Training kernels for AVX-512 F/BW/DQ/VL. */
#include <immintrin.h>

#define SC_NAME(x) sc_train_##x##__avx512
#define SC_VL 16
#define SC_VEC_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define SC_VEC_SUM(v) _mm512_reduce_add_ps(v)

/* Sums of four vectors, side by side: pairs within the 128-bit lanes first, then across the lanes. */
static inline __m128 sc_sum4_avx512(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 low = _mm512_shuffle_ps(ab, cd, 0x44), high = _mm512_shuffle_ps(ab, cd, 0xee);
  const __m512 all = _mm512_add_ps(low, high);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#define SC_LINE(a, b, c, d) \
  _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set_m128((b), (a))), _mm256_set_m128((d), (c)), 1)
#define SC_STORE_LINE(p, a, b, c, d) _mm512_storeu_ps((p), SC_LINE(a, b, c, d))
#define SC_STREAM_LINE(p, a, b, c, d) _mm512_stream_ps((p), SC_LINE(a, b, c, d))
#define SC_STREAM_END() _mm_sfence()
#define SC_STREAM_ROW(to, from, n) \
  for (int64_t i = 0; i < (n); i += 16) _mm512_stream_ps((to) + i, _mm512_loadu_ps((from) + i))
#define SC_ABOVE(p, limit) ((uint32_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(p), _mm512_loadu_ps(limit), _CMP_GT_OQ))
#define SC_DENSE_VECTORS 4
#define SC_VEC_SUM4(a, b, c, d) sc_sum4_avx512((a), (b), (c), (d))
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_avx512)
