/* Blocks of 8 x 1 in 256-bit vectors: an input times 8 consecutive rows. */
#ifndef SC_BLOCK8X1_H
#define SC_BLOCK8X1_H

static void SC_NAME(block8x1_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0, strip = 0; r < w->rows; r += 8, strip++) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int32_t k = w->ptr[strip];
    const int32_t end = w->ptr[strip + 1], *ix = w->index32;
    const float *v = w->values + (int64_t)k * 8;
    for (; k + 4 <= end; k += 4, v += 32) {
      s0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_broadcast_ss(x + ix[k]), s0);
      s1 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8), _mm256_broadcast_ss(x + ix[k + 1]), s1);
      s2 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 16), _mm256_broadcast_ss(x + ix[k + 2]), s2);
      s3 = _mm256_fmadd_ps(_mm256_loadu_ps(v + 24), _mm256_broadcast_ss(x + ix[k + 3]), s3);
    }
    for (; k < end; k++, v += 8) s0 = _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_broadcast_ss(x + ix[k]), s0);
    sc_finish(w, r, sc_sum4(s0, s1, s2, s3), bias, y);
  }
}

#endif
