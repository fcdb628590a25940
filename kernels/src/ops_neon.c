/* NEON (64-bit Arm). Lookups: slots of 16 rows, each with a window of 32 columns. */
#include <arm_neon.h>

#define SC_ISA "neon"
#define SC_NAME(x) sc_f32_##x##__neon
#define SC_VL 4
#define SC_VEC_FMA(a, b, c) vfmaq_f32((c), (a), (b))
#define SC_OWN_MV(X) \
  X(dense)           \
  X(csr) X(block16x1) X(block8x1) X(block8x4) X(block4x4) X(lookup) X(mantissa) X(lookup16) X(dense16) X(dense8)
#define SC_OWN_MVN SC_NAME(dense_mvn)
#define SC_TILES(X) X(lookup, 16, 32, 1, 1) X(mantissa, 16, 32, 1, 1) X(lookup16, 16, 32, 1, 1)
#include "generic.h"
#include "integer.h"
#include "pointwise.h"

/* The rows of y for 4 of the matrix, from r on, are s + bias, as far as there are rows. */
static inline void sc_finish(const sc_matrix *w, int64_t r, float32x4_t s, const float *bias, float *y) {
  if (r + 4 <= w->rows && !w->order) {
    vst1q_f32(y + r, bias ? vaddq_f32(s, vld1q_f32(bias + r)) : s);
    return;
  }
  float t[4];
  vst1q_f32(t, s);
  for (int64_t i = 0; i < 4 && r + i < w->rows; i++) y[sc_place(w, r + i)] = t[i] + (bias ? bias[r + i] : 0.0f);
}

static inline float32x4_t sc_sum4(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
  return vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d));
}

/* One column of 32 rows times one input. */
#define SC_COLUMN(c, TIMES)                              \
  for (int i = 0; i < 4; i++) {                          \
    s[i] = TIMES(s[i], vld1q_f32(p + 16 * (c) + 4 * i)); \
    t[i] = TIMES(t[i], vld1q_f32(q + 16 * (c) + 4 * i)); \
  }
#define SC_TIMES0(sum, v) vfmaq_laneq_f32(sum, v, b, 0)
#define SC_TIMES1(sum, v) vfmaq_laneq_f32(sum, v, b, 1)
#define SC_TIMES2(sum, v) vfmaq_laneq_f32(sum, v, b, 2)
#define SC_TIMES3(sum, v) vfmaq_laneq_f32(sum, v, b, 3)
#define SC_TIMES_ONE(sum, v) vfmaq_n_f32(sum, v, x[c])

static void SC_NAME(dense_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t cols = w->cols;
  for (int64_t r = 0; r < w->rows; r += 32) {
    const int64_t left = w->rows - r;
    const float *p = w->values + r * cols, *q = left > 16 ? p + 16 * cols : p;
    float32x4_t s[4], t[4];
    for (int i = 0; i < 4; i++) s[i] = t[i] = vdupq_n_f32(0.0f);
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      const float32x4_t b = vld1q_f32(x + c);
      SC_COLUMN(c, SC_TIMES0)
      SC_COLUMN(c + 1, SC_TIMES1)
      SC_COLUMN(c + 2, SC_TIMES2)
      SC_COLUMN(c + 3, SC_TIMES3)
    }
    for (; c < cols; c++) SC_COLUMN(c, SC_TIMES_ONE)
    for (int i = 0; i < 4; i++) {
      if (left > 4 * i) sc_finish(w, r + 4 * i, s[i], bias, y);
      if (left > 16 + 4 * i) sc_finish(w, r + 16 + 4 * i, t[i], bias, y);
    }
  }
}

/* One strip times four vectors. */
static void SC_NAME(dense_mvn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                               int64_t ldy) {
  const int64_t cols = w->cols;
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    const float *from = x + k * ldx;
    for (int64_t r = 0; r < w->rows; r += 16) {
      const float *p = w->values + r * cols;
      float32x4_t s[4][4];
      for (int i = 0; i < 16; i++) s[i / 4][i % 4] = vdupq_n_f32(0.0f);
      for (int64_t c = 0; c < cols; c++)
        for (int j = 0; j < 4; j++) {
          const float b = from[j * ldx + c];
          for (int i = 0; i < 4; i++) s[j][i] = vfmaq_n_f32(s[j][i], vld1q_f32(p + 16 * c + 4 * i), b);
        }
      for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4 && r + 4 * i < w->rows; i++) sc_finish(w, r + 4 * i, s[j][i], bias, y + (k + j) * ldy);
    }
  }
  for (; k < n; k++) SC_NAME(dense_mv)(w, x + k * ldx, bias, y + k * ldy, NULL);
}

static void SC_NAME(csr_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r++) {
    float32x4_t s = vdupq_n_f32(0.0f), t = s;
    int32_t k = w->ptr[r];
    const int32_t end = w->ptr[r + 1], *ix = w->index32;
    for (; k + 8 <= end; k += 8) {
      const float32x4_t a = {x[ix[k]], x[ix[k + 1]], x[ix[k + 2]], x[ix[k + 3]]};
      const float32x4_t b = {x[ix[k + 4]], x[ix[k + 5]], x[ix[k + 6]], x[ix[k + 7]]};
      s = vfmaq_f32(s, vld1q_f32(w->values + k), a);
      t = vfmaq_f32(t, vld1q_f32(w->values + k + 4), b);
    }
    float sum = vaddvq_f32(vaddq_f32(s, t));
    for (; k < end; k++) sum += w->values[k] * x[ix[k]];
    y[r] = sum + (bias ? bias[r] : 0.0f);
  }
}

