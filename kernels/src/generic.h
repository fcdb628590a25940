/* Kernels in plain C for any instruction set, and the table of one: a format runs on its plain kernel unless the
 * including file has a better one and says so (see SC_DEFINE_OPS). `mm_rows` is written with GCC vector types of SC_VL
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

/* S[j] += values[from .. to) * the rows of x that INDEX names, vector by vector; x starts at a part of the batch. Each
 * sum runs over ascending columns, so that a result does not depend on what else is in its batch.
 */
#define SC_GATHER_ROWS(INDEX, S, VECTORS)                                                    \
  for (int32_t i = from; i < to; i++) {                                                      \
    const float *q = x + (int64_t)(INDEX)[i] * batch;                                        \
    const float v = values[i];                                                               \
    for (int j = 0; j < (VECTORS); j++) (S)[j] = sc_madd(v, sc_load(q + j * SC_VL), (S)[j]); \
  }

/* One part of the batch, VECTORS wide from k on, with the sums of row r read from and written to o. */
#define SC_CSR_PART(VECTORS)                                                    \
  for (int64_t r = first; r < last; r++) {                                      \
    const float *x = x0 + k;                                                    \
    const int32_t from = w->ptr[r], to = w->ptr[r + 1];                         \
    float *o = y + (r - first) * batch + k;                                     \
    sc_vec s[VECTORS];                                                          \
    for (int j = 0; j < (VECTORS); j++) s[j] = sc_splat(bias ? bias[r] : 0.0f); \
    SC_GATHER_ROWS(w->index32, s, VECTORS)                                      \
    for (int j = 0; j < (VECTORS); j++) sc_store(o + j * SC_VL, s[j]);          \
  }

static void SC_PLAIN(csr_mm_rows)(const sc_matrix *w, const float *x0, const float *bias, float *y, int64_t batch,
                                  int64_t first, int64_t last) {
  const float *values = w->values;
  int64_t k = 0;
  for (; k + 4 * SC_VL <= batch; k += 4 * SC_VL) SC_CSR_PART(4)
  for (; k + 2 * SC_VL <= batch; k += 2 * SC_VL) SC_CSR_PART(2)
  for (; k < batch; k += SC_VL) SC_CSR_PART(1)
}
#undef SC_CSR_PART

#define SC_TILED_PART(VECTORS)                                             \
  for (int64_t block = first / height; block * height < last; block++) {   \
    const int64_t top = block * height, begin = top < first ? first : top; \
    const int64_t end = top + height < last ? top + height : last;         \
    for (int64_t t = 0; t < tiles; t++) {                                  \
      const float *x = x0 + t * w->tile_cols * batch + k;                  \
      const int32_t *ptr = w->ptr + (block * tiles + t) * height - top;    \
      for (int64_t r = begin; r < end; r++) {                              \
        const int32_t from = ptr[r], to = ptr[r + 1];                      \
        float *o = y + (r - first) * batch + k;                            \
        sc_vec s[VECTORS];                                                 \
        for (int j = 0; j < (VECTORS); j++) s[j] = sc_load(o + j * SC_VL); \
        SC_GATHER_ROWS(w->index16, s, VECTORS)                             \
        for (int j = 0; j < (VECTORS); j++) sc_store(o + j * SC_VL, s[j]); \
      }                                                                    \
    }                                                                      \
  }

/* Blocks of rows, in each tile by tile of columns, so that the part of x that a tile reads stays in the first cache. */
static void SC_PLAIN(tiled_csr_mm_rows)(const sc_matrix *w, const float *x0, const float *bias, float *y, int64_t batch,
                                        int64_t first, int64_t last) {
  const int64_t height = w->tile_rows, tiles = (w->cols + w->tile_cols - 1) / w->tile_cols;
  const float *values = w->values;
  int64_t k = 0;
  for (int64_t r = first; r < last; r++)
    for (int64_t j = 0; j < batch; j += SC_VL) sc_store(y + (r - first) * batch + j, sc_splat(bias ? bias[r] : 0.0f));
  for (; k + 4 * SC_VL <= batch; k += 4 * SC_VL) SC_TILED_PART(4)
  for (; k + 2 * SC_VL <= batch; k += 2 * SC_VL) SC_TILED_PART(2)
  for (; k < batch; k += SC_VL) SC_TILED_PART(1)
}
#undef SC_TILED_PART
#undef SC_GATHER_ROWS

