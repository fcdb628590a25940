/* Kernels in plain C for any instruction set, and the table of one: a format runs on its plain kernel unless the
 * including file has a better one and says so (see SC_DEFINE_OPS). `mm` is written with GCC vector types of SC_VL
 * floats, which every target lowers to what it has.
 */
#ifndef SC_GENERIC_H
#define SC_GENERIC_H

#include <string.h>

#include "../include/sparsecirc.h"

typedef float sc_vec __attribute__((vector_size(SC_VL * 4)));

/* The name of a plain kernel; a file that has its own leaves it unused. */
#define SC_PLAIN(name) __attribute__((unused)) SC_NAME(plain_##name)

static inline sc_vec sc_load(const float *p) {
  sc_vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline void sc_store(float *p, sc_vec v) { memcpy(p, &v, sizeof v); }

static inline sc_vec sc_splat(float x) {
  sc_vec v = {0};
  return v + x;
}

/* a * b + c; the products of a batch are summed in the order of the columns. */
#ifdef SC_VEC_FMA
static inline sc_vec sc_madd(float a, sc_vec b, sc_vec c) { return SC_VEC_FMA(sc_splat(a), b, c); }
#else
static inline sc_vec sc_madd(float a, sc_vec b, sc_vec c) { return sc_splat(a) * b + c; }
#endif

static void SC_PLAIN(csr_mm)(const sc_matrix *w, const float *x, const float *bias, float *y, int64_t batch) {
  for (int64_t r = 0; r < w->rows; r++) {
    const int32_t from = w->ptr[r], to = w->ptr[r + 1];
    const float b = bias ? bias[r] : 0.0f;
    int64_t k = 0;
    for (; k + 4 * SC_VL <= batch; k += 4 * SC_VL) {
      sc_vec s0 = sc_splat(b), s1 = s0, s2 = s0, s3 = s0;
      for (int32_t i = from; i < to; i++) {
        const float *q = x + (int64_t)w->index32[i] * batch + k;
        const float v = w->values[i];
        s0 = sc_madd(v, sc_load(q), s0);
        s1 = sc_madd(v, sc_load(q + SC_VL), s1);
        s2 = sc_madd(v, sc_load(q + 2 * SC_VL), s2);
        s3 = sc_madd(v, sc_load(q + 3 * SC_VL), s3);
      }
      float *o = y + r * batch + k;
      sc_store(o, s0);
      sc_store(o + SC_VL, s1);
      sc_store(o + 2 * SC_VL, s2);
      sc_store(o + 3 * SC_VL, s3);
    }
    for (; k < batch; k += SC_VL) {
      sc_vec s = sc_splat(b), u = sc_splat(0.0f);
      int32_t i = from;
      for (; i + 2 <= to; i += 2) {
        s = sc_madd(w->values[i], sc_load(x + (int64_t)w->index32[i] * batch + k), s);
        u = sc_madd(w->values[i + 1], sc_load(x + (int64_t)w->index32[i + 1] * batch + k), u);
      }
      if (i < to) s = sc_madd(w->values[i], sc_load(x + (int64_t)w->index32[i] * batch + k), s);
      sc_store(y + r * batch + k, s + u);
    }
  }
}

/* Rows of one strip times SC_MM vectors of the batch; 4 rows at a time share each load of x. */
static void SC_PLAIN(dense_mm)(const sc_matrix *w, const float *x, const float *bias, float *y, int64_t batch) {
  for (int64_t r = 0; r < w->rows; r += 4) {
    const float *panel = w->values + (r / 16) * w->cols * 16 + r % 16;
    const int64_t n = w->rows - r < 4 ? w->rows - r : 4;
    float b[4] = {0};
    for (int64_t i = 0; bias && i < n; i++) b[i] = bias[r + i];
    int64_t k = 0;
    for (; k + 2 * SC_VL <= batch; k += 2 * SC_VL) {
      sc_vec s[4][2];
      for (int i = 0; i < 4; i++) s[i][0] = s[i][1] = sc_splat(b[i]);
      for (int64_t c = 0; c < w->cols; c++) {
        const sc_vec x0 = sc_load(x + c * batch + k), x1 = sc_load(x + c * batch + k + SC_VL);
        for (int i = 0; i < 4; i++) {
          s[i][0] = sc_madd(panel[c * 16 + i], x0, s[i][0]);
          s[i][1] = sc_madd(panel[c * 16 + i], x1, s[i][1]);
        }
      }
      for (int64_t i = 0; i < n; i++) {
        sc_store(y + (r + i) * batch + k, s[i][0]);
        sc_store(y + (r + i) * batch + k + SC_VL, s[i][1]);
      }
    }
    for (; k < batch; k += SC_VL) {
      sc_vec s[4];
      for (int i = 0; i < 4; i++) s[i] = sc_splat(b[i]);
      for (int64_t c = 0; c < w->cols; c++) {
        const sc_vec x0 = sc_load(x + c * batch + k);
        for (int i = 0; i < 4; i++) s[i] = sc_madd(panel[c * 16 + i], x0, s[i]);
      }
      for (int64_t i = 0; i < n; i++) sc_store(y + (r + i) * batch + k, s[i]);
    }
  }
}

/* Adds the columns of the non-zero inputs: work falls with density times activity. A NaN input counts as active. */
static void SC_PLAIN(columns_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  const int64_t rows = w->rows;
  if (bias)
    memcpy(y, bias, (size_t)rows * sizeof *y);
  else
    memset(y, 0, (size_t)rows * sizeof *y);
  int64_t n = 0;
  for (int64_t c = 0; c < w->cols; c++) {
    scratch[n] = (int32_t)c;
    n += x[c] != 0.0f;
  }
  for (int64_t k = 0; k < n; k++) {
    const int64_t c = scratch[k];
    const float v = x[c];
    if (w->ptr) {
      for (int32_t i = w->ptr[c]; i < w->ptr[c + 1]; i++) y[w->index32[i]] += v * w->values[i];
    } else {
      const float *q = w->values + c * rows;
      for (int64_t r = 0; r < rows; r++) y[r] += v * q[r];
    }
  }
}

static void SC_PLAIN(dense_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r += 16) {
    const float *panel = w->values + r * w->cols;
    const int64_t n = w->rows - r < 16 ? w->rows - r : 16;
    float s[16] = {0};
    for (int64_t c = 0; c < w->cols; c++)
      for (int i = 0; i < 16; i++) s[i] += panel[c * 16 + i] * x[c];
    for (int64_t i = 0; i < n; i++) y[r + i] = s[i] + (bias ? bias[r + i] : 0.0f);
  }
}

