/* Training kernels for AVX2 and FMA. */
#include <immintrin.h>

#define SC_NAME(x) sc_train_##x##__avx2
#define SC_VL 8
#define SC_VEC_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))

/* Sums of four vectors, side by side. */
static inline __m128 sc_sum4_avx2(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}
#define SC_VEC_SUM4(a, b, c, d) sc_sum4_avx2((a), (b), (c), (d))
#define SC_ABOVE(p, limit) \
  ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(limit), _CMP_GT_OQ)))
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_avx2)