/* Four rows times VECTORS vectors of the batch at once, from k on. */
#define SC_DENSE_PART(VECTORS)                                                                       \
  {                                                                                                  \
    sc_vec s[4][VECTORS];                                                                            \
    for (int i = 0; i < 4; i++)                                                                      \
      for (int j = 0; j < (VECTORS); j++) s[i][j] = sc_splat(b[i]);                                  \
    for (int64_t c = 0; c < w->cols; c++) {                                                          \
      sc_vec q[VECTORS];                                                                             \
      for (int j = 0; j < (VECTORS); j++) q[j] = sc_load(x + c * batch + k + j * SC_VL);             \
      for (int i = 0; i < 4; i++)                                                                    \
        for (int j = 0; j < (VECTORS); j++) s[i][j] = sc_madd(panel[c * 16 + i], q[j], s[i][j]);     \
    }                                                                                                \
    for (int64_t i = 0; i < n; i++)                                                                  \
      for (int j = 0; j < (VECTORS); j++) sc_store(to + i * batch + k + j * SC_VL, s[shift + i][j]); \
  }

static void SC_PLAIN(dense_mm_rows)(const sc_matrix *w, const float *x, const float *bias, float *y, int64_t batch,
                                    int64_t first, int64_t last) {
  for (int64_t r = first; r < last;) {
    const int64_t row = r % 16, left = last - r < 16 - row ? last - r : 16 - row, n = left < 4 ? left : 4;
    /* A short group sums rows beside it that it does not store, never past its panel. */
    const int64_t shift = row <= 12 ? 0 : row - 12;
    const float *panel = w->values + (r / 16) * w->cols * 16 + row - shift;
    float b[4] = {0};
    for (int64_t i = 0; bias && i < n; i++) b[shift + i] = bias[r + i];
    float *to = y + (r - first) * batch;
    int64_t k = 0;
#if SC_VL == 16
    for (; k + 4 * SC_VL <= batch; k += 4 * SC_VL) SC_DENSE_PART(4)
#endif
    for (; k + 2 * SC_VL <= batch; k += 2 * SC_VL) SC_DENSE_PART(2)
    for (; k < batch; k += SC_VL) SC_DENSE_PART(1)
    r += n;
  }
}
#undef SC_DENSE_PART

/* Four rows of a strip of blocks times VECTORS vectors of the batch at once, from k on: each input that is loaded
 * serves four weights.
 */
#define SC_BLOCK_PART(VECTORS)                                                                           \
  {                                                                                                      \
    sc_vec s[4][VECTORS];                                                                                \
    for (int i = 0; i < 4; i++)                                                                          \
      for (int j = 0; j < (VECTORS); j++) s[i][j] = sc_splat(b[i]);                                      \
    for (int32_t block = from; block < to; block++) {                                                    \
      const float *v = w->values + (int64_t)block * height * width + quad;                               \
      const float *q = x + (int64_t)w->index32[block] * batch + k;                                       \
      for (int64_t c = 0; c < width; c++, v += height, q += batch) {                                     \
        sc_vec in[VECTORS];                                                                              \
        for (int j = 0; j < (VECTORS); j++) in[j] = sc_load(q + j * SC_VL);                              \
        for (int i = 0; i < 4; i++)                                                                      \
          for (int j = 0; j < (VECTORS); j++) s[i][j] = sc_madd(v[i], in[j], s[i][j]);                   \
      }                                                                                                  \
    }                                                                                                    \
    for (int64_t i = 0; i < n; i++)                                                                      \
      for (int j = 0; j < (VECTORS); j++) sc_store(o + i * batch + k + j * SC_VL, s[row - quad + i][j]); \
  }

static inline
    __attribute__((always_inline)) void SC_NAME(blocks_mm_rows)(const sc_matrix *w, const float *x, const float *bias,
                                                                float *y, int64_t batch, int64_t first, int64_t last,
                                                                const int64_t height, const int64_t width) {
  for (int64_t r = first; r < last;) {
    const int64_t row = r % height, quad = row / 4 * 4, left = quad + 4 - row, n = left < last - r ? left : last - r;
    const int32_t from = w->ptr[r / height], to = w->ptr[r / height + 1];
    float b[4] = {0}, *o = y + (r - first) * batch;
    for (int64_t i = 0; bias && i < n; i++) b[row - quad + i] = bias[r + i];
    int64_t k = 0;
#if SC_VL == 16
    for (; k + 4 * SC_VL <= batch; k += 4 * SC_VL) SC_BLOCK_PART(4)
#endif
    for (; k + 2 * SC_VL <= batch; k += 2 * SC_VL) SC_BLOCK_PART(2)
    for (; k < batch; k += SC_VL) SC_BLOCK_PART(1)
    r += n;
  }
}
#undef SC_BLOCK_PART