static void SC_PLAIN(csr_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r++) {
    float s = 0.0f;
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) s += w->values[i] * x[w->index32[i]];
    y[r] = s + (bias ? bias[r] : 0.0f);
  }
}

static inline __attribute__((always_inline)) void SC_NAME(blocks)(const sc_matrix *w, const float *x, const float *bias,
                                                                  float *y, const int64_t height, const int64_t width) {
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    const int64_t n = w->rows - r < height ? w->rows - r : height;
    float s[16] = {0};
    const float *v = w->values + w->ptr[strip] * height * width;
    for (int32_t k = w->ptr[strip]; k < w->ptr[strip + 1]; k++, v += height * width)
      for (int64_t c = 0; c < width; c++)
        for (int64_t i = 0; i < height; i++) s[i] += v[c * height + i] * x[w->index32[k] + c];
    for (int64_t i = 0; i < n; i++) y[r + i] = s[i] + (bias ? bias[r + i] : 0.0f);
  }
}

#define X(name, height, width)                                                                                         \
  static void SC_PLAIN(name##_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) { \
    (void)scratch;                                                                                                     \
    SC_NAME(blocks)(w, x, bias, y, height, width);                                                                     \
  }
SC_BLOCKS(X)
#undef X

/* Adds one slot: a weight for each row of a tile that begins at x. The column is in `ix` or in the weight itself. */
static inline void SC_NAME(add_slot)(const sc_matrix *w, const float *v, const uint8_t *ix, const float *x, float *s) {
  const uint32_t mask = (uint32_t)w->tile_cols - 1;
  for (int64_t i = 0; i < w->tile_rows; i++) {
    uint32_t bits;
    memcpy(&bits, &v[i], sizeof bits);
    s[i] += v[i] * x[ix ? ix[i] : bits & mask];
  }
}

