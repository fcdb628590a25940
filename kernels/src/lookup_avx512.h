/* Lookups for AVX-512: 16 rows, windows of 64 inputs (128 bytes in 8 bits). Included after integer_avx512.h.
 *
 * The loops are bound by loads and by the latency of sums: a window serves `depth` vectors of weights, and four sums
 * are kept.
 */
#ifndef SC_LOOKUP_AVX512_H
#define SC_LOOKUP_AVX512_H

#define SC_VBMI __attribute__((target("avx512vnni,avx512vbmi")))

/* A vector that stays in its register: compilers would rather load it again for each use, and loads are what is short.
 */
static inline __m512i sc_keep(const void *p) {
  __m512i v = _mm512_loadu_si512(p);
  __asm__("" : "+v"(v));
  return v;
}

/* The input in a window of 64 that the low 6 bits of each lane of i name. */
static inline __m512 sc_pick(__m512i i, const __m512 x[4]) {
  const __m512 lo = _mm512_permutex2var_ps(x[0], i, x[1]), hi = _mm512_permutex2var_ps(x[2], i, x[3]);
  return _mm512_mask_blend_ps(_mm512_test_epi32_mask(i, _mm512_set1_epi32(32)), lo, hi);
}

static inline void sc_window(const float *q, __m512 x[4]) {
  for (int i = 0; i < 4; i++) x[i] = _mm512_loadu_ps(q + 16 * i);
}

/* Columns of a window's slots: a lane holds those of its row, one byte a slot; shifted right they are in place. */
SC_INLINE __m512i sc_columns(const uint8_t *ix, const int depth) {
  return depth == 4 ? sc_keep(ix) : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)ix));
}

/* What a loop reads, one after another. */
typedef struct sc_stream {
  const uint16_t *base;
  const float *values;
  const int16_t *words;
  const uint8_t *index8;
} sc_stream;

/* s[k] += weight vector k times its inputs, for all vectors of the next window. */
#define SC_STEP(name) SC_INLINE void name(sc_stream *p, const float *x, const int depth, __m512 *s)

SC_STEP(sc_step_lookup) {
  const __m512i i = sc_columns(p->index8, depth);
  __m512 q[4];
  sc_window(x + 16 * *p->base++, q);
  p->index8 += 16 * depth;
  for (int k = 0; k < depth; k++, p->values += 16)
    s[k] = _mm512_fmadd_ps(_mm512_loadu_ps(p->values), sc_pick(_mm512_srli_epi32(i, (unsigned)k * 8), q), s[k]);
}

SC_STEP(sc_step_mantissa) {
  __m512 q[4];
  sc_window(x + 16 * *p->base++, q);
  for (int k = 0; k < depth; k++, p->values += 16) {
    const __m512i i = sc_keep(p->values);
    s[k] = _mm512_fmadd_ps(_mm512_castsi512_ps(i), sc_pick(i, q), s[k]);
  }
}

SC_STEP(sc_step_lookup_bf16) {
  const __m512i i = sc_columns(p->index8, depth);
  __m512 q[4];
  sc_window(x + 16 * *p->base++, q);
  p->index8 += 16 * depth;
  for (int k = 0; k < depth; k += 2, p->words += 32) {
    const __m512i both = sc_keep(p->words);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
    s[k] = _mm512_fmadd_ps(even, sc_pick(_mm512_srli_epi32(i, (unsigned)k * 8), q), s[k]);
    s[k + 1] = _mm512_fmadd_ps(odd, sc_pick(_mm512_srli_epi32(i, (unsigned)k * 8 + 8), q), s[k + 1]);
  }
}

#define SC_LOOP(name, depth)                                                                             \
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {                                        \
    const __mmask16 m = sc_tail(w->rows - r);                                                            \
    const int32_t n = w->ptr[strip + 1] - w->ptr[strip];                                                 \
    __m512 s[4] = {sc_begin(bias, r, m), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}; \
    for (int32_t g = n / (4 / depth); g > 0; g--)                                                        \
      for (int k = 0; k < 4; k += depth) sc_step_##name(&p, x, depth, s + k);                            \
    if (n % (4 / depth)) sc_step_##name(&p, x, depth, s);                                                \
    sc_end(w, r, m, _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])), y);             \
  }

#define SC_LOOKUP(name)                                                                                               \
  static void SC_NAME(name##_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) { \
    const int64_t g = w->ptr[0], at = g * 16 * w->tile_depth; /* a part of a matrix begins inside it */               \
    sc_stream p = {w->base + g, w->values ? w->values + at : NULL, w->words ? w->words + at : NULL,                   \
                   w->index8 ? w->index8 + at : NULL};                                                                \
    (void)scratch;                                                                                                    \
    if (w->tile_depth == 4) {                                                                                         \
      SC_LOOP(name, 4)                                                                                                \
    } else {                                                                                                          \
      SC_LOOP(name, 2)                                                                                                \
    }                                                                                                                 \
  }
SC_LOOKUP(lookup)
SC_LOOKUP(mantissa)
SC_LOOKUP(lookup_bf16)

