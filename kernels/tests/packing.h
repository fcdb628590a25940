/* Matrices for the tests: random ones, and every layout packed into arrays of exactly the size it needs, so that the
 * address sanitizer sees whatever is read beside them.
 */
#ifndef SPARSECIRC_TEST_PACKING_H
#define SPARSECIRC_TEST_PACKING_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/sparsecirc.h"

static uint32_t random_state = 1;

static uint32_t random_bits(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

/* Uniform in [-1, 1). */
static float random_float(void) { return (float)(int32_t)random_bits() * 0x1p-31f; }

/* A multiple of `step` in [-1, 1]. */
static float random_dyadic(float step) { return rintf(random_float() / step) * step; }

static void *exactly(int64_t n, size_t size) {
  void *p = malloc((size_t)n * size);
  if (!p && n) abort();
  if (p) memset(p, 0, (size_t)n * size);
  return p;
}

static float *floats(int64_t n) { return exactly(n, sizeof(float)); }

static float *poisoned(int64_t n) {
  float *p = floats(n);
  for (int64_t i = 0; i < n; i++) p[i] = NAN;
  return p;
}

/* Dense (rows, cols); dead connections are zero. */
typedef struct plain {
  int64_t rows, cols;
  float *w;
} plain;

/* `dyadic`: multiples of 1/4, so that sums are exact whatever their order. */
static plain make_plain(int64_t rows, int64_t cols, int percent, int dyadic) {
  plain p = {rows, cols, floats(rows * cols)};
  const float gain = 1.5f / sqrtf((float)cols * (float)percent / 100.0f + 1.0f);
  for (int64_t i = 0; i < rows * cols; i++)
    if ((int)(random_bits() % 100) < percent) p.w[i] = dyadic ? random_dyadic(0.25f) : random_float() * gain;
  return p;
}

typedef struct packed {
  sc_matrix m;
  float *values, *scale;
  int32_t *ptr, *index32, *correction;
  uint16_t *index16;
  uint8_t *index8;
  uint16_t *base;
  int16_t *words;
  int8_t *bytes;
  int32_t *order;
} packed;

static void free_packed(packed *p) {
  void *all[] = {p->values, p->scale, p->ptr,   p->index32, p->index16, p->correction,
                 p->index8, p->base,  p->words, p->bytes,   p->order};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int is_byte(int format) { return format == SC_FMT_lookup8 || format == SC_FMT_dense8; }

static int is_integer(int format) { return format == SC_FMT_lookup16 || format == SC_FMT_dense16 || is_byte(format); }

static float at(const plain *p, int64_t r, int64_t c) { return r < p->rows && c < p->cols ? p->w[r * p->cols + c] : 0; }

static void pack_dense(packed *o, const plain *p) {
  const int64_t strips = ceil_div(p->rows, 16);
  o->m.n_values = strips * 16 * p->cols;
  o->values = floats(o->m.n_values);
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t c = 0; c < p->cols; c++) o->values[(r / 16 * p->cols + c) * 16 + r % 16] = at(p, r, c);
}

/* Blocks of height x width that hold anything; height 1 and width 1: compressed rows. */
static void pack_blocks(packed *o, const plain *p, int64_t height, int64_t width) {
  const int64_t strips = ceil_div(p->rows, height), across = p->cols / width;
  o->m.n_ptr = strips + 1;
  o->ptr = exactly(o->m.n_ptr, sizeof(int32_t));
  for (int pass = 0; pass < 2; pass++) {
    int64_t n = 0;
    for (int64_t s = 0; s < strips; s++) {
      for (int64_t k = 0; k < across; k++) {
        int live = 0;
        for (int64_t i = 0; i < height * width; i++) live |= at(p, s * height + i / width, k * width + i % width) != 0;
        if (!live) continue;
        for (int64_t i = 0; pass && i < height * width; i++)
          o->values[n * height * width + i] = at(p, s * height + i % height, k * width + i / height);
        if (pass) o->index32[n] = (int32_t)(k * width);
        n++;
      }
      o->ptr[s + 1] = (int32_t)n;
    }
    if (!pass) {
      o->m.n_index = n;
      o->m.n_values = n * height * width;
      o->index32 = exactly(n, sizeof(int32_t));
      o->values = floats(o->m.n_values);
    }
  }
}

/* Strips of 1, 2, ... rows, as if groups of rows ended there. */
static void pack_block_diagonal(packed *o, const plain *p, int64_t longest) {
  int64_t strips = 0;
  for (int64_t r = 0; r < p->rows; strips++) r += strips % longest + 1;
  o->m.n_base = o->m.n_ptr = strips + 1;
  o->base = exactly(strips + 1, sizeof(uint16_t));
  o->ptr = exactly(strips + 1, sizeof(int32_t));
  for (int64_t s = 0; s < strips; s++) {
    const int64_t end = o->base[s] + s % longest + 1;
    o->base[s + 1] = (uint16_t)(end < p->rows ? end : p->rows);
  }
  for (int pass = 0; pass < 2; pass++) {
    int64_t n = 0;
    for (int64_t s = 0; s < strips; s++) {
      for (int64_t c = 0; c < p->cols; c++) {
        int live = 0;
        for (int64_t r = o->base[s]; r < o->base[s + 1]; r++) live |= at(p, r, c) != 0;
        if (!live) continue;
        for (int64_t r = o->base[s]; pass && r < o->base[s + 1]; r++) o->values[n * 16 + r - o->base[s]] = at(p, r, c);
        if (pass) o->index32[n] = (int32_t)c;
        n++;
      }
      o->ptr[s + 1] = (int32_t)n;
    }
    if (pass) break;
    o->m.n_index = n;
    o->m.n_values = n * 16;
    o->index32 = exactly(n, sizeof(int32_t));
    o->values = floats(n * 16);
  }
}

static void pack_columns(packed *o, const plain *p, int whole) {
  int64_t n = 0;
  for (int64_t i = 0; i < p->rows * p->cols; i++) n += p->w[i] != 0;
  o->m.n_values = whole ? p->rows * p->cols : n;
  o->values = floats(o->m.n_values);
  if (whole) {
    for (int64_t c = 0; c < p->cols; c++)
      for (int64_t r = 0; r < p->rows; r++) o->values[c * p->rows + r] = at(p, r, c);
    return;
  }
  o->m.n_ptr = p->cols + 1;
  o->m.n_index = n;
  o->ptr = exactly(p->cols + 1, sizeof(int32_t));
  o->index32 = exactly(n, sizeof(int32_t));
  n = 0;
  for (int64_t c = 0; c < p->cols; c++) {
    for (int64_t r = 0; r < p->rows; r++) {
      if (at(p, r, c) == 0) continue;
      o->index32[n] = (int32_t)r;
      o->values[n++] = at(p, r, c);
    }
    o->ptr[c + 1] = (int32_t)n;
  }
}

/* Each 32-bit index as 16 bits. */
static void narrow_index(packed *o) {
  o->index16 = exactly(o->m.n_index, sizeof(uint16_t));
  for (int64_t i = 0; i < o->m.n_index; i++) o->index16[i] = (uint16_t)o->index32[i];
  free(o->index32);
  o->index32 = NULL;
}

/* Columns of blocks of 16 rows that hold anything: the blocks of the transposed matrix, put side by side. */
static void pack_columns16(packed *o, const plain *p) {
  plain turned = {p->cols, p->rows, floats(p->rows * p->cols)};
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t c = 0; c < p->cols; c++) turned.w[c * p->rows + r] = at(p, r, c);
  pack_blocks(o, &turned, 1, 16);
  for (int64_t i = 0; i < o->m.n_index; i++) o->index32[i] /= 16;
  free(turned.w);
}

