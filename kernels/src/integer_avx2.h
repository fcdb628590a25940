/* Integer products for AVX2. */
#ifndef SC_INTEGER_AVX2_H
#define SC_INTEGER_AVX2_H

static inline __m256i sc_load8(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The same 16 bytes in both halves. */
static inline __m256i sc_twice(const uint8_t *p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline __m256i sc_to_int(const float *x, float top) {
  const __m256 limit = _mm256_set1_ps(top);
  const __m256 v = _mm256_min_ps(_mm256_mul_ps(_mm256_loadu_ps(x), limit), limit);
  return _mm256_cvtps_epi32(_mm256_max_ps(v, _mm256_set1_ps(-top)));
}

/* 16 states as words: rounded to nearest, clipped; `left` of them exist, the others are zero. */
static inline __m256i sc_quantise(const float *x, int64_t left, float top) {
  float copy[16] = {0};
  if (left < 16) {
    for (int64_t i = 0; i < left; i++) copy[i] = x[i];
    x = copy;
  }
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(sc_to_int(x, top), sc_to_int(x + 8, top)), 0xd8);
}

/* y of 16 rows from their sums. */
static inline void sc_scale_rows(const sc_matrix *w, int64_t r, __m256 a, __m256 b, float unit, const float *bias,
                                 float *y) {
  const __m256 sums[2] = {a, b};
  for (int i = 0; i < 2 && r + 8 * i < w->rows; i++) {
    float scale[8] = {0};
    for (int64_t k = 0; k < 8 && r + 8 * i + k < w->rows; k++) scale[k] = w->scale[r + 8 * i + k] * unit;
    sc_finish(w, r + 8 * i, _mm256_mul_ps(sums[i], _mm256_loadu_ps(scale)), bias, y);
  }
}

/* A byte shuffle looks up 16 bytes, so the words of the state are taken apart: all lower bytes, then all upper ones.
 * Returns the distance between the two.
 */
static inline int64_t sc_planes16(const float *x, int64_t cols, uint8_t *planes) {
  const int64_t wide = (cols + SC_PAD - 1) / SC_PAD * SC_PAD;
  for (int64_t c = 0; c < wide; c += 16) {
    const __m256i q = sc_quantise(x + c, cols - c, SC_STATE16);
    const __m256i lower = _mm256_and_si256(q, _mm256_set1_epi16(255)), upper = _mm256_srli_epi16(q, 8);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi16(lower, upper), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)(planes + c), _mm256_castsi256_si128(both));
    _mm_storeu_si128((__m128i *)(void *)(planes + wide + c), _mm256_extracti128_si256(both, 1));
  }
  return wide;
}

/* One byte of each of the 32 inputs that `low` (for the first 16 bytes) or `high` (for the next 16) choose: a shuffle
 * gives 0 where the top bit of its index is set.
 */
static inline __m256i sc_pick32(const uint8_t *plane, __m256i low, __m256i high) {
  return _mm256_or_si256(_mm256_shuffle_epi8(sc_twice(plane), low), _mm256_shuffle_epi8(sc_twice(plane + 16), high));
}

static void SC_NAME(lookup16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  uint8_t *planes = (uint8_t *)(void *)scratch;
  const int64_t wide = sc_planes16(x, w->cols, planes);
  const __m256i mask = _mm256_set1_epi16(31), lift = _mm256_set1_epi8(0x70), top = _mm256_set1_epi8((char)0x80);
  const int16_t *v = w->words + 32 * (int64_t)w->ptr[0];
  const uint16_t *base = w->base + w->ptr[0];
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    __m256 f0 = _mm256_setzero_ps(), f1 = f0;
    for (int32_t left = w->ptr[strip + 1] - w->ptr[strip]; left > 0; left -= SC_FLUSH) {
      __m256i s0 = _mm256_setzero_si256(), s1 = s0;
      for (int k = left < SC_FLUSH ? left : SC_FLUSH; k > 0; k--, v += 32, base++) {
        const uint8_t *p = planes + *base;
        const __m256i v0 = sc_load8(v), v1 = sc_load8(v + 16);
        const __m256i index = _mm256_packus_epi16(_mm256_and_si256(v0, mask), _mm256_and_si256(v1, mask));
        const __m256i low = _mm256_add_epi8(index, lift), high = _mm256_xor_si256(low, top);
        const __m256i lower = sc_pick32(p, low, high), upper = sc_pick32(p + wide, low, high);
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(v0, _mm256_unpacklo_epi8(lower, upper)));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(v1, _mm256_unpackhi_epi8(lower, upper)));
      }
      f0 = _mm256_add_ps(f0, _mm256_cvtepi32_ps(s0));
      f1 = _mm256_add_ps(f1, _mm256_cvtepi32_ps(s1));
    }
    sc_scale_rows(w, r, f0, f1, 1.0f / SC_STATE16, bias, y);
  }
}

