/* Integer products for NEON. The state stays signed, so that dense bytes need no correction; they use the dot product
 * instruction where the processor has it.
 */
#ifndef SC_INTEGER_NEON_H
#define SC_INTEGER_NEON_H

#ifdef __linux__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#ifdef __clang__
#define SC_DOT __attribute__((target("dotprod")))
#else
#define SC_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

static inline int sc_has_dot(void) {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return 1; /* every Apple processor with a 64-bit desktop system has it */
#else
  return 0;
#endif
}

/* 16 states as integers: rounded to nearest, clipped; `left` of them exist, the others are zero. */
static inline void sc_quantise(const float *x, int64_t left, float top, int32x4_t q[4]) {
  float copy[16] = {0};
  if (left < 16) {
    for (int64_t i = 0; i < left; i++) copy[i] = x[i];
    x = copy;
  }
  const float32x4_t limit = vdupq_n_f32(top);
  for (int i = 0; i < 4; i++) {
    const float32x4_t v = vminq_f32(vmulq_f32(vld1q_f32(x + 4 * i), limit), limit);
    q[i] = vcvtnq_s32_f32(vmaxq_f32(v, vnegq_f32(limit)));
  }
}

static inline int16x8_t sc_narrow(int32x4_t a, int32x4_t b) { return vcombine_s16(vmovn_s32(a), vmovn_s32(b)); }

static inline void sc_scale_rows(const sc_matrix *w, int64_t r, const float32x4_t sum[4], float unit, const float *bias,
                                 float *y) {
  for (int i = 0; i < 4 && r + 4 * i < w->rows; i++) {
    float scale[4] = {0};
    for (int64_t k = 0; k < 4 && r + 4 * i + k < w->rows; k++) scale[k] = w->scale[r + 4 * i + k] * unit;
    sc_finish(w, r + 4 * i, vmulq_f32(sum[i], vld1q_f32(scale)), bias, y);
  }
}

/* s holds two partial sums for each of 16 rows; f gets the whole ones. */
static inline void sc_sum_pairs(const int32x4_t s[8], float32x4_t f[4]) {
  for (int i = 0; i < 4; i++) f[i] = vcvtq_f32_s32(vpaddq_s32(s[2 * i], s[2 * i + 1]));
}

/* Words of two columns of 16 rows times x: one pair of states, or one pair for each row. */
static inline void sc_add_words(const int16_t *v, const int16x8_t x[4], int32x4_t s[8]) {
  for (int i = 0; i < 4; i++) {
    const int16x8_t a = vld1q_s16(v + 8 * i);
    s[2 * i] = vmlal_s16(s[2 * i], vget_low_s16(a), vget_low_s16(x[i]));
    s[2 * i + 1] = vmlal_high_s16(s[2 * i + 1], a, x[i]);
  }
}

/* As sc_planes: first the lower bytes of all states, then the upper ones. */
static inline int64_t sc_planes16(const float *x, int64_t cols, uint8_t *planes) {
  const int64_t wide = (cols + SC_PAD - 1) / SC_PAD * SC_PAD;
  for (int64_t c = 0; c < wide; c += 16) {
    int32x4_t q[4];
    sc_quantise(x + c, cols - c, SC_STATE16, q);
    const uint8x16_t a = vreinterpretq_u8_s16(sc_narrow(q[0], q[1])), b = vreinterpretq_u8_s16(sc_narrow(q[2], q[3]));
    vst1q_u8(planes + c, vuzp1q_u8(a, b));
    vst1q_u8(planes + wide + c, vuzp2q_u8(a, b));
  }
  return wide;
}

static void SC_NAME(lookup16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  uint8_t *planes = (uint8_t *)(void *)scratch;
  const int64_t wide = sc_planes16(x, w->cols, planes);
  const uint8x16_t mask = vdupq_n_u8(31);
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    float32x4_t f[4];
    for (int i = 0; i < 4; i++) f[i] = vdupq_n_f32(0.0f);
    for (int64_t from = w->ptr[strip]; from < w->ptr[strip + 1]; from += SC_FLUSH) {
      const int64_t end = w->ptr[strip + 1] - from < SC_FLUSH ? w->ptr[strip + 1] : from + SC_FLUSH;
      int32x4_t s[8];
      for (int i = 0; i < 8; i++) s[i] = vdupq_n_s32(0);
      for (int64_t k = from; k < end; k++) {
        const int16_t *v = w->words + 32 * k;
        const uint8_t *p = planes + w->base[k];
        int16x8_t inputs[4];
        for (int half = 0; half < 2; half++) {
          const uint8x16_t a = vreinterpretq_u8_s16(vld1q_s16(v + 16 * half));
          const uint8x16_t b = vreinterpretq_u8_s16(vld1q_s16(v + 16 * half + 8));
          const uint8x16_t index = vandq_u8(vuzp1q_u8(a, b), mask);
          const uint8x16_t lo = sc_pick32(p, index), hi = sc_pick32(p + wide, index);
          inputs[2 * half] = vreinterpretq_s16_u8(vzip1q_u8(lo, hi));
          inputs[2 * half + 1] = vreinterpretq_s16_u8(vzip2q_u8(lo, hi));
        }
        sc_add_words(v, inputs, s);
      }
      float32x4_t part[4];
      sc_sum_pairs(s, part);
      for (int i = 0; i < 4; i++) f[i] = vaddq_f32(f[i], part[i]);
    }
    sc_scale_rows(w, r, f, 1.0f / SC_STATE16, bias, y);
  }
}