/* Compressed rows in pieces of `height` rows by `width` columns. */
static void pack_tiled_csr(packed *o, const plain *p, int64_t height, int64_t width) {
  const int64_t blocks = ceil_div(p->rows, height), tiles = ceil_div(p->cols, width);
  int64_t n = 0, list = 0;
  for (int64_t i = 0; i < p->rows * p->cols; i++) n += p->w[i] != 0;
  o->m.tile_rows = height;
  o->m.tile_cols = width;
  o->m.n_values = o->m.n_index = n;
  o->m.n_ptr = blocks * tiles * height + 1;
  o->values = floats(n);
  o->index16 = exactly(n, sizeof(uint16_t));
  o->ptr = exactly(o->m.n_ptr, sizeof(int32_t));
  n = 0;
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t t = 0; t < tiles; t++)
      for (int64_t r = b * height; r < (b + 1) * height; r++) {
        for (int64_t c = t * width; c < (t + 1) * width; c++) {
          if (at(p, r, c) == 0) continue;
          o->index16[n] = (uint16_t)(c - t * width);
          o->values[n++] = at(p, r, c);
        }
        o->ptr[++list] = (int32_t)n;
      }
}

/* Scale per row so that the largest word is `top`. */
static void scale_rows(packed *o, const plain *p, float top) {
  o->m.n_scale = p->rows;
  o->scale = floats(p->rows);
  for (int64_t r = 0; r < p->rows; r++) {
    float largest = 0;
    for (int64_t c = 0; c < p->cols; c++) largest = fmaxf(largest, fabsf(at(p, r, c)));
    o->scale[r] = largest > 0 ? largest / top : 1.0f;
  }
}