/* Dense panels, two strips at once: s[i] += DOT(32 bytes of weights, the inputs of a group of PER columns). */
#define SC_DENSE_BODY(TYPE, PER, FIELD, STATE, UNIT, DOT)                                                          \
  const int64_t groups = (w->cols + PER - 1) / PER;                                                                \
  for (int64_t r = 0; r < w->rows; r += 32) {                                                                      \
    const TYPE *p = w->FIELD + r * groups * PER, *q = w->rows - r > 16 ? p + groups * PER * 16 : p;                \
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;                                                \
    for (int64_t g = 0; g < groups; g++, p += PER * 16, q += PER * 16) {                                           \
      int32_t bits;                                                                                                \
      memcpy(&bits, STATE + g * PER, sizeof bits);                                                                 \
      const __m256i b = _mm256_set1_epi32(bits);                                                                   \
      s0 = _mm256_add_epi32(s0, DOT(sc_load8(p), b));                                                              \
      s1 = _mm256_add_epi32(s1, DOT(sc_load8(p + PER * 8), b));                                                    \
      s2 = _mm256_add_epi32(s2, DOT(sc_load8(q), b));                                                              \
      s3 = _mm256_add_epi32(s3, DOT(sc_load8(q + PER * 8), b));                                                    \
    }                                                                                                              \
    sc_scale_rows(w, r, _mm256_cvtepi32_ps(s0), _mm256_cvtepi32_ps(s1), UNIT, bias, y);                            \
    if (w->rows - r > 16) sc_scale_rows(w, r + 16, _mm256_cvtepi32_ps(s2), _mm256_cvtepi32_ps(s3), UNIT, bias, y); \
  }

static void SC_NAME(dense16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int16_t *state = (int16_t *)(void *)scratch;
  for (int64_t c = 0; c < w->cols; c += 16)
    _mm256_storeu_si256((__m256i *)(void *)(state + c), sc_quantise(x + c, w->cols - c, SC_STATE16));
  SC_DENSE_BODY(int16_t, 2, words, state, 1.0f / SC_STATE16, _mm256_madd_epi16)
}

/* Bytes in fours: the magnitude of the state times weights that have its sign, because the byte product takes one
 * factor without sign. Neither is below -127, so that two products fit a word; no correction is needed.
 */
static inline __m256i sc_dot8(__m256i v, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(v, x));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* The state as signed bytes, zero from cols to wide. */
static inline const int8_t *sc_state8(const float *x, int64_t cols, int64_t wide, int32_t *scratch) {
  int8_t *state = (int8_t *)(void *)scratch;
  for (int64_t c = 0; c < wide; c += 16) {
    const __m256i q = c < cols ? sc_quantise(x + c, cols - c, SC_STATE8) : _mm256_setzero_si256();
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storeu_si128((__m128i *)(void *)(state + c), bytes);
  }
  return state;
}

static void SC_NAME(dense8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  const int8_t *state = sc_state8(x, w->cols, w->cols, scratch);
  SC_DENSE_BODY(int8_t, 4, bytes, state, 1.0f / SC_STATE8, sc_dot8)
}

#endif
