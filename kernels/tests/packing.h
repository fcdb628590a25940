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
  uint8_t *index8, *count;
  int16_t *words;
  int8_t *bytes;
} packed;

static void free_packed(packed *p) {
  void *all[] = {p->values, p->scale, p->ptr, p->index32, p->correction, p->index8, p->count, p->words, p->bytes};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int is_integer(int format) {
  return format == SC_FMT_lookup16 || format == SC_FMT_dense16 || format == SC_FMT_dense8;
}

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

/* What a slot stores for the weight at (r, c); the plain matrix takes the value that the loop will multiply by. */
static void store(packed *o, plain *p, int64_t slot, int64_t r, int64_t c) {
  float *w = &p->w[r * p->cols + c];
  const int64_t column = c % o->m.tile_cols;
  if (o->m.format == SC_FMT_lookup16) {
    const int word = (int)floorf(*w / o->scale[r] / 64.0f) * 64 + (int)column;
    o->words[slot] = (int16_t)word;
    *w = (float)word * o->scale[r];
    return;
  }
  if (o->m.format == SC_FMT_mantissa) {
    uint32_t bits;
    memcpy(&bits, w, sizeof bits);
    bits = (bits & ~(uint32_t)(o->m.tile_cols - 1)) | (uint32_t)column;
    memcpy(w, &bits, sizeof bits);
  } else {
    o->index8[slot] = (uint8_t)column;
  }
  o->values[slot] = *w;
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

static void pack_tiles(packed *o, plain *p, int64_t height, int64_t width) {
  const int words = o->m.format == SC_FMT_lookup16; /* slots come in pairs */
  const int64_t strips = ceil_div(p->rows, height), tiles = ceil_div(p->cols, width);
  o->m.tile_rows = height;
  o->m.tile_cols = width;
  o->m.n_count = strips * tiles;
  o->count = exactly(o->m.n_count, 1);
  if (words) scale_rows(o, p, 15000.0f);
  for (int pass = 0; pass < 2; pass++) {
    int64_t slots = 0;
    for (int64_t t = 0; t < strips * tiles; t++) {
      int64_t longest = 0;
      for (int64_t i = 0; i < height; i++) {
        const int64_t r = t / tiles * height + i;
        int64_t k = 0;
        for (int64_t c = t % tiles * width; c < (t % tiles + 1) * width; c++) {
          if (at(p, r, c) == 0) continue;
          if (pass) store(o, p, words ? ((slots + k / 2) * 16 + i) * 2 + k % 2 : (slots + k) * height + i, r, c);
          k++;
        }
        longest = k > longest ? k : longest;
      }
      if (!pass) o->count[t] = (uint8_t)(words ? (longest + 1) / 2 : longest);
      slots += o->count[t];
    }
    if (pass) break;
    if (words) {
      o->m.n_words = slots * 32;
      o->words = exactly(o->m.n_words, sizeof(int16_t));
      continue;
    }
    o->m.n_values = slots * height;
    o->values = floats(o->m.n_values);
    if (o->m.format == SC_FMT_lookup) {
      o->m.n_index = o->m.n_values;
      o->index8 = exactly(o->m.n_index, 1);
    }
  }
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

/* Packs `p` for `ops`. Returns 0 where the format cannot hold the shape, -1 for a format this file does not know. */
static int pack(packed *o, plain *p, int format, const sc_ops *ops, int variant) {
  const sc_tile tile = ops->tile[format]; /* zero: the kernel reads any */
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
    case SC_FMT_lookup:
      pack_tiles(o, p, tile.rows ? tile.rows : variant ? 5 : 16, tile.rows ? tile.cols : variant ? 4 : 32);
      break;
    case SC_FMT_mantissa:
      pack_tiles(o, p, tile.rows ? tile.rows : variant ? 3 : 16, tile.rows ? tile.cols : variant ? 8 : 64);
      break;
    case SC_FMT_columns:
      pack_columns(o, p, variant);
      break;
    case SC_FMT_lookup16:
      pack_tiles(o, p, 16, 64);
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
  o->m.index8 = o->index8;
  o->m.count = o->count;
  o->m.words = o->words;
  o->m.bytes = o->bytes;
  o->m.scale = o->scale;
  o->m.correction = o->correction;
  return 1;
}

#endif
