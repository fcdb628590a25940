/* Integer products in plain C, on generic.h: the state is quantised, products are summed in int32, sums are scaled per
 * row.
 *
 * The state must lie in [-1, 1] (h of rnn_tanh, gru and lstm); what lies outside is clipped. No integer stands for NaN,
 * so a NaN anywhere in the state makes the whole product NaN. A word of `lookup16` is the weight itself and, in its low
 * bits, the column in the tile; packing keeps each row of a tile small enough that the int32 sum of the tile cannot
 * overflow. Every instruction set gives the same integers.
 */
#ifndef SC_INTEGER_H
#define SC_INTEGER_H

#include <string.h>

#include "../include/sparsecirc.h"

/* Whether a state is NaN; then all of y is. */
static inline int SC_NAME(nan_state)(const sc_matrix *w, const float *x, float *y) {
  int found = 0;
  for (int64_t c = 0; c < w->cols; c++) found |= x[c] != x[c];
  for (int64_t r = 0; found && r < w->rows; r++) y[r] = __builtin_nanf("");
  return found;
}

/* Nearest whole number, ties to even, of x * top clipped to [-top, top]; x is not NaN. */
static inline int32_t SC_NAME(quantise)(float x, float top) {
  float v = x * top;
  v = v < top ? v : top;
  v = v > -top ? v : -top;
  const float magic = 12582912.0f;
  float z = v + magic;
  int32_t bits;
  memcpy(&bits, &z, sizeof bits);
  return bits - 0x4b400000;
}

static inline void SC_NAME(finish_row)(const sc_matrix *w, int64_t r, float sum, float unit, const float *bias,
                                       float *y) {
  y[sc_place(w, r)] = sum * (w->scale[r] * unit) + (bias ? bias[r] : 0.0f);
}

/* Adds pairs of slots to int32 sums, and the sums to f. */
static inline void SC_NAME(add_pairs)(const int16_t *v, int64_t n, const int16_t *q, const uint16_t *base,
                                      const sc_matrix *w, float *f) {
  int32_t s[16] = {0};
  for (int64_t k = 0; k < n; k++) {
    const int16_t *from = base ? q + base[k] * w->tile_step : q;
    for (int i = 0; i < 32; i++) s[i / 2] += v[32 * k + i] * from[v[32 * k + i] & (w->tile_cols - 1)];
  }
  for (int i = 0; i < 16; i++) f[i] += (float)s[i];
}

static void SC_PLAIN(lookup16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int16_t *q = (int16_t *)(void *)scratch;
  const int64_t tiles = w->tile_step ? 0 : (w->cols + w->tile_cols - 1) / w->tile_cols;
  for (int64_t c = 0; c < w->cols; c++) q[c] = (int16_t)SC_NAME(quantise)(x[c], SC_STATE16);
  for (int64_t c = w->cols; c % SC_PAD; c++) q[c] = 0;
  const uint8_t *count = w->count;
  int64_t at = 0; /* pairs so far */
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    float f[16] = {0};
    for (int64_t t = 0; t < tiles; t++, at += *count++)
      SC_NAME(add_pairs)(w->words + 32 * at, *count, q + w->tile_cols * t, NULL, w, f);
    while (w->tile_step && at < w->ptr[strip + 1]) {
      const int64_t left = w->ptr[strip + 1] - at, n = left < SC_FLUSH ? left : SC_FLUSH;
      SC_NAME(add_pairs)(w->words + 32 * at, n, q, w->base + at, w, f);
      at += n;
    }
    for (int64_t i = 0; i < 16 && r + i < w->rows; i++) SC_NAME(finish_row)(w, r + i, f[i], 1.0f / SC_STATE16, bias, y);
  }
}

static void SC_PLAIN(dense16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int16_t *q = (int16_t *)(void *)scratch;
  const int64_t pairs = (w->cols + 1) / 2;
  for (int64_t c = 0; c < w->cols; c++) q[c] = (int16_t)SC_NAME(quantise)(x[c], SC_STATE16);
  if (w->cols % 2) q[w->cols] = 0;
  for (int64_t r = 0; r < w->rows; r += 16) {
    const int16_t *v = w->words + r * pairs * 2;
    int32_t s[16] = {0};
    for (int64_t p = 0; p < pairs; p++)
      for (int i = 0; i < 32; i++) s[i / 2] += v[32 * p + i] * q[2 * p + i % 2];
    for (int64_t i = 0; i < 16 && r + i < w->rows; i++)
      SC_NAME(finish_row)(w, r + i, (float)s[i], 1.0f / SC_STATE16, bias, y);
  }
}

/* The state is stored with 128 added (unsigned bytes); `correction` undoes that. */
static void SC_PLAIN(dense8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  uint8_t *q = (uint8_t *)(void *)scratch;
  const int64_t quads = (w->cols + 3) / 4;
  for (int64_t c = 0; c < w->cols; c++) q[c] = (uint8_t)(SC_NAME(quantise)(x[c], SC_STATE8) + 128);
  for (int64_t c = w->cols; c < quads * 4; c++) q[c] = 128;
  for (int64_t r = 0; r < w->rows; r += 16) {
    const int8_t *v = w->bytes + r * quads * 4;
    int32_t s[16] = {0};
    for (int64_t p = 0; p < quads; p++)
      for (int i = 0; i < 64; i++) s[i / 4] += v[64 * p + i] * q[4 * p + i % 4];
    for (int64_t i = 0; i < 16 && r + i < w->rows; i++)
      SC_NAME(finish_row)(w, r + i, (float)(s[i] - w->correction[r + i]), 1.0f / SC_STATE8, bias, y);
  }
}
#endif