/* Both lookup formats with tiles of any shape, side by side or one per slot; the vector tables insist on theirs. */
static void SC_PLAIN(lookup_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t height = w->tile_rows, tiles = w->tile_step ? 0 : (w->cols + w->tile_cols - 1) / w->tile_cols;
  const int hidden = w->format == SC_FMT_mantissa;
  const uint8_t *count = w->count;
  int64_t at = 0; /* slots so far */
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    const int64_t n = w->rows - r < height ? w->rows - r : height;
    float s[16] = {0};
    for (int64_t t = 0; t < tiles; t++)
      for (int k = *count++; k > 0; k--, at++)
        SC_NAME(add_slot)(w, w->values + at * height, hidden ? NULL : w->index8 + at * height, x + t * w->tile_cols, s);
    for (; w->tile_step && at < w->ptr[strip + 1]; at++) SC_NAME(add_slot)
    (w, w->values + at * height, hidden ? NULL : w->index8 + at * height, x + w->base[at] * w->tile_step, s);
    for (int64_t i = 0; i < n; i++) y[r + i] = s[i] + (bias ? bias[r + i] : 0.0f);
  }
}

static void SC_PLAIN(mantissa_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  SC_NAME(plain_lookup_mv)(w, x, bias, y, scratch);
}

static void SC_PLAIN(dense_mvn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                                int64_t ldy) {
  for (int64_t k = 0; k < n; k++) SC_NAME(plain_dense_mv)(w, x + k * ldx, bias, y + k * ldy, NULL);
}

/* The table of one instruction set. The including file defines beforehand, the last three where it has any:
 *
 *   SC_ISA                       its name, a string
 *   SC_OWN_MV(X), SC_OWN_MM(X)   its kernels, as X(dense) X(csr) ...: functions SC_NAME(dense_mv), ...
 *   SC_OWN_MVN                   its SC_NAME(dense_mvn)
 *   SC_TILES(X)                  the only tile that a kernel of it reads, as X(lookup, 16, 32, 0) ...
 */
#ifndef SC_OWN_MV
#define SC_OWN_MV(X)
#endif
#ifndef SC_OWN_MM
#define SC_OWN_MM(X)
#endif
#ifndef SC_TILES
#define SC_TILES(X)
#endif
#ifndef SC_OWN_MVN
#define SC_OWN_MVN SC_NAME(plain_dense_mvn)
#endif
#pragma GCC diagnostic ignored "-Woverride-init" /* the own kernels of a table replace the plain ones */
#define SC_MM_0(name) NULL
#define SC_MM_1(name) SC_NAME(plain_##name##_mm)
#define SC_DEFINE_OPS(symbol)                                     \
  const sc_ops symbol = {                                         \
      .isa = SC_ISA,                                              \
      .vector = SC_VL,                                            \
      .mv = {SC_FORMATS(SC_ENTRY_MV) SC_OWN_MV(SC_ENTRY_OWN_MV)}, \
      .mm = {SC_FORMATS(SC_ENTRY_MM) SC_OWN_MM(SC_ENTRY_OWN_MM)}, \
      .mvn_dense = SC_OWN_MVN,                                    \
      .point = {SC_CELLS(SC_ENTRY_POINT)},                        \
      .exp_n = SC_NAME(exp_n),                                    \
      .tanh_n = SC_NAME(tanh_n),                                  \
      .sigmoid_n = SC_NAME(sigmoid_n),                            \
      .tile = {{0, 0, 0, NULL}, SC_TILES(SC_ENTRY_TILE)},         \
  };
#define SC_ENTRY_MV(name, has_mm) [SC_FMT_##name] = SC_NAME(plain_##name##_mv),
#define SC_ENTRY_MM(name, has_mm) [SC_FMT_##name] = SC_MM_##has_mm(name),
#define SC_ENTRY_OWN_MV(name) [SC_FMT_##name] = SC_NAME(name##_mv),
#define SC_ENTRY_OWN_MM(name) [SC_FMT_##name] = SC_NAME(name##_mm),
#define SC_ENTRY_POINT(name, gates, states, spiking) [SC_CELL_##name] = SC_NAME(point_##name),
#define SC_ENTRY_TILE(name, height, width, step) \
  [SC_FMT_##name] = {height, width, step, SC_ISA " reads tiles of " #height " x " #width ", step " #step},

#endif
