/* Integer products in plain C, on generic.h: the state is quantised, products are summed in int32, sums are scaled per
 * row.
 *
 * The state must lie in [-1, 1] (h of rnn_tanh, gru and lstm); what lies outside is clipped. No integer stands for NaN,
 * so a NaN anywhere in the state makes the whole product NaN. Every
 * instruction set gives the same integers.
 */
#ifndef SC_INTEGER_H
#define SC_INTEGER_H

#include <string.h>

#include "../include/sparsecirc.h"

/* Whether a state is NaN; then all of y is. */
static inline int SC_NAME(nan_state)(const sc_matrix *w, const float *x, float *y) {
  int found = 0;
  for (int64_t c = 0; c < w->cols; c++) found |= x[c] != x[c];
  for (int64_t r = 0; found && r < w->rows; r++) y[sc_place(w, r)] = __builtin_nanf("");
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

#include "lookup.h"

#endif