/* First live column of row r from c on, or cols. */
static int64_t next_live(const plain *p, int64_t r, int64_t c) {
  while (c < p->cols && at(p, r, c) == 0) c++;
  return r < p->rows ? c : p->cols;
}

/* What vector k of window g stores for row i, in one of its slots, for the weight at (r, c); the plain matrix takes the
 * value that the loop will multiply by.
 */
static void store(packed *o, plain *p, int64_t g, int64_t k, int64_t i, int64_t slot, int64_t r, int64_t c) {
  const int64_t height = o->m.tile_rows, depth = o->m.tile_depth, to = (g * depth + k) * height + i;
  const int64_t column = c - o->base[g] * o->m.tile_step;
  float *w = &p->w[r * p->cols + c];
  if (o->m.format == SC_FMT_lookup16) {
    const int width = (int)o->m.tile_cols, word = (int)floorf(*w / o->scale[r] / (float)width) * width + (int)column;
    o->words[to * 2 + slot] = (int16_t)word;
    *w = (float)word * o->scale[r];
    return;
  }
  if (o->m.format == SC_FMT_lookup8) {
    const int byte = (int)rintf(*w / o->scale[r]);
    o->bytes[to * 4 + slot] = (int8_t)byte;
    o->index8[to * 4 + slot] = (uint8_t)column;
    o->correction[r] += 128 * byte;
    *w = (float)byte * o->scale[r];
    return;
  }
  uint32_t bits;
  memcpy(&bits, w, sizeof bits);
  if (o->m.format == SC_FMT_mantissa) bits = (bits & ~(uint32_t)(o->m.tile_cols - 1)) | (uint32_t)column;
  if (o->m.format == SC_FMT_lookup_bf16) bits &= 0xffff0000u;
  memcpy(w, &bits, sizeof bits);
  if (o->index8) o->index8[(g * height + i) * depth + k] = (uint8_t)column;
  if (o->values) o->values[to] = *w;
  if (o->words) o->words[((g * depth + k) / 2 * height + i) * 2 + k % 2] = (int16_t)(bits >> 16);
}

/* Room for n windows. */
static void cover(packed *o, int64_t n) {
  const int64_t slots = n * o->m.tile_depth * o->m.tile_rows;
  o->m.n_base = n;
  o->base = exactly(n, sizeof(uint16_t));
  switch (o->m.format) {
    case SC_FMT_lookup16:
      o->words = exactly(o->m.n_words = 2 * slots, sizeof(int16_t));
      return;
    case SC_FMT_lookup8:
      o->bytes = exactly(o->m.n_bytes = 4 * slots, 1);
      o->index8 = exactly(o->m.n_index = 4 * slots, 1);
      o->correction = exactly(o->m.n_correction = o->m.rows, sizeof(int32_t));
      return;
    case SC_FMT_lookup_bf16:
      o->words = exactly(o->m.n_words = slots, sizeof(int16_t));
      break;
    default:
      o->values = floats(o->m.n_values = slots);
  }
  if (o->m.format != SC_FMT_mantissa) o->index8 = exactly(o->m.n_index = slots, 1);
}

