/* Products of training: dense ones, and those sampled on live connections; included by training.h. */
#ifndef SC_TRAINING_PRODUCTS_H
#define SC_TRAINING_PRODUCTS_H

#ifndef SC_DENSE_VECTORS
#define SC_DENSE_VECTORS 2 /* vectors of a row of results that are summed at once, for four rows: all in registers */
#endif

/* Four rows times some vectors of results; rows past the last are computed from the last one and not stored. */
SC_INLINE void SC_NAME(dense_block)(const sc_dense *p, int64_t r, int64_t k, const int vectors) {
  const int64_t n = p->rows - r < 4 ? p->rows - r : 4;
  const float *a[4];
  sc_vec s[4][SC_DENSE_VECTORS];
  for (int i = 0; i < 4; i++) {
    const int64_t row = r + (i < n ? i : n - 1);
    a[i] = p->a + row * p->lda;
    for (int v = 0; v < vectors; v++)
      s[i][v] = p->add ? sc_load(p->y + row * p->ldy + k + v * SC_VL) : sc_splat(p->bias ? p->bias[row] : 0.0f);
  }
  for (int64_t c = 0; c < p->inner; c++) {
    const float *q = p->x + c * p->ldx + k;
    sc_vec x[SC_DENSE_VECTORS];
    for (int v = 0; v < vectors; v++) x[v] = sc_load(q + v * SC_VL);
    for (int i = 0; i < 4; i++)
      for (int v = 0; v < vectors; v++) s[i][v] = sc_madd(a[i][c], x[v], s[i][v]);
  }
  for (int64_t i = 0; i < n; i++)
    for (int v = 0; v < vectors; v++) sc_store(p->y + (r + i) * p->ldy + k + v * SC_VL, s[i][v]);
}

static void SC_NAME(dense_product)(const sc_dense *p) {
  int64_t k = 0;
  for (; k + SC_DENSE_VECTORS * SC_VL <= p->cols; k += SC_DENSE_VECTORS * SC_VL)
    for (int64_t r = 0; r < p->rows; r += 4) SC_NAME(dense_block)(p, r, k, SC_DENSE_VECTORS);
  for (; k + SC_VL <= p->cols; k += SC_VL)
    for (int64_t r = 0; r < p->rows; r += 4) SC_NAME(dense_block)(p, r, k, 1);
}

/* The dot products of `a` with four rows of h. */
SC_INLINE sc_quad SC_NAME(dot4)(const float *a, const float *h, const int32_t *index, int64_t wide) {
  const float *h0 = h + (int64_t)index[0] * wide, *h1 = h + (int64_t)index[1] * wide;
  const float *h2 = h + (int64_t)index[2] * wide, *h3 = h + (int64_t)index[3] * wide;
  sc_vec s0 = sc_splat(0.0f), s1 = s0, s2 = s0, s3 = s0;
  for (int64_t k = 0; k < wide; k += SC_VL) {
    const sc_vec v = sc_load(a + k);
    s0 = sc_fma(v, sc_load(h0 + k), s0);
    s1 = sc_fma(v, sc_load(h1 + k), s1);
    s2 = sc_fma(v, sc_load(h2 + k), s2);
    s3 = sc_fma(v, sc_load(h3 + k), s3);
  }
  return sc_sum4(s0, s1, s2, s3);
}

SC_INLINE void SC_NAME(sampled_wide)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h,
                                     const int64_t wide, float *dv) {
  for (int64_t r = 0; r < w->rows; r++) {
    const float *ar = a + (r < split ? r : r + skip) * wide;
    int32_t i = w->ptr[r];
    const int32_t to = w->ptr[r + 1];
    for (; i + 4 <= to; i += 4) {
      const sc_quad sums = sc_load4(dv + i) + SC_NAME(dot4)(ar, h, w->index32 + i, wide);
      memcpy(dv + i, &sums, sizeof sums);
    }
    if (i == to) continue;
    int32_t index[4]; /* the last few, filled up with repetitions */
    for (int32_t n = 0; n < 4; n++) index[n] = w->index32[i + n < to ? i + n : to - 1];
    const sc_quad sums = SC_NAME(dot4)(ar, h, index, wide);
    for (int32_t n = 0; i + n < to; n++) dv[i + n] += sums[n];
  }
}

/* A width that the compiler knows keeps the row of `a` in registers. */
static void SC_NAME(sampled)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h,
                             int64_t wide, float *dv) {
  if (wide == 4 * SC_VL)
    SC_NAME(sampled_wide)(w, a, split, skip, h, 4 * SC_VL, dv);
  else
    SC_NAME(sampled_wide)(w, a, split, skip, h, wide, dv);
}

static void SC_NAME(row_sums)(const float *a, int64_t rows, int64_t wide, float *sum) {
  for (int64_t r = 0; r < rows; r++) {
    sc_vec s = sc_splat(0.0f);
    for (int64_t k = 0; k < wide; k += SC_VL) s += sc_load(a + r * wide + k);
    sum[r] += sc_sum(s);
  }
}

#endif