#define X(name, height, width)                                                                                         \
  static void SC_PLAIN(name##_mm_rows)(const sc_matrix *w, const float *x, const float *bias, float *y, int64_t batch, \
                                       int64_t first, int64_t last) {                                                  \
    SC_NAME(blocks_mm_rows)(w, x, bias, y, batch, first, last, height, width);                                         \
  }
SC_BLOCKS(X)
#undef X

/* Starts y at the bias, or zero, and lists the inputs that are not zero (a NaN is not): how many there are. */
static inline int64_t SC_NAME(events)(const sc_matrix *w, const float *x, const float *bias, float *y,
                                      int32_t *active) {
  if (bias)
    memcpy(y, bias, (size_t)w->rows * sizeof *y);
  else
    memset(y, 0, (size_t)w->rows * sizeof *y);
  int64_t n = 0;
  for (int64_t c = 0; c < w->cols; c++) {
    active[n] = (int32_t)c;
    n += x[c] != 0.0f;
  }
  return n;
}

/* y[index] += v * values for one column. The rows of a column differ, so eight sums are read before any is written. */
#define SC_ADD_COLUMN(INDEX)                                                  \
  for (; i + 8 <= to; i += 8) {                                               \
    float s[8];                                                               \
    for (int j = 0; j < 8; j++) s[j] = y[(INDEX)[i + j]] + v * values[i + j]; \
    for (int j = 0; j < 8; j++) y[(INDEX)[i + j]] = s[j];                     \
  }                                                                           \
  for (; i < to; i++) y[(INDEX)[i]] += v * values[i];

/* Adds the columns of the inputs that are not zero: work falls with density times activity. */
static void SC_PLAIN(columns_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  const int64_t rows = w->rows, n = SC_NAME(events)(w, x, bias, y, scratch);
  const float *values = w->values;
  for (int64_t k = 0; k < n; k++) {
    const int64_t c = scratch[k];
    const float v = x[c];
    if (!w->ptr) {
      const float *q = values + c * rows;
      for (int64_t r = 0; r < rows; r++) y[r] += v * q[r];
      continue;
    }
    int32_t i = w->ptr[c];
    const int32_t to = w->ptr[c + 1];
    if (w->index16) {
      SC_ADD_COLUMN(w->index16)
    } else {
      SC_ADD_COLUMN(w->index32)
    }
  }
}
#undef SC_ADD_COLUMN

/* The same for columns of whole blocks of 16 rows. */
static void SC_PLAIN(columns16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  const int64_t n = SC_NAME(events)(w, x, bias, y, scratch);
  for (int64_t k = 0; k < n; k++) {
    const int64_t c = scratch[k];
    const float v = x[c];
    for (int32_t i = w->ptr[c]; i < w->ptr[c + 1]; i++) {
      float *to = y + 16 * (int64_t)w->index32[i];
      const float *q = w->values + 16 * (int64_t)i;
      for (int j = 0; j < 16; j++) to[j] += v * q[j];
    }
  }
}

