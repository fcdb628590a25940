/* See pack.h. */
#include "pack.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const short_of_memory = "there is not enough memory";

void *sc_zeros(size_t n, size_t size) {
  if (size && n > (SIZE_MAX - 128) / size) return NULL;
  const size_t bytes = (n * size + 63) / 64 * 64 + 64; /* kernels may read a vector past the end */
  void *p = aligned_alloc(64, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

void sc_pack_free(sc_packed *p) {
  for (size_t i = 0; i < sizeof p->arrays / sizeof *p->arrays; i++) free(p->arrays[i]);
  memset(p, 0, sizeof *p);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Room for the arrays of a layout; arrays[0..3] hold values, ptr, index, base. */
static const char *reserve(sc_packed *o, int64_t values, int64_t ptr, int64_t index, size_t index_size, int64_t base) {
  const int64_t counts[4] = {values, ptr, index, base};
  const size_t sizes[4] = {sizeof(float), sizeof(int32_t), index_size, sizeof(uint16_t)};
  for (int i = 0; i < 4; i++) {
    if (!counts[i] && !(i == 1 && ptr)) continue;
    o->arrays[i] = sc_zeros((size_t)counts[i], sizes[i]);
    if (!o->arrays[i]) return short_of_memory;
  }
  sc_matrix *m = &o->m;
  m->n_values = values;
  m->n_ptr = ptr;
  m->n_index = index;
  m->n_base = base;
  m->values = o->arrays[0];
  m->ptr = o->arrays[1];
  m->base = o->arrays[3];
  if (index_size == 1)
    m->index8 = o->arrays[2];
  else
    m->index32 = o->arrays[2];
  return NULL;
}

static const char *pack_dense(sc_packed *o, const float *w) {
  const int64_t rows = o->m.rows, cols = o->m.cols;
  const char *why = reserve(o, ceil_div(rows, 16) * 16 * cols, 0, 0, sizeof(int32_t), 0);
  if (why) return why;
  float *values = o->arrays[0];
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) values[(r / 16 * cols + c) * 16 + r % 16] = w[r * cols + c];
  return NULL;
}

/* Whether a block of rows from r and columns from c holds anything. */
static int block_lives(const sc_packed *o, const float *w, int64_t r, int64_t c, int64_t height, int64_t width) {
  for (int64_t i = r; i < r + height && i < o->m.rows; i++)
    for (int64_t k = c; k < c + width; k++)
      if (w[i * o->m.cols + k] != 0) return 1;
  return 0;
}

/* Blocks of height x width that hold anything; 1 x 1: compressed rows. */
static const char *pack_blocks(sc_packed *o, const float *w, int64_t height, int64_t width) {
  const int64_t rows = o->m.rows, cols = o->m.cols, strips = ceil_div(rows, height), area = height * width;
  if (cols % width) return "blocks do not divide the columns";
  int64_t blocks = 0;
  for (int64_t s = 0; s < strips; s++)
    for (int64_t c = 0; c < cols; c += width) blocks += block_lives(o, w, s * height, c, height, width);
  if (blocks > INT32_MAX / area) return "there are too many weights";
  const char *why = reserve(o, blocks * area, strips + 1, blocks, sizeof(int32_t), 0);
  if (why) return why;
  float *values = o->arrays[0];
  int32_t *ptr = o->arrays[1], *index = o->arrays[2];
  int64_t n = 0;
  for (int64_t s = 0; s < strips; s++) {
    for (int64_t c = 0; c < cols; c += width) {
      if (!block_lives(o, w, s * height, c, height, width)) continue;
      for (int64_t i = 0; i < area; i++) {
        const int64_t r = s * height + i % height;
        if (r < rows) values[n * area + i] = w[r * cols + c + i / height];
      }
      index[n++] = (int32_t)c;
    }
    ptr[s + 1] = (int32_t)n;
  }
  return NULL;
}

/* Every column as its live rows. */
static const char *pack_columns(sc_packed *o, const float *w) {
  const int64_t rows = o->m.rows, cols = o->m.cols;
  int64_t live = 0, n = 0;
  for (int64_t i = 0; i < rows * cols; i++) live += w[i] != 0;
  if (live > INT32_MAX) return "there are too many weights";
  const char *why = reserve(o, live, cols + 1, live, sizeof(int32_t), 0);
  if (why) return why;
  float *values = o->arrays[0];
  int32_t *ptr = o->arrays[1], *index = o->arrays[2];
  for (int64_t c = 0; c < cols; c++) {
    for (int64_t r = 0; r < rows; r++) {
      if (w[r * cols + c] == 0) continue;
      values[n] = w[r * cols + c];
      index[n++] = (int32_t)r;
    }
    ptr[c + 1] = (int32_t)n;
  }
  return NULL;
}

static int64_t next_live(const sc_packed *o, const float *w, int64_t r, int64_t c) {
  if (r >= o->m.rows) return o->m.cols;
  while (c < o->m.cols && w[r * o->m.cols + c] == 0) c++;
  return c;
}

/* Windows of lookups, once to count them and once to fill them: each begins at the first column that any row of its
 * strip still has to store, and takes from each row the next `depth` weights in it. Returns the number of windows. */
static int64_t walk_windows(sc_packed *o, const float *w, int fill) {
  const int64_t height = o->m.tile_rows, width = o->m.tile_cols, depth = o->m.tile_depth, step = o->m.tile_step;
  const int64_t strips = ceil_div(o->m.rows, height), last = ceil_div(o->m.cols, SC_PAD) * SC_PAD - width;
  float *values = o->arrays[0];
  int32_t *ptr = o->arrays[1];
  uint8_t *index = o->arrays[2];
  uint16_t *base = o->arrays[3];
  int64_t n = 0;
  for (int64_t s = 0; s < strips; s++) {
    int64_t next[16];
    for (int64_t i = 0; i < height; i++) next[i] = next_live(o, w, s * height + i, 0);
    for (;; n++) {
      int64_t first = o->m.cols;
      for (int64_t i = 0; i < height; i++) first = next[i] < first ? next[i] : first;
      if (first == o->m.cols) break;
      first = first / step * step;
      first = first < last ? first : last;
      if (fill) base[n] = (uint16_t)(first / step);
      for (int64_t i = 0; i < height; i++) {
        const int64_t r = s * height + i;
        for (int64_t k = 0; k < depth && next[i] < o->m.cols && next[i] < first + width; k++) {
          if (fill) {
            values[(n * depth + k) * height + i] = w[r * o->m.cols + next[i]];
            index[(n * height + i) * depth + k] = (uint8_t)(next[i] - first);
          }
          next[i] = next_live(o, w, r, next[i] + 1);
        }
      }
    }
    if (fill) ptr[s + 1] = (int32_t)n;
  }
  return n;
}

static const char *pack_windows(sc_packed *o, const float *w, const sc_tile *tile) {
  if (!tile || tile->rows < 1 || tile->rows > 16 || tile->step < 1) return "the shape of the windows is unknown";
  o->m.tile_rows = tile->rows;
  o->m.tile_cols = tile->cols;
  o->m.tile_step = tile->step;
  o->m.tile_depth = tile->depths;
  if (ceil_div(o->m.cols, SC_PAD) * SC_PAD > 65535 * tile->step) return "there are too many columns";
  const int64_t n = walk_windows(o, w, 0), slots = n * tile->depths * tile->rows;
  if (slots > INT32_MAX) return "there are too many weights";
  const char *why = reserve(o, slots, ceil_div(o->m.rows, tile->rows) + 1, slots, 1, n);
  if (!why) walk_windows(o, w, 1);
  return why;
}

const char *sc_pack(sc_packed *to, int format, int64_t rows, int64_t cols, const float *w, const sc_tile *tile) {
  memset(to, 0, sizeof *to);
  to->m.format = format;
  to->m.rows = rows;
  to->m.cols = cols;
  const char *why = "this library does not pack that format";
  if (rows < 0 || cols < 0 || rows > INT32_MAX - SC_PAD || cols > INT32_MAX - SC_PAD)
    why = "the shape is out of range";
  else if (format == SC_FMT_dense)
    why = pack_dense(to, w);
  else if (format == SC_FMT_csr)
    why = pack_blocks(to, w, 1, 1);
  else if (format == SC_FMT_columns)
    why = pack_columns(to, w);
  else if (format == SC_FMT_lookup)
    why = pack_windows(to, w, tile);
#define X(name, height, width) else if (format == SC_FMT_##name) why = pack_blocks(to, w, height, width);
  SC_BLOCKS(X)
#undef X
  if (!why) why = sc_matrix_check(&to->m);
  if (why) sc_pack_free(to);
  return why;
}

const sc_ops *sc_best_ops(void) {
  const sc_ops *best = NULL;
#define X(name) best = sc_ops_for(#name) ? sc_ops_for(#name) : best;
  SC_ISAS(X)
#undef X
  return best;
}

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Least time of the product with x (vectors, cols). */
static double time_of(const sc_packed *p, const sc_ops *ops, const float *x, int64_t vectors, float *y,
                      float *workspace) {
  double best = 1e9;
  int64_t n = 1;
  for (int round = 0; round < 6; round++) {
    const double from = seconds();
    for (int64_t k = 0; k < n; k++) {
      if (vectors == 1)
        sc_product_step(ops, &p->m, x, NULL, y, workspace);
      else
        sc_product(ops, &p->m, x, p->m.cols, vectors, NULL, y, p->m.rows, workspace);
    }
    const double each = (seconds() - from) / (double)n;
    if (each < best) best = each;
    if (each < 1e-4) n = (int64_t)(1e-4 / (each > 1e-8 ? each : 1e-8)) + 1;
  }
  return best;
}

const char *sc_pack_fastest(sc_packed *to, const sc_ops *ops, int64_t rows, int64_t cols, const float *w,
                            int64_t vectors, int events) {
  int64_t live = 0;
  for (int64_t i = 0; i < rows * cols; i++) live += w[i] != 0;
  const double density = rows > 0 && cols > 0 ? (double)live / (double)(rows * cols) : 0;
  const sc_tile wide = {16, 64, 16, 2 | 4, ""}, only = ops->tile[SC_FMT_lookup];
  const sc_tile any = only.rows ? only : wide;
  const int formats[] = {SC_FMT_dense,    SC_FMT_csr,    SC_FMT_block16x1, SC_FMT_block8x1, SC_FMT_block8x4,
                         SC_FMT_block4x4, SC_FMT_lookup, SC_FMT_lookup,    SC_FMT_columns};
  float *x = sc_zeros((size_t)(cols * vectors) + SC_PAD, sizeof *x);
  float *y = sc_zeros((size_t)(rows * vectors) + 16, sizeof *y);
  float *space = NULL;
  const char *why = x && y ? NULL : short_of_memory;
  double best = 1e9;
  int deep = 0;
  memset(to, 0, sizeof *to);
  for (int64_t i = 0; x && i < cols * vectors; i++) x[i] = events ? (float)(i % 10 == 0) : (float)(i % 7) * 0.1f - 0.3f;
  for (size_t k = 0; !why && k < sizeof formats / sizeof *formats; k++) {
    sc_packed made;
    sc_tile tile = any;
    if (formats[k] == SC_FMT_lookup) { /* its shallowest windows, then the next deeper ones */
      tile.depths = any.depths & -any.depths;
      if (deep) tile.depths = any.depths & (tile.depths * 2);
      deep = 1;
      if (!tile.depths) continue;
    }
    if (formats[k] == SC_FMT_columns && !events) continue;
    if (formats[k] != SC_FMT_dense && density > 0.6) continue;
    if (sc_pack(&made, formats[k], rows, cols, w, &tile)) continue;
    const int padded = formats[k] != SC_FMT_dense && made.m.n_values > 3 * live + 64;
    if (padded || sc_matrix_supported(ops, &made.m)) {
      sc_pack_free(&made);
      continue;
    }
    space = sc_zeros(sc_product_workspace(&made.m), sizeof *space);
    const double taken = space ? time_of(&made, ops, x, vectors, y, space) : best;
    free(space);
    if (taken < best) {
      sc_pack_free(to);
      *to = made;
      best = taken;
    } else {
      sc_pack_free(&made);
    }
  }
  if (!why && !to->m.rows && rows) why = short_of_memory;
  if (!why && !rows) why = sc_pack(to, SC_FMT_dense, rows, cols, w, NULL);
  free(x);
  free(y);
  return why;
}
