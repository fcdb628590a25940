/* Batches of spikes: a mask register says which of 16 samples a weight is added to, so that no input is loaded and
 * none is multiplied.
 */
#ifndef SC_SPIKES_AVX512_H
#define SC_SPIKES_AVX512_H

#define SC_GROUPS (SC_SPIKES / 16)

SC_INLINE __mmask16 sc_mask(const uint16_t *m) { return _load_mask16((__mmask16 *)(uintptr_t)m); }

/* The transpose of 64 x 64 bits, in place: halves of ever smaller squares change places. */
static void sc_turn_bits(uint64_t a[64]) {
  uint64_t keep = 0xffffffffu;
  for (int side = 32; side; side >>= 1, keep ^= keep << side)
    for (int k = 0; k < 64; k = ((k | side) + 1) & ~side) {
      const uint64_t moved = ((a[k] >> side) ^ a[k | side]) & keep;
      a[k | side] ^= moved;
      a[k] ^= moved << side;
    }
}

static int64_t SC_NAME(pack)(const float *x, int64_t ldx, int64_t batch, int64_t n, uint16_t *masks) {
  const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
  int64_t found = 0;
  for (int64_t from = 0; from < n; from += 64) {
    uint64_t bits[64] = {0};
    __mmask16 other = 0;
    for (int64_t b = 0; b < batch; b++)
      for (int64_t i = from, at = 0; i < n && at < 64; i += 16, at += 16) {
        const __m512 v = _mm512_maskz_loadu_ps(sc_tail(n - i), x + b * ldx + i);
        const __mmask16 on = _mm512_cmp_ps_mask(v, zero, _CMP_NEQ_UQ);
        other |= _mm512_mask_cmp_ps_mask(on, v, one, _CMP_NEQ_UQ);
        bits[b] |= (uint64_t)on << at;
      }
    if (other) return -1;
    sc_turn_bits(bits);
    for (int64_t i = from; i < n && i < from + 64; i++) {
      memcpy(masks + i * SC_GROUPS, &bits[i - from], sizeof bits[0]);
      for (int g = 0; g < SC_GROUPS; g++) found += masks[i * SC_GROUPS + g] != 0;
    }
  }
  return found;
}

static int64_t SC_NAME(fired)(const float *spikes, int64_t n, int64_t groups, uint16_t *masks) {
  int64_t found = 0;
  for (int64_t g = 0; g < groups; g++)
    for (int64_t i = 0; i < n; i++) {
      const __m512 v = _mm512_loadu_ps(spikes + (g * n + i) * 16);
      const __mmask16 on = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      masks[i * SC_GROUPS + g] = (uint16_t)on;
      found += on != 0;
    }
  return found;
}

/* ROWS rows from r on at once: their sums are independent, and wait for each other less. They end at their own weights;
 * what the shortest of them has not is added row by row.
 */
SC_INLINE void sc_masked_rows(const sc_matrix *w, const uint16_t *masks, const float *bias, int64_t r, float *y,
                              const int groups, const int rows) {
  __m512 s[4][SC_GROUPS];
  int32_t k[4], shortest = INT32_MAX;
  for (int j = 0; j < rows; j++) {
    k[j] = w->ptr[r + j];
    const int32_t length = w->ptr[r + j + 1] - k[j];
    shortest = length < shortest ? length : shortest;
    for (int g = 0; g < groups; g++) s[j][g] = _mm512_set1_ps(bias ? bias[r + j] : 0.0f);
  }
#define SC_ADD(J)                                                                                       \
  {                                                                                                     \
    const __m512 v = _mm512_set1_ps(w->values[k[J]]);                                                   \
    const uint16_t *m = masks + (int64_t)w->index32[k[J]] * SC_GROUPS;                                  \
    for (int g = 0; g < groups; g++) s[J][g] = _mm512_mask_add_ps(s[J][g], sc_mask(m + g), s[J][g], v); \
    k[J]++;                                                                                             \
  }
  for (int32_t i = 0; i < shortest; i++)
    for (int j = 0; j < rows; j++) SC_ADD(j)
  for (int j = 0; j < rows; j++)
    while (k[j] < w->ptr[r + j + 1]) SC_ADD(j)
#undef SC_ADD
  for (int j = 0; j < rows; j++)
    for (int g = 0; g < groups; g++) _mm512_storeu_ps(y + (g * w->rows + r + j) * 16, s[j][g]);
}

SC_INLINE void sc_all_masked_rows(const sc_matrix *w, const uint16_t *masks, const float *bias, float *y,
                                  const int groups, const int rows) {
  int64_t r = 0;
  for (; r + rows <= w->rows; r += rows) sc_masked_rows(w, masks, bias, r, y, groups, rows);
  for (; r < w->rows; r++) sc_masked_rows(w, masks, bias, r, y, groups, 1);
}

