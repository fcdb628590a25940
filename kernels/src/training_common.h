/* What the drivers of training share: the transpose of a sparse matrix, and tiles of one. */
#ifndef SC_TRAINING_COMMON_H
#define SC_TRAINING_COMMON_H

#include <string.h>

#include "workspace.h"

#define SC_LONG_FLOATS (512 * 1024) /* from here on a sequence is written past the caches */

static inline void sc_clear(float *p, int64_t n) {
  if (p) memset(p, 0, (size_t)n * sizeof *p);
}

/* Room for a transposed matrix, or for one in tiles. */
typedef struct sc_copy {
  float *values;
  int32_t *index;
} sc_copy;

static inline sc_copy sc_take_transpose(sc_arena *a, const sc_matrix *w) {
  return (sc_copy){sc_take(a, w->n_values), sc_take_ints(a, w->cols + 1 + w->n_values)};
}

/* CSR of the transpose; rows of w from `split` on are columns `skip` further right. `moved`, if not null: where each
 * value of w went.
 */
static inline sc_matrix sc_transpose(const sc_matrix *w, int64_t split, int64_t skip, sc_copy room, int32_t *moved) {
  float *values = room.values;
  int32_t *ptr = room.index, *column = ptr + w->cols + 1;
  memset(ptr, 0, (size_t)(w->cols + 1) * sizeof *ptr);
  for (int64_t i = 0; i < w->n_values; i++) ptr[w->index32[i] + 1]++;
  for (int64_t c = 0; c < w->cols; c++) ptr[c + 1] += ptr[c];
  for (int64_t r = 0; r < w->rows; r++)
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) {
      const int32_t to = ptr[w->index32[i]]++;
      column[to] = (int32_t)(r < split ? r : r + skip);
      values[to] = w->values[i];
      if (moved) moved[i] = to;
    }
  for (int64_t c = w->cols; c > 0; c--) ptr[c] = ptr[c - 1];
  ptr[0] = 0;
  const sc_matrix m = {.format = SC_FMT_csr,
                       .rows = w->cols,
                       .cols = w->rows + skip,
                       .n_values = w->n_values,
                       .n_index = w->n_values,
                       .n_ptr = w->cols + 1,
                       .values = values,
                       .ptr = ptr,
                       .index32 = column};
  return m;
}

#define SC_TILE_FLOATS 10240 /* inputs of a tile of columns: they share the first cache with weights and results */
#define SC_TILE_STEPS 8      /* fewer products do not pay for the copy */
#define SC_TILE_ROW 8        /* nor do shorter rows of a tile */

static inline int64_t sc_tile_columns(int64_t wide) { return wide > 160 ? 64 : SC_TILE_FLOATS / wide; }

/* Into how many tiles of columns a matrix is best cut for `steps` products over `wide` samples. */
static inline int64_t sc_tiles(const sc_matrix *w, int64_t wide, int64_t steps) {
  if (wide == 0 || steps < SC_TILE_STEPS || w->cols * wide <= SC_TILE_FLOATS) return 1;
  const int64_t tiles = sc_padded(w->cols, sc_tile_columns(wide)) / sc_tile_columns(wide);
  return w->n_values >= SC_TILE_ROW * w->rows * tiles ? tiles : 1;
}

static inline sc_copy sc_take_tiles(sc_arena *a, const sc_matrix *w, int64_t tiles) {
  if (tiles <= 1) return (sc_copy){NULL, NULL};
  return (sc_copy){sc_take(a, w->n_values), sc_take_ints(a, tiles * w->rows + 1 + (w->n_values + 1) / 2)};
}

/* The matrix as tiled_csr with one block of rows; itself where there is one tile. */
static inline sc_matrix sc_in_tiles(const sc_matrix *w, int64_t wide, int64_t tiles, sc_copy room) {
  if (tiles <= 1) return *w;
  const int64_t width = sc_tile_columns(wide), blocks = tiles * w->rows;
  int32_t *ptr = room.index;
  uint16_t *column = (uint16_t *)(ptr + blocks + 1);
  memset(ptr, 0, (size_t)(blocks + 1) * sizeof *ptr);
  for (int64_t r = 0; r < w->rows; r++)
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) ptr[w->index32[i] / width * w->rows + r + 1]++;
  for (int64_t k = 0; k < blocks; k++) ptr[k + 1] += ptr[k];
  for (int64_t r = 0; r < w->rows; r++)
    for (int32_t i = w->ptr[r]; i < w->ptr[r + 1]; i++) {
      const int32_t to = ptr[w->index32[i] / width * w->rows + r]++;
      column[to] = (uint16_t)(w->index32[i] % width);
      room.values[to] = w->values[i];
    }
  for (int64_t k = blocks; k > 0; k--) ptr[k] = ptr[k - 1];
  ptr[0] = 0;
  sc_matrix m = *w;
  m.format = SC_FMT_tiled_csr;
  m.tile_rows = w->rows;
  m.tile_cols = width;
  m.n_ptr = blocks + 1;
  m.values = room.values;
  m.ptr = ptr;
  m.index32 = NULL;
  m.index16 = column;
  return m;
}

#endif
