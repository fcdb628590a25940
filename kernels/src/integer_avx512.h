/* Dense integer products for AVX-512, and what the integer lookups share with them.
 *
 * The dot products are those of VNNI where the processor has them; else two older instructions do the same.
 */
#ifndef SC_INTEGER_AVX512_H
#define SC_INTEGER_AVX512_H

#define SC_VNNI __attribute__((target("avx512vnni")))

/* Whether this processor has an extension of AVX-512; the C tests are also built as if none had. */
#ifdef SC_WITHOUT_EXTENSIONS
#define SC_HAS(extension) 0
#else
#define SC_HAS(extension) __builtin_cpu_supports(extension)
#endif

static inline __m512i sc_to_int(const float *x, int64_t left, float top) {
  const __m512 limit = _mm512_set1_ps(top);
  __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(sc_tail(left), x), limit);
  v = _mm512_max_ps(_mm512_min_ps(v, limit), _mm512_set1_ps(-top));
  return _mm512_cvtps_epi32(v);
}

static inline void sc_quantise16(const float *x, int64_t cols, int64_t wide, int16_t *q) {
  for (int64_t c = 0; c < wide; c += 16) {
    const __m512i v = c < cols ? sc_to_int(x + c, cols - c, SC_STATE16) : _mm512_setzero_si512();
    _mm256_storeu_si256((__m256i *)(void *)(q + c), _mm512_cvtsepi32_epi16(v));
  }
}

static inline void sc_quantise8(const float *x, int64_t cols, int64_t wide, uint8_t *q) {
  for (int64_t c = 0; c < wide; c += 16) {
    const __m512i v = c < cols ? sc_to_int(x + c, cols - c, SC_STATE8) : _mm512_setzero_si512();
    _mm_storeu_si128((__m128i *)(void *)(q + c), _mm512_cvtepi32_epi8(_mm512_add_epi32(v, _mm512_set1_epi32(128))));
  }
}

static inline void sc_scale_rows(const sc_matrix *w, int64_t r, __m512 sum, float unit, const float *bias, float *y) {
  const __mmask16 m = sc_tail(w->rows - r);
  const __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, w->scale + r), _mm512_set1_ps(unit));
  const __m512 v = _mm512_mul_ps(sum, scale);
  sc_end(w, r, m, bias ? _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, bias + r)) : v, y);
}

/* The loop of dense rows, once with each way to add a dot product of words (or bytes) to int32 sums. */
#define SC_DENSE_BODY(TYPE, PER, BUFFER, FIELD, DOT, FINISH)                                                         \
  const int64_t groups = (w->cols + PER - 1) / PER;                                                                  \
  for (int64_t r = 0; r < w->rows; r += 64) {                                                                        \
    const int64_t strips = w->rows - r > 48 ? 4 : (w->rows - r + 15) / 16;                                           \
    __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()}; \
    const TYPE *v = w->FIELD + r * groups * PER, *p[4];                                                              \
    for (int k = 0; k < 4; k++) p[k] = v + (k < strips ? k : 0) * groups * PER * 16;                                 \
    for (int64_t g = 0; g < groups; g++) {                                                                           \
      int32_t bits;                                                                                                  \
      memcpy(&bits, BUFFER + g * PER, sizeof bits);                                                                  \
      const __m512i b = _mm512_set1_epi32(bits);                                                                     \
      for (int k = 0; k < 4; k++) s[k] = DOT(s[k], b, _mm512_loadu_si512(p[k] + g * PER * 16));                      \
    }                                                                                                                \
    for (int k = 0; k < strips; k++) FINISH(r + 16 * k, s[k]);                                                       \
  }

#define SC_WORDS_OLD(sum, a, b) _mm512_add_epi32((sum), _mm512_madd_epi16((a), (b)))
#define SC_FINISH16(row, sum) sc_scale_rows(w, (row), _mm512_cvtepi32_ps(sum), 1.0f / SC_STATE16, bias, y)
#define SC_FINISH8(row, sum)                                                                            \
  sc_scale_rows(w, (row),                                                                               \
                _mm512_cvtepi32_ps(_mm512_sub_epi32(                                                    \
                    (sum), _mm512_maskz_loadu_epi32(sc_tail(w->rows - (row)), w->correction + (row)))), \
                1.0f / SC_STATE8, bias, y)

SC_VNNI static void sc_dense16_vnni(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  int16_t *q = (int16_t *)(void *)scratch;
  sc_quantise16(x, w->cols, (w->cols + 15) / 16 * 16, q);
  SC_DENSE_BODY(int16_t, 2, q, words, _mm512_dpwssd_epi32, SC_FINISH16)
}

static void sc_dense16_old(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  int16_t *q = (int16_t *)(void *)scratch;
  sc_quantise16(x, w->cols, (w->cols + 15) / 16 * 16, q);
  SC_DENSE_BODY(int16_t, 2, q, words, SC_WORDS_OLD, SC_FINISH16)
}

SC_VNNI static void sc_dense8_vnni(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  uint8_t *q = (uint8_t *)(void *)scratch;
  sc_quantise8(x, w->cols, (w->cols + 15) / 16 * 16, q);
  SC_DENSE_BODY(int8_t, 4, q, bytes, _mm512_dpbusd_epi32, SC_FINISH8)
}

/* Bytes as words, two halves: exact, unlike the saturating byte product. */
static inline __m512i sc_bytes_old(__m512i sum, __m512i a, __m512i b) {
  const __m512i lo =
      _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(255)), _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
  const __m512i hi = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
  return _mm512_add_epi32(sum, _mm512_add_epi32(lo, hi));
}

static void sc_dense8_old(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  uint8_t *q = (uint8_t *)(void *)scratch;
  sc_quantise8(x, w->cols, (w->cols + 15) / 16 * 16, q);
  SC_DENSE_BODY(int8_t, 4, q, bytes, sc_bytes_old, SC_FINISH8)
}

#define SC_PICK(name)                                                                                                 \
  static void SC_NAME(name##_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) { \
    if (SC_NAME(nan_state)(w, x, y)) return;                                                                          \
    if (SC_HAS("avx512vnni"))                                                                                         \
      sc_##name##_vnni(w, x, bias, y, scratch);                                                                       \
    else                                                                                                              \
      sc_##name##_old(w, x, bias, y, scratch);                                                                        \
  }
SC_PICK(dense16)
SC_PICK(dense8)

#endif