/* For one vector at a time it is compressed rows read in pieces; made for batches. */
static void SC_PLAIN(tiled_csr_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t height = w->tile_rows, tiles = (w->cols + w->tile_cols - 1) / w->tile_cols;
  for (int64_t r = 0; r < w->rows; r++) {
    float s = 0.0f;
    for (int64_t t = 0; t < tiles; t++) {
      const int32_t *ptr = w->ptr + ((r / height) * tiles + t) * height + r % height;
      for (int32_t i = ptr[0]; i < ptr[1]; i++) s += w->values[i] * x[t * w->tile_cols + w->index16[i]];
    }
    y[r] = s + (bias ? bias[r] : 0.0f);
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

/* Row of y that row r of the matrix stands for. */
static inline int64_t sc_place(const sc_matrix *w, int64_t r) { return w->order ? w->order[r] : r; }

static inline __attribute__((always_inline)) void SC_NAME(blocks)(const sc_matrix *w, const float *x, const float *bias,
                                                                  float *y, const int64_t height, const int64_t width) {
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    const int64_t n = w->rows - r < height ? w->rows - r : height;
    float s[16] = {0};
    const float *v = w->values + w->ptr[strip] * height * width;
    for (int32_t k = w->ptr[strip]; k < w->ptr[strip + 1]; k++, v += height * width)
      for (int64_t c = 0; c < width; c++)
        for (int64_t i = 0; i < height; i++) s[i] += v[c * height + i] * x[w->index32[k] + c];
    for (int64_t i = 0; i < n; i++) y[sc_place(w, r + i)] = s[i] + (bias ? bias[r + i] : 0.0f);
  }
}

#define X(name, height, width)                                                                                         \
  static void SC_PLAIN(name##_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) { \
    (void)scratch;                                                                                                     \
    SC_NAME(blocks)(w, x, bias, y, height, width);                                                                     \
  }
SC_BLOCKS(X)
#undef X

/* Strips as short as their groups of rows are, every one with columns of its own. */
static void SC_PLAIN(block_diagonal_mv)(const sc_matrix *w, const float *x, const float *bias, float *y,
                                        int32_t *scratch) {
  (void)scratch;
  for (int64_t strip = 0; strip + 1 < w->n_ptr; strip++) {
    float s[16] = {0};
    for (int32_t k = w->ptr[strip]; k < w->ptr[strip + 1]; k++)
      for (int i = 0; i < 16; i++) s[i] += w->values[16 * (int64_t)k + i] * x[w->index32[k]];
    const int64_t from = w->base[strip];
    for (int64_t r = from; r < w->base[strip + 1]; r++) y[sc_place(w, r)] = s[r - from] + (bias ? bias[r] : 0.0f);
  }
}

static void SC_PLAIN(dense_mvn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                                int64_t ldy) {
  for (int64_t k = 0; k < n; k++) SC_NAME(plain_dense_mv)(w, x + k * ldx, bias, y + k * ldy, NULL);
}

/* The table of one instruction set. The including file defines beforehand, all but the first where it has any:
 *
 *   SC_ISA                       its name, a string
 *   SC_OWN_MV(X), SC_OWN_MM(X)   its kernels, as X(dense) X(csr) ...: functions SC_NAME(dense_mv), ...
 *   SC_OWN_MVN                   its SC_NAME(dense_mvn)
 *   SC_OWN_SPIKES                its sc_spike_ops
 *   SC_TILES(X)                  the only windows that a lookup of it reads, as X(lookup, 16, 64, 16, 2 + 4) ...
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
#ifndef SC_OWN_SPIKES
#define SC_OWN_SPIKES NULL
#endif
#ifndef SC_OWN_MVN
#define SC_OWN_MVN SC_NAME(plain_dense_mvn)
#endif
#pragma GCC diagnostic ignored "-Woverride-init" /* the own kernels of a table replace the plain ones */
#define SC_MM_0(name) NULL
#define SC_MM_1(name) SC_NAME(plain_##name##_mm_rows)
#define SC_DEFINE_OPS(symbol)                                          \
  const sc_ops symbol = {                                              \
      .isa = SC_ISA,                                                   \
      .vector = SC_VL,                                                 \
      .mv = {SC_FORMATS(SC_ENTRY_MV) SC_OWN_MV(SC_ENTRY_OWN_MV)},      \
      .mm_rows = {SC_FORMATS(SC_ENTRY_MM) SC_OWN_MM(SC_ENTRY_OWN_MM)}, \
      .mvn_dense = SC_OWN_MVN,                                         \
      .point = {SC_CELLS(SC_ENTRY_POINT)},                             \
      .exp_n = SC_NAME(exp_n),                                         \
      .tanh_n = SC_NAME(tanh_n),                                       \
      .sigmoid_n = SC_NAME(sigmoid_n),                                 \
      .tile = {{0, 0, 0, 0, NULL}, SC_TILES(SC_ENTRY_TILE)},           \
      .spikes = SC_OWN_SPIKES,                                         \
  };
#define SC_ENTRY_MV(name, has_mm) [SC_FMT_##name] = SC_NAME(plain_##name##_mv),
#define SC_ENTRY_MM(name, has_mm) [SC_FMT_##name] = SC_MM_##has_mm(name),
#define SC_ENTRY_OWN_MV(name) [SC_FMT_##name] = SC_NAME(name##_mv),
#define SC_ENTRY_OWN_MM(name) [SC_FMT_##name] = SC_NAME(name##_mm_rows),
#define SC_ENTRY_POINT(name, gates, states, spiking) [SC_CELL_##name] = SC_NAME(point_##name),
#define SC_ENTRY_TILE(name, height, width, step, depths) \
  [SC_FMT_##name] = {height, width, step, depths,        \
                     SC_ISA " reads windows of " #height " x " #width ", step " #step ", depth " #depths},

#endif