/* Each window begins at the first column that any row of its strip still has to store. */
static void pack_windows(packed *o, plain *p) {
  const int64_t height = o->m.tile_rows, width = o->m.tile_cols, strips = ceil_div(p->rows, height);
  const int64_t per = o->m.format == SC_FMT_lookup16 ? 2 : o->m.format == SC_FMT_lookup8 ? 4 : 1;
  const int64_t pad = per == 4 ? SC_PAD8 : SC_PAD, last = ceil_div(p->cols, pad) * pad - width;
  o->m.n_ptr = strips + 1;
  o->ptr = exactly(o->m.n_ptr, sizeof(int32_t));
  if (per > 1) scale_rows(o, p, per == 4 ? 127.0f : 15000.0f);
  for (int pass = 0; pass < 2; pass++) {
    int64_t n = 0;
    for (int64_t s = 0; s < strips; s++) {
      int64_t next[16];
      for (int64_t i = 0; i < height; i++) next[i] = next_live(p, s * height + i, 0);
      for (;; n++) {
        int64_t first = p->cols;
        for (int64_t i = 0; i < height; i++) first = next[i] < first ? next[i] : first;
        if (first == p->cols) break;
        first = first / o->m.tile_step * o->m.tile_step;
        first = first < last ? first : last;
        if (pass) o->base[n] = (uint16_t)(first / o->m.tile_step);
        for (int64_t i = 0; i < height; i++)
          for (int64_t k = 0; k < per * o->m.tile_depth && next[i] < p->cols && next[i] < first + width; k++) {
            if (pass) store(o, p, n, k / per, i, k % per, s * height + i, next[i]);
            next[i] = next_live(p, s * height + i, next[i] + 1);
          }
      }
      o->ptr[s + 1] = (int32_t)n;
    }
    if (!pass) cover(o, n);
  }
}

/* In the only windows that `ops` reads; where it reads any, as given. `deep`: the deepest of them. */
static void pack_lookup(packed *o, plain *p, const sc_ops *ops, sc_tile any, int deep) {
  const sc_tile only = ops->tile[o->m.format].rows ? ops->tile[o->m.format] : any;
  o->m.tile_rows = only.rows;
  o->m.tile_cols = only.cols;
  o->m.tile_step = only.step;
  o->m.tile_depth = only.depths & -only.depths;
  while (deep && (only.depths & (2 * o->m.tile_depth))) o->m.tile_depth *= 2;
  pack_windows(o, p);
}

static void pack_integers(packed *o, plain *p, int64_t per) {
  const int64_t strips = ceil_div(p->rows, 16), groups = ceil_div(p->cols, per), n = strips * groups * 16 * per;
  scale_rows(o, p, per == 4 ? 127.0f : fminf(30000.0f, 1e6f / (float)(p->cols + 1)));
  if (per == 4) {
    o->m.n_bytes = n;
    o->bytes = exactly(n, 1);
    o->m.n_correction = p->rows;
    o->correction = exactly(p->rows, sizeof(int32_t));
  } else {
    o->m.n_words = n;
    o->words = exactly(n, sizeof(int16_t));
  }
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t c = 0; c < p->cols; c++) {
      float *w = &p->w[r * p->cols + c];
      const int word = (int)rintf(*w / o->scale[r]);
      const int64_t place = ((r / 16 * groups + c / per) * 16 + r % 16) * per + c % per;
      if (per == 4) {
        o->bytes[place] = (int8_t)word;
        o->correction[r] += 128 * word;
      } else {
        o->words[place] = (int16_t)word;
      }
      *w = (float)word * o->scale[r];
    }
}