static void SC_NAME(dense16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int16_t *state = (int16_t *)(void *)scratch;
  const int64_t pairs = (w->cols + 1) / 2;
  for (int64_t c = 0; c < w->cols; c += 16) {
    int32x4_t q[4];
    sc_quantise(x + c, w->cols - c, SC_STATE16, q);
    vst1q_s16(state + c, sc_narrow(q[0], q[1]));
    vst1q_s16(state + c + 8, sc_narrow(q[2], q[3]));
  }
  for (int64_t r = 0; r < w->rows; r += 16) {
    const int16_t *v = w->words + r * pairs * 2;
    int32x4_t s[8];
    for (int i = 0; i < 8; i++) s[i] = vdupq_n_s32(0);
    for (int64_t p = 0; p < pairs; p++) {
      int32_t bits;
      memcpy(&bits, state + 2 * p, sizeof bits);
      const int16x8_t pair = vreinterpretq_s16_s32(vdupq_n_s32(bits)), inputs[4] = {pair, pair, pair, pair};
      sc_add_words(v + 32 * p, inputs, s);
    }
    float32x4_t f[4];
    sc_sum_pairs(s, f);
    sc_scale_rows(w, r, f, 1.0f / SC_STATE16, bias, y);
  }
}

static inline const int8_t *sc_state8(const float *x, int64_t cols, int32_t *scratch) {
  int8_t *state = (int8_t *)(void *)scratch;
  for (int64_t c = 0; c < cols; c += 16) {
    int32x4_t q[4];
    sc_quantise(x + c, cols - c, SC_STATE8, q);
    vst1q_s8(state + c, vcombine_s8(vmovn_s16(sc_narrow(q[0], q[1])), vmovn_s16(sc_narrow(q[2], q[3]))));
  }
  return state;
}

SC_DOT static void sc_dense8_dot(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  const int8_t *state = sc_state8(x, w->cols, scratch);
  const int64_t fours = (w->cols + 3) / 4;
  for (int64_t r = 0; r < w->rows; r += 16) {
    const int8_t *v = w->bytes + r * fours * 4;
    int32x4_t s[2][4];
    for (int i = 0; i < 8; i++) s[i / 4][i % 4] = vdupq_n_s32(0);
    for (int64_t p = 0; p < fours; p++) {
      int32_t bits;
      memcpy(&bits, state + 4 * p, sizeof bits);
      const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(bits));
      for (int i = 0; i < 4; i++) s[p % 2][i] = vdotq_s32(s[p % 2][i], vld1q_s8(v + 64 * p + 16 * i), four);
    }
    float32x4_t f[4];
    for (int i = 0; i < 4; i++) f[i] = vcvtq_f32_s32(vaddq_s32(s[0][i], s[1][i]));
    sc_scale_rows(w, r, f, 1.0f / SC_STATE8, bias, y);
  }
}

static void sc_dense8_plain(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  const int8_t *state = sc_state8(x, w->cols, scratch);
  const int64_t fours = (w->cols + 3) / 4;
  for (int64_t r = 0; r < w->rows; r += 16) {
    const int8_t *v = w->bytes + r * fours * 4;
    int32x4_t s[8];
    for (int i = 0; i < 8; i++) s[i] = vdupq_n_s32(0);
    for (int64_t p = 0; p < fours; p++) {
      int32_t bits;
      memcpy(&bits, state + 4 * p, sizeof bits);
      const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(bits));
      for (int i = 0; i < 4; i++) {
        const int8x16_t a = vld1q_s8(v + 64 * p + 16 * i);
        s[2 * i] = vpadalq_s16(s[2 * i], vmull_s8(vget_low_s8(a), vget_low_s8(four)));
        s[2 * i + 1] = vpadalq_s16(s[2 * i + 1], vmull_high_s8(a, four));
      }
    }
    float32x4_t f[4];
    sc_sum_pairs(s, f);
    sc_scale_rows(w, r, f, 1.0f / SC_STATE8, bias, y);
  }
}

static void SC_NAME(dense8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  if (sc_has_dot())
    sc_dense8_dot(w, x, bias, y, scratch);
  else
    sc_dense8_plain(w, x, bias, y, scratch);
}

#endif