static void SC_NAME(rows)(const sc_matrix *w, const uint16_t *masks, const float *bias, int64_t groups, float *y) {
  switch (groups) {
    case 1:
      sc_all_masked_rows(w, masks, bias, y, 1, 4);
      return;
    case 2:
      sc_all_masked_rows(w, masks, bias, y, 2, 4);
      return;
    case 3:
      sc_all_masked_rows(w, masks, bias, y, 3, 2);
      return;
    default:
      sc_all_masked_rows(w, masks, bias, y, 4, 2);
  }
}

/* One column: a single spike touches one lane of each sum. */
#define SC_ADD_MASKED(INDEX)                                                                         \
  if (!(m & (m - 1))) {                                                                              \
    float *lane = y + __builtin_ctz(m);                                                              \
    for (int32_t i = from; i < to; i++) lane[16 * (int64_t)(INDEX)[i]] += w->values[i];              \
  } else {                                                                                           \
    for (int32_t i = from; i < to; i++) {                                                            \
      float *s = y + 16 * (int64_t)(INDEX)[i];                                                       \
      const __m512 was = _mm512_loadu_ps(s);                                                         \
      _mm512_storeu_ps(s, _mm512_mask_add_ps(was, (__mmask16)m, was, _mm512_set1_ps(w->values[i]))); \
    }                                                                                                \
  }

static void SC_NAME(columns)(const sc_matrix *w, const uint16_t *masks, const float *bias, int64_t groups, float *y) {
  for (int64_t g = 0; g < groups; g++, y += w->rows * 16) {
    for (int64_t r = 0; r < w->rows; r++) _mm512_storeu_ps(y + 16 * r, _mm512_set1_ps(bias ? bias[r] : 0.0f));
    for (int64_t c = 0; c < w->cols; c++) {
      const uint32_t m = masks[c * SC_GROUPS + g];
      if (!m) continue;
      const int32_t from = w->ptr[c], to = w->ptr[c + 1];
      if (w->index16) {
        SC_ADD_MASKED(w->index16)
      } else {
        SC_ADD_MASKED(w->index32)
      }
    }
  }
}
#undef SC_ADD_MASKED

/* The transpose of 16 x 16 floats: within lanes of 128 bits, then of the lanes. */
SC_INLINE void sc_turn_tile(__m512 r[16]) {
  __m512 u[16];
  for (int q = 0; q < 16; q += 4) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[q], r[q + 1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[q], r[q + 1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[q + 2], r[q + 3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[q + 2], r[q + 3]));
    u[q] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    u[q + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    u[q + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    u[q + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  for (int j = 0; j < 4; j++) {
    const __m512 a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x44), b = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xee);
    const __m512 c = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x44),
                 d = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xee);
    r[j] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[4 + j] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[8 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[12 + j] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

static void SC_NAME(to_lanes)(const float *x, int64_t ldx, int64_t batch, int64_t n, float *y) {
  for (int64_t b = 0; b < batch; b += 16, y += n * 16)
    for (int64_t i = 0; i < n; i += 16) {
      __m512 r[16];
      for (int64_t k = 0; k < 16; k++)
        r[k] = b + k < batch ? _mm512_maskz_loadu_ps(sc_tail(n - i), x + (b + k) * ldx + i) : _mm512_setzero_ps();
      sc_turn_tile(r);
      for (int64_t k = 0; k < 16 && i + k < n; k++) _mm512_storeu_ps(y + (i + k) * 16, r[k]);
    }
}

static void SC_NAME(to_samples)(const float *y, int64_t batch, int64_t n, float *x, int64_t ldx) {
  for (int64_t b = 0; b < batch; b += 16, y += n * 16)
    for (int64_t i = 0; i < n; i += 16) {
      __m512 r[16];
      for (int64_t k = 0; k < 16; k++) r[k] = i + k < n ? _mm512_loadu_ps(y + (i + k) * 16) : _mm512_setzero_ps();
      sc_turn_tile(r);
      for (int64_t k = 0; k < 16 && b + k < batch; k++)
        _mm512_mask_storeu_ps(x + (b + k) * ldx + i, sc_tail(n - i), r[k]);
    }
}

static const sc_spike_ops SC_NAME(spikes) = {SC_NAME(pack),    SC_NAME(fired),    SC_NAME(rows),
                                             SC_NAME(columns), SC_NAME(to_lanes), SC_NAME(to_samples)};

#endif