static int is_ordered(int format) {
#define X(name) \
  if (format == SC_FMT_##name) return 1;
  SC_ORDERED(X)
#undef X
  return 0;
}

/* Packs `p` for `ops`. Returns 0 where the format cannot hold the shape, -1 for a format this file does not know. */
static int pack(packed *o, plain *p, int format, const sc_ops *ops, int variant) {
  memset(o, 0, sizeof *o);
  o->m.format = format;
  o->m.rows = p->rows;
  o->m.cols = p->cols;
  switch (format) {
    case SC_FMT_dense:
      pack_dense(o, p);
      break;
    case SC_FMT_csr:
      pack_blocks(o, p, 1, 1);
      break;
#define X(name, height, width)        \
  case SC_FMT_##name:                 \
    if (p->cols % width) return 0;    \
    pack_blocks(o, p, height, width); \
    break;
      SC_BLOCKS(X)
#undef X
    case SC_FMT_block_diagonal:
      pack_block_diagonal(o, p, variant ? 16 : 5);
      break;
    case SC_FMT_lookup:
      pack_lookup(o, p, ops, variant ? (sc_tile){5, 4, 1, 1, ""} : (sc_tile){16, 64, 16, 4, ""}, variant);
      break;
    case SC_FMT_mantissa:
      pack_lookup(o, p, ops, variant ? (sc_tile){3, 8, 4, 1, ""} : (sc_tile){16, 64, 16, 2, ""}, variant);
      break;
    case SC_FMT_lookup_bf16:
      pack_lookup(o, p, ops, variant ? (sc_tile){7, 2, 2, 4, ""} : (sc_tile){16, 64, 16, 2, ""}, variant);
      break;
    case SC_FMT_columns:
      pack_columns(o, p, variant);
      if (!variant && p->cols % 2) narrow_index(o);
      break;
    case SC_FMT_columns16:
      if (p->rows % 16) return 0;
      pack_columns16(o, p);
      break;
    case SC_FMT_tiled_csr:
      pack_tiled_csr(o, p, variant ? 3 : 64, variant ? 7 : 256);
      break;
    case SC_FMT_lookup16:
      pack_lookup(o, p, ops, variant ? (sc_tile){16, 32, 16, 1, ""} : (sc_tile){16, 64, 8, 4, ""}, variant);
      break;
    case SC_FMT_lookup8:
      pack_lookup(o, p, ops, variant ? (sc_tile){11, 16, 4, 1, ""} : (sc_tile){16, 128, 64, 2, ""}, variant);
      break;
    case SC_FMT_dense16:
      pack_integers(o, p, 2);
      break;
    case SC_FMT_dense8:
      pack_integers(o, p, 4);
      break;
    default:
      return -1;
  }
  o->m.values = o->values;
  o->m.ptr = o->ptr;
  o->m.index32 = o->index32;
  o->m.index16 = o->index16;
  o->m.index8 = o->index8;
  o->m.base = o->base;
  o->m.words = o->words;
  o->m.bytes = o->bytes;
  o->m.scale = o->scale;
  o->m.correction = o->correction;
  return 1;
}

/* The same with its rows in a random order. */
static int pack_in_order(packed *o, plain *p, int format, const sc_ops *ops, int variant) {
  plain moved = {p->rows, p->cols, floats(p->rows * p->cols)};
  const size_t row = (size_t)p->cols * sizeof(float);
  int32_t *order = exactly(p->rows, sizeof(int32_t));
  for (int64_t r = 0; r < p->rows; r++) order[r] = (int32_t)r;
  for (int64_t r = p->rows - 1; r > 0; r--) {
    const int64_t other = random_bits() % (uint32_t)(r + 1);
    const int32_t was = order[r];
    order[r] = order[other];
    order[other] = was;
  }
  for (int64_t r = 0; row && r < p->rows; r++) memcpy(moved.w + r * p->cols, p->w + order[r] * p->cols, row);
  const int status = pack(o, &moved, format, ops, variant);
  for (int64_t r = 0; row && r < p->rows; r++) memcpy(p->w + order[r] * p->cols, moved.w + r * p->cols, row);
  o->order = order;
  o->m.order = order;
  o->m.n_order = p->rows;
  free(moved.w);
  return status;
}

#endif
