/* Lookups in plain C, on generic.h and integer.h: any window, any depth. docs/formats.md draws them. */
#ifndef SC_LOOKUP_H
#define SC_LOOKUP_H

/* Adds the vectors of window g: a weight for each row, and an input that the index beside it or its low bits choose. */
static inline void SC_NAME(add_window)(const sc_matrix *w, int64_t g, const float *x, float *s) {
  const int64_t height = w->tile_rows, depth = w->tile_depth;
  const uint32_t mask = (uint32_t)w->tile_cols - 1;
  const uint8_t *ix = w->format == SC_FMT_mantissa ? NULL : w->index8 + g * height * depth;
  x += w->base[g] * w->tile_step;
  for (int64_t k = 0; k < depth; k++)
    for (int64_t i = 0; i < height; i++) {
      uint32_t bits;
      float v;
      if (w->format == SC_FMT_lookup_bf16)
        bits = (uint32_t)(uint16_t)w->words[((g * depth + k) / 2 * height + i) * 2 + k % 2] << 16;
      else
        memcpy(&bits, &w->values[(g * depth + k) * height + i], sizeof bits);
      memcpy(&v, &bits, sizeof v);
      s[i] += v * x[ix ? ix[i * depth + k] : bits & mask];
    }
}

static void SC_PLAIN(lookup_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  const int64_t height = w->tile_rows;
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    float s[16] = {0};
    for (int64_t g = w->ptr[strip]; g < w->ptr[strip + 1]; g++) SC_NAME(add_window)(w, g, x, s);
    for (int64_t i = 0; i < height && r + i < w->rows; i++) y[sc_place(w, r + i)] = s[i] + (bias ? bias[r + i] : 0.0f);
  }
}

static void SC_PLAIN(mantissa_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  SC_NAME(plain_lookup_mv)(w, x, bias, y, scratch);
}

static void SC_PLAIN(lookup_bf16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y,
                                     int32_t *scratch) {
  SC_NAME(plain_lookup_mv)(w, x, bias, y, scratch);
}

static void SC_PLAIN(lookup16_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int16_t *q = (int16_t *)(void *)scratch;
  const int32_t mask = (int32_t)w->tile_cols - 1;
  const int64_t depth = w->tile_depth, block = SC_FLUSH / depth;
  for (int64_t c = 0; c < w->cols; c++) q[c] = (int16_t)SC_NAME(quantise)(x[c], SC_STATE16);
  for (int64_t c = w->cols; c % SC_PAD; c++) q[c] = 0;
  for (int64_t r = 0, strip = 0; r < w->rows; r += 16, strip++) {
    const int64_t end = w->ptr[strip + 1];
    float f[16] = {0};
    for (int64_t g = w->ptr[strip]; g < end;) {
      const int64_t stop = end - g < block ? end : g + block;
      int32_t s[16] = {0};
      for (; g < stop; g++) {
        const int16_t *from = q + w->base[g] * w->tile_step, *v = w->words + g * depth * 32;
        for (int64_t i = 0; i < 32 * depth; i++) s[i % 32 / 2] += v[i] * from[v[i] & mask];
      }
      for (int i = 0; i < 16; i++) f[i] += (float)s[i];
    }
    for (int64_t i = 0; i < 16 && r + i < w->rows; i++) SC_NAME(finish_row)(w, r + i, f[i], 1.0f / SC_STATE16, bias, y);
  }
}

/* The state stays signed here, so that there is nothing to correct. */
static void SC_PLAIN(lookup8_mv)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  if (SC_NAME(nan_state)(w, x, y)) return;
  int8_t *q = (int8_t *)(void *)scratch;
  const int64_t height = w->tile_rows, vector = 4 * height;
  for (int64_t c = 0; c < w->cols; c++) q[c] = (int8_t)SC_NAME(quantise)(x[c], SC_STATE8);
  for (int64_t c = w->cols; c % SC_PAD8; c++) q[c] = 0;
  for (int64_t r = 0, strip = 0; r < w->rows; r += height, strip++) {
    int32_t s[16] = {0};
    for (int64_t g = w->ptr[strip]; g < w->ptr[strip + 1]; g++) {
      const int8_t *from = q + w->base[g] * w->tile_step, *v = w->bytes + g * w->tile_depth * vector;
      const uint8_t *ix = w->index8 + g * w->tile_depth * vector;
      for (int64_t i = 0; i < vector * w->tile_depth; i++) s[i % vector / 4] += v[i] * from[ix[i]];
    }
    for (int64_t i = 0; i < height && r + i < w->rows; i++)
      SC_NAME(finish_row)(w, r + i, (float)s[i], 1.0f / SC_STATE8, bias, y);
  }
}

#endif
