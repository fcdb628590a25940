/* Lookups for AVX2: windows of 16 inputs (32 bytes in 8 bits), 16 rows of floats, 8 of narrower weights. Included after
 * integer_avx2.h. */
#ifndef SC_LOOKUP_AVX2_H
#define SC_LOOKUP_AVX2_H

/* Bit 3 of the index chooses the upper or lower half of 16 inputs, bits 0-2 the input in it. */
static inline __m256 sc_pick16(__m256i i, __m256 lo, __m256 hi) {
  const __m256 top = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lo, i), _mm256_permutevar8x32_ps(hi, i), top);
}

static inline __m256i sc_index8(const uint8_t *ix) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)ix));
}

/* 16 rows of weights times what they choose from the window at x; the index is inside the weights, or beside them. */
SC_INLINE void sc_window(const float *v, const uint8_t *ix, const float *x, const int hidden, __m256 s[2]) {
  const __m256 low = _mm256_loadu_ps(x), high = _mm256_loadu_ps(x + 8);
  for (int i = 0; i < 2; i++) {
    const __m256 weights = _mm256_loadu_ps(v + 8 * i);
    const __m256i index = hidden ? _mm256_castps_si256(weights) : sc_index8(ix + 8 * i);
    s[i] = _mm256_fmadd_ps(weights, sc_pick16(index, low, high), s[i]);
  }
}

/* Both lookups: windows of 16 inputs that begin at a multiple of 4 columns; 16 rows, because two vectors of 8 share
 * each load of a window. One loop per strip, so that no branch depends on the weights.
 */
SC_INLINE void sc_windows(const sc_matrix *w, const float *x, const float *bias, float *y, const int hidden) {
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    __m256 s[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, t[2] = {s[0], s[0]};
    int64_t k = w->ptr[strip];
    const int64_t end = w->ptr[strip + 1];
    const float *v = w->values + 16 * k;
    const uint8_t *ix = hidden ? NULL : w->index8 + 16 * k;
    for (; k + 2 <= end; k += 2, v += 32, ix += hidden ? 0 : 32) {
      sc_window(v, ix, x + 4 * w->base[k], hidden, s);
      sc_window(v + 16, hidden ? NULL : ix + 16, x + 4 * w->base[k + 1], hidden, t);
    }
    if (k < end) sc_window(v, ix, x + 4 * w->base[k], hidden, s);
    sc_finish(w, r, _mm256_add_ps(s[0], t[0]), bias, y);
    if (w->rows - r > 8) sc_finish(w, r + 8, _mm256_add_ps(s[1], t[1]), bias, y);
  }
}

static void SC_NAME(lookup_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  sc_windows(w, x, bias, y, 0);
}

static void SC_NAME(mantissa_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  sc_windows(w, x, bias, y, 1);
}

/* Two vectors a window: the even words are the first, the odd ones the second. */
static void SC_NAME(lookup_bf16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const __m256i high = _mm256_set1_epi32((int)0xffff0000);
  const int16_t *v = w->words + 16 * (int64_t)w->ptr[0];
  const uint8_t *ix = w->index8 + 16 * (int64_t)w->ptr[0];
  const uint16_t *base = w->base + w->ptr[0];
  for (int64_t r = 0, strip = 0; r < w->rows; r += 8, strip++) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0;
    for (int32_t n = w->ptr[strip + 1] - w->ptr[strip]; n > 0; n--, v += 16, ix += 16) {
      const float *q = x + 8 * *base++;
      const __m256 lo = _mm256_loadu_ps(q), hi = _mm256_loadu_ps(q + 8);
      const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)v);
      const __m256i i = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)ix));
      const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
      const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(both, high));
      s0 = _mm256_fmadd_ps(even, sc_pick16(i, lo, hi), s0);
      s1 = _mm256_fmadd_ps(odd, sc_pick16(_mm256_srli_epi32(i, 8), lo, hi), s1);
    }
    sc_finish(w, r, _mm256_add_ps(s0, s1), bias, y);
  }
}

/* Four bytes for each of 8 rows, in windows of 32. Two sums, because one would wait for itself. */
#define SC_BYTES8(sum)                                                         \
  {                                                                            \
    const __m256i low = _mm256_add_epi8(sc_load8(ix), lift);                   \
    const __m256i p = sc_pick32(q + *base++, low, _mm256_xor_si256(low, top)); \
    sum = _mm256_add_epi32(sum, sc_dot8(sc_load8(v), p));                      \
    v += 32;                                                                   \
    ix += 32;                                                                  \
  }

static void SC_NAME(lookup8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  const int64_t wide = (w->cols + SC_PAD8 - 1) / SC_PAD8 * SC_PAD8;
  const uint8_t *q = (const uint8_t *)sc_state8(x, w->cols, wide, scratch), *ix = w->index8 + 32 * (int64_t)w->ptr[0];
  const __m256i lift = _mm256_set1_epi8(0x70), top = _mm256_set1_epi8((char)0x80);
  const int8_t *v = w->bytes + 32 * (int64_t)w->ptr[0];
  const uint16_t *base = w->base + w->ptr[0];
  for (int64_t r = 0, strip = 0; r < w->rows; r += 8, strip++) {
    __m256i s0 = _mm256_setzero_si256(), s1 = s0;
    int32_t n = w->ptr[strip + 1] - w->ptr[strip];
    for (; n >= 2; n -= 2) {
      SC_BYTES8(s0)
      SC_BYTES8(s1)
    }
    if (n) SC_BYTES8(s0)
    float scale[8] = {0};
    for (int64_t k = 0; k < 8 && r + k < w->rows; k++) scale[k] = w->scale[r + k] * (1.0f / SC_STATE8);
    const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(s0, s1));
    sc_finish(w, r, _mm256_mul_ps(sum, _mm256_loadu_ps(scale)), bias, y);
  }
}

#endif