/* Two vectors of words a window. */
#define SC_LOOP16(DOT)                                                               \
  int16_t *q = (int16_t *)(void *)scratch;                                           \
  sc_quantise16(x, w->cols, (w->cols + 63) / 64 * 64, q);                            \
  const int16_t *v = w->words + 64 * (int64_t)w->ptr[0];                             \
  const uint16_t *base = w->base + w->ptr[0];                                        \
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {                    \
    __m512 f = _mm512_setzero_ps();                                                  \
    for (int32_t left = w->ptr[strip + 1] - w->ptr[strip], n; left > 0; left -= n) { \
      n = left < SC_FLUSH / 2 ? left : SC_FLUSH / 2;                                 \
      __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;                       \
      for (int32_t k = n / 2; k > 0; k--, base += 2, v += 128) {                     \
        SC_WORDS(DOT, a, b, q + 16 * base[0], v)                                     \
        SC_WORDS(DOT, c, d, q + 16 * base[1], v + 64)                                \
      }                                                                              \
      if (n % 2) {                                                                   \
        SC_WORDS(DOT, a, b, q + 16 * base[0], v)                                     \
        base++;                                                                      \
        v += 64;                                                                     \
      }                                                                              \
      a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));          \
      f = _mm512_add_ps(f, _mm512_cvtepi32_ps(a));                                   \
    }                                                                                \
    sc_scale_rows(w, r, f, 1.0f / SC_STATE16, bias, y);                              \
  }
#define SC_WORDS(DOT, a, b, h, v)                                                \
  {                                                                              \
    const __m512i h0 = _mm512_loadu_si512(h), h1 = _mm512_loadu_si512((h) + 32); \
    const __m512i v0 = sc_keep(v), v1 = sc_keep((v) + 32);                       \
    a = DOT(a, v0, _mm512_permutex2var_epi16(h0, v0, h1));                       \
    b = DOT(b, v1, _mm512_permutex2var_epi16(h0, v1, h1));                       \
  }

/* The dot products as instructions: compilers copy the sum before and after each. */
static inline __m512i sc_dot_words(__m512i sum, __m512i a, __m512i b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

static inline __m512i sc_dot_bytes(__m512i sum, __m512i a, __m512i b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

SC_VNNI static void sc_lookup16_vnni(const sc_matrix *w, const float *x, const float *bias, float *y,
                                     int32_t *scratch) {
  SC_LOOP16(sc_dot_words)
}

static void sc_lookup16_old(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  SC_LOOP16(SC_WORDS_OLD)
}

/* Without VBMI: pairs of bytes are permuted as words, and the wanted byte of each is kept. */
static inline __m512i sc_pick128_old(__m512i h0, __m512i i, __m512i h1) {
  const __m512i low = _mm512_set1_epi16(255), one = _mm512_set1_epi16(1);
  const __m512i even = _mm512_and_si512(i, low), odd = _mm512_srli_epi16(i, 8);
  const __m512i a = _mm512_permutex2var_epi16(h0, _mm512_srli_epi16(even, 1), h1);
  const __m512i b = _mm512_permutex2var_epi16(h0, _mm512_srli_epi16(odd, 1), h1);
  const __m512i p = _mm512_and_si512(_mm512_srlv_epi16(a, _mm512_slli_epi16(_mm512_and_si512(even, one), 3)), low);
  const __m512i n = _mm512_srlv_epi16(b, _mm512_slli_epi16(_mm512_and_si512(odd, one), 3));
  return _mm512_or_si512(p, _mm512_slli_epi16(n, 8));
}

#define SC_LOOP8(DOT, PICK)                                                                \
  uint8_t *q = (uint8_t *)(void *)scratch;                                                 \
  sc_quantise8(x, w->cols, (w->cols + 127) / 128 * 128, q);                                \
  const int8_t *v = w->bytes + 128 * (int64_t)w->ptr[0];                                   \
  const uint8_t *ix = w->index8 + 128 * (int64_t)w->ptr[0];                                \
  const uint16_t *base = w->base + w->ptr[0];                                              \
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {                          \
    __m512i a = _mm512_setzero_si512(), b = a;                                             \
    for (int32_t g = w->ptr[strip + 1] - w->ptr[strip]; g > 0; g--, v += 128, ix += 128) { \
      const uint8_t *h = q + 64 * *base++;                                                 \
      const __m512i h0 = _mm512_loadu_si512(h), h1 = _mm512_loadu_si512(h + 64);           \
      a = DOT(a, PICK(h0, _mm512_loadu_si512(ix), h1), _mm512_loadu_si512(v));             \
      b = DOT(b, PICK(h0, _mm512_loadu_si512(ix + 64), h1), _mm512_loadu_si512(v + 64));   \
    }                                                                                      \
    SC_FINISH8(r, _mm512_add_epi32(a, b));                                                 \
  }

SC_VBMI static void sc_lookup8_vbmi(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  SC_LOOP8(sc_dot_bytes, _mm512_permutex2var_epi8)
}

static void sc_lookup8_old(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  SC_LOOP8(sc_bytes_old, sc_pick128_old)
}

static void SC_NAME(lookup16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  if (SC_HAS("avx512vnni"))
    sc_lookup16_vnni(w, x, bias, y, scratch);
  else
    sc_lookup16_old(w, x, bias, y, scratch);
}

static void SC_NAME(lookup8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  if (SC_HAS("avx512vnni") && SC_HAS("avx512vbmi"))
    sc_lookup8_vbmi(w, x, bias, y, scratch);
  else
    sc_lookup8_old(w, x, bias, y, scratch);
}

#endif