/* Each column of a block: an input times `height` consecutive rows. Four sets of sums hide the latency: one per column
 * of a block of four, else one per block.
 */
SC_INLINE void sc_blocks(const sc_matrix *w, const float *x, const float *bias, float *y, const int height,
                         const int width) {
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    float32x4_t s[4][4];
    for (int i = 0; i < 16; i++) s[i / 4][i % 4] = vdupq_n_f32(0.0f);
    const int32_t end = w->ptr[strip + 1], *ix = w->index32, at_once = 4 / width;
    int32_t k = w->ptr[strip];
    const float *v = w->values + (int64_t)k * height * width;
    for (; k + at_once <= end; k += at_once)
      for (int j = 0; j < 4; j++, v += height)
        for (int i = 0; i < height / 4; i++)
          s[j][i] = vfmaq_n_f32(s[j][i], vld1q_f32(v + 4 * i), x[ix[k + j / width] + j % width]);
    for (; k < end; k++, v += height)
      for (int i = 0; i < height / 4; i++) s[0][i] = vfmaq_n_f32(s[0][i], vld1q_f32(v + 4 * i), x[ix[k]]);
    for (int i = 0; i < height / 4 && r + 4 * i < w->rows; i++)
      sc_finish(w, r + 4 * i, sc_sum4(s[0][i], s[1][i], s[2][i], s[3][i]), bias, y);
  }
}

#define X(name, height, width)                                                                                        \
  static void SC_NAME(name##_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) { \
    (void)scratch;                                                                                                    \
    sc_blocks(w, x, bias, y, height, width);                                                                          \
  }
SC_BLOCKS(X)
#undef X

/* A table lookup takes bytes, so the inputs are taken apart: all lowest bytes, then the next, up to the highest. Four
 * lookups of 16 bytes then fetch 16 inputs, with one byte of index each. Returns the distance between the planes.
 */
static inline int64_t sc_planes(const float *x, int64_t cols, uint8_t *planes) {
  const int64_t wide = (cols + SC_PAD - 1) / SC_PAD * SC_PAD;
  for (int64_t c = 0; c < wide; c += 16) {
    const uint8x16x4_t p = vld4q_u8((const uint8_t *)(const void *)(x + c));
    for (int i = 0; i < 4; i++) vst1q_u8(planes + i * wide + c, p.val[i]);
  }
  return wide;
}

/* One byte of each of the 16 inputs that `index` chooses from 32. */
static inline uint8x16_t sc_pick32(const uint8_t *plane, uint8x16_t index) {
  const uint8x16x2_t table = {{vld1q_u8(plane), vld1q_u8(plane + 16)}};
  return vqtbl2q_u8(table, index);
}

/* s[i] += v[i] times the inputs that `index` chooses. */
static inline void sc_slot(const uint8_t *plane, int64_t wide, uint8x16_t index, const float32x4_t v[4],
                           float32x4_t s[4]) {
  const uint8x16_t a = sc_pick32(plane, index), b = sc_pick32(plane + wide, index);
  const uint8x16_t c = sc_pick32(plane + 2 * wide, index), d = sc_pick32(plane + 3 * wide, index);
  for (int half = 0; half < 2; half++) {
    const uint16x8_t lower = vreinterpretq_u16_u8(half ? vzip2q_u8(a, b) : vzip1q_u8(a, b));
    const uint16x8_t upper = vreinterpretq_u16_u8(half ? vzip2q_u8(c, d) : vzip1q_u8(c, d));
    s[2 * half] = vfmaq_f32(s[2 * half], v[2 * half], vreinterpretq_f32_u16(vzip1q_u16(lower, upper)));
    s[2 * half + 1] = vfmaq_f32(s[2 * half + 1], v[2 * half + 1], vreinterpretq_f32_u16(vzip2q_u16(lower, upper)));
  }
}

/* The lowest five bits of 16 weights. */
static inline uint8x16_t sc_hidden(const float32x4_t v[4]) {
  const uint16x8_t a = vuzp1q_u16(vreinterpretq_u16_f32(v[0]), vreinterpretq_u16_f32(v[1]));
  const uint16x8_t b = vuzp1q_u16(vreinterpretq_u16_f32(v[2]), vreinterpretq_u16_f32(v[3]));
  return vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b)), vdupq_n_u8(31));
}

SC_INLINE void sc_windows(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch,
                          const int hidden) {
  uint8_t *planes = (uint8_t *)(void *)scratch;
  const int64_t wide = sc_planes(x, w->cols, planes);
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    float32x4_t s[4], v[4];
    for (int i = 0; i < 4; i++) s[i] = vdupq_n_f32(0.0f);
    for (int64_t k = w->ptr[strip]; k < w->ptr[strip + 1]; k++) {
      for (int i = 0; i < 4; i++) v[i] = vld1q_f32(w->values + 16 * k + 4 * i);
      sc_slot(planes + w->base[k], wide, hidden ? sc_hidden(v) : vld1q_u8(w->index8 + 16 * k), v, s);
    }
    for (int i = 0; i < 4 && r + 4 * i < w->rows; i++) sc_finish(w, r + 4 * i, s[i], bias, y);
  }
}

static void SC_NAME(lookup_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  sc_windows(w, x, bias, y, scratch, 0);
}

static void SC_NAME(mantissa_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  sc_windows(w, x, bias, y, scratch, 1);
}

#include "integer_neon.h"

SC_DEFINE_OPS(sc_ops_neon)
