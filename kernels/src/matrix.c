/* Checks of a packed matrix: after sc_matrix_check no kernel can read or write outside its arrays. */
#include "../include/sparsecirc.h"

static int64_t strips(int64_t rows, int64_t height) { return (rows + height - 1) / height; }

/* Whether an array that should hold n entries is not there. */
static int missing(const void *array, int64_t n) { return !array && n > 0; }

static const char *check_ptr(const sc_matrix *w, int64_t n, int64_t total) {
  if (missing(w->ptr, n + 1)) return "row pointers are missing";
  if (w->n_ptr != n + 1 || w->ptr[0] != 0 || w->ptr[n] != total) return "row pointers do not cover the values";
  for (int64_t i = 0; i < n; i++)
    if (w->ptr[i] > w->ptr[i + 1]) return "row pointers decrease";
  return NULL;
}

static const char *check_index(const sc_matrix *w, int64_t n, int64_t limit) {
  if (w->n_index != n || missing(w->index32, n)) return "there is not one index per value or block";
  for (int64_t i = 0; i < n; i++)
    if (w->index32[i] < 0 || w->index32[i] >= limit) return "an index is outside the matrix";
  return NULL;
}

static const char *check_index16(const sc_matrix *w, int64_t n, int64_t limit) {
  if (w->n_index != n || missing(w->index16, n)) return "there is not one index per value";
  for (int64_t i = 0; i < n; i++)
    if (w->index16[i] >= limit) return "an index is outside the matrix";
  return NULL;
}

/* Columns of a tile are at most 65536, and those of the last one fewer. */
static const char *check_tiled_csr(const sc_matrix *w) {
  if (w->tile_rows < 1 || w->tile_cols < 1 || w->tile_cols > 65536) return "the tile shape is unknown";
  const int64_t tiles = strips(w->cols, w->tile_cols), lists = strips(w->rows, w->tile_rows) * tiles * w->tile_rows;
  const char *why = check_ptr(w, lists, w->n_values);
  if (why) return why;
  if (w->n_index != w->n_values || missing(w->index16, w->n_index)) return "there is not one index per value";
  for (int64_t k = 0; k < lists; k++) {
    const int64_t left = w->cols - k / w->tile_rows % tiles * w->tile_cols;
    const int64_t limit = left < w->tile_cols ? left : w->tile_cols;
    for (int32_t i = w->ptr[k]; i < w->ptr[k + 1]; i++)
      if (w->index16[i] >= limit) return "an index is outside its tile";
  }
  return NULL;
}

static const char *check_pointers(const sc_matrix *w, int64_t lists, int64_t items, int64_t limit) {
  const char *why = check_ptr(w, lists, items);
  return why ? why : check_index(w, items, limit);
}

static const char *check_blocks(const sc_matrix *w, int64_t height, int64_t width) {
  if (w->cols % width) return "blocks do not divide the columns";
  if (w->n_values % (height * width)) return "values are not whole blocks";
  return check_pointers(w, strips(w->rows, height), w->n_values / (height * width), w->cols - width + 1);
}

/* Strips of 1 to 16 rows that follow each other and cover the matrix. */
static const char *check_block_diagonal(const sc_matrix *w) {
  const int64_t n = w->n_base - 1;
  if (n < 0 || n > w->rows || !w->base || w->base[0] != 0 || w->base[n] != w->rows)
    return "strips do not cover the rows";
  for (int64_t i = 0; i < n; i++)
    if (w->base[i + 1] <= w->base[i] || w->base[i + 1] - w->base[i] > 16) return "a strip has no row or more than 16";
  return w->n_values % 16 ? "values are not whole columns" : check_pointers(w, n, w->n_values / 16, w->cols);
}

/* Windows inside x and its padding, `stored` values for all of them. */
static const char *check_windows(const sc_matrix *w, int64_t pad, int64_t stored, int64_t a_slot) {
  const int64_t height = w->tile_rows, width = w->tile_cols, step = w->tile_step, n = w->n_base;
  if (height < 1 || height > 16 || width < 1 || width > pad || (width & (width - 1)) || step < 1 || step > pad ||
      w->tile_depth < 1 || w->tile_depth > SC_FLUSH)
    return "the shape of the windows is unknown";
  if (n > INT32_MAX || missing(w->base, n)) return "windows are missing";
  for (int64_t i = 0; i < n; i++)
    if (w->base[i] * step + width > strips(w->cols, pad) * pad) return "a window is outside the matrix";
  if (stored != n * w->tile_depth * height * a_slot) return "the windows do not cover the values";
  return check_ptr(w, strips(w->rows, height), n);
}

static const char *check_index8(const sc_matrix *w, int64_t n) {
  if (w->n_index != n || missing(w->index8, n)) return "there is not one index per value";
  for (int64_t i = 0; i < n; i++)
    if (w->index8[i] >= w->tile_cols) return "an index is outside its window";
  return NULL;
}

/* A sum of bytes and unsigned states, less the correction, is what signed states give only if the correction is 128 *
 * the row's sum. A strip holds groups of height x 4 bytes: as many each, or (-1) as ptr says.
 */
static const char *check_corrections(const sc_matrix *w, int64_t height, int64_t groups) {
  if (w->n_correction != w->rows || missing(w->correction, w->rows)) return "there is not one correction per row";
  for (int64_t r = 0; r < w->rows; r++) {
    const int64_t strip = r / height, from = groups >= 0 ? strip * groups : w->ptr[strip] * w->tile_depth;
    const int64_t to = groups >= 0 ? from + groups : w->ptr[strip + 1] * w->tile_depth;
    int64_t sum = 0;
    for (int64_t i = from * height * 4; i < to * height * 4; i += height * 4)
      for (int k = 0; k < 4; k++) {
        const int8_t v = w->bytes[i + r % height * 4 + k];
        if (v == INT8_MIN) return "a byte is -128, which some kernels cannot negate";
        sum += v;
      }
    if (w->correction[r] != 128 * sum) return "a correction is not 128 times the sum of its row";
  }
  return NULL;
}

static const char *check_lookup8(const sc_matrix *w) {
  const char *why = check_windows(w, SC_PAD8, w->n_bytes, 4);
  if (!why && missing(w->bytes, w->n_bytes)) why = "bytes are missing";
  if (!why) why = check_index8(w, w->n_bytes);
  for (int64_t i = 0; !why && i < w->n_ptr - 1; i++)
    if ((int64_t)(w->ptr[i + 1] - w->ptr[i]) * w->tile_depth * 4 > 65536) why = "a row has more bytes than a sum holds";
  return why ? why : check_corrections(w, w->tile_rows, -1);
}

/* Words of a window and their index: hidden in them, or (bfloat16) beside them. A sum of lookup16 is of 2 * SC_FLUSH
 * words, which stay in int32 whatever they are.
 */
static const char *check_words(const sc_matrix *w) {
  const int bf16 = w->format == SC_FMT_lookup_bf16;
  if (bf16 && w->tile_depth % 2) return "pairs of vectors need an even depth";
  if (!bf16 && w->tile_rows != 16) return "windows of words have 16 rows";
  const char *why = check_windows(w, SC_PAD, w->n_words, bf16 ? 1 : 2);
  if (!why && missing(w->words, w->n_words)) why = "words are missing";
  return why || !bf16 ? why : check_index8(w, w->n_words);
}

static const char *check_integers(const sc_matrix *w) {
  if (w->n_scale != w->rows || missing(w->scale, w->rows)) return "there is not one scale per row";
  if (w->format == SC_FMT_lookup16) return check_words(w);
  if (w->format == SC_FMT_lookup8) return check_lookup8(w);
  if (w->format == SC_FMT_dense16) {
    if (w->n_words != strips(w->rows, 16) * strips(w->cols, 2) * 32 || missing(w->words, w->n_words))
      return "dense words do not fill whole panels";
    const int64_t row = strips(w->cols, 2) * 2;
    for (int64_t r = 0; r < strips(w->rows, 16) * 16; r++) {
      int64_t sum = 0;
      for (int64_t c = 0; c < row; c++) {
        const int16_t v = w->words[(r / 16 * row + c / 2 * 2) * 16 + r % 16 * 2 + c % 2];
        sum += v < 0 ? -(int64_t)v : v;
      }
      if (sum * 2047 > INT32_MAX) return "the words of a row overflow its sum";
    }
    return NULL;
  }
  if (w->cols > 65536) return "dense bytes sum up to 65536 columns";
  if (w->n_bytes != strips(w->rows, 16) * strips(w->cols, 4) * 64 || missing(w->bytes, w->n_bytes))
    return "dense bytes do not fill whole panels";
  return check_corrections(w, 16, strips(w->cols, 4));
}

/* Every row of y is inside; that each comes once is for the caller to know. */
static const char *check_order(const sc_matrix *w) {
  switch (w->format) {
#define X(name) case SC_FMT_##name:
    SC_ORDERED(X)
#undef X
    break;
    default:
      return "rows of this format have no order of their own";
  }
  if (w->n_order != w->rows || missing(w->order, w->rows)) return "there is not one place in the order per row";
  for (int64_t r = 0; r < w->rows; r++)
    if (w->order[r] < 0 || w->order[r] >= w->rows) return "the order leaves the matrix";
  return NULL;
}

const char *sc_matrix_check(const sc_matrix *w) {
  if (w->rows < 0 || w->cols < 0 || w->rows > INT32_MAX - SC_PAD || w->cols > INT32_MAX - SC_PAD)
    return "the shape is out of range";
  if (missing(w->values, w->n_values)) return "values are missing";
  if (w->order || w->n_order) {
    const char *why = check_order(w);
    if (why) return why;
  }
  switch (w->format) {
    case SC_FMT_dense:
      return w->n_values == strips(w->rows, 16) * 16 * w->cols ? NULL : "dense panels need 16 * ceil(rows / 16) * cols";
    case SC_FMT_csr:
      return check_pointers(w, w->rows, w->n_values, w->cols);
#define X(name, height, width) \
  case SC_FMT_##name:          \
    return check_blocks(w, height, width);
      SC_BLOCKS(X)
#undef X
    case SC_FMT_block_diagonal:
      return check_block_diagonal(w);
    case SC_FMT_lookup: {
      const char *why = check_windows(w, SC_PAD, w->n_values, 1);
      return why ? why : check_index8(w, w->n_values);
    }
    case SC_FMT_mantissa: /* the column is masked to the window when it is read */
      return check_windows(w, SC_PAD, w->n_values, 1);
    case SC_FMT_lookup_bf16:
      return check_words(w);
    case SC_FMT_columns:
      if (!w->ptr && (w->index16 || w->index32)) return "column pointers are missing";
      if (!w->ptr) return w->n_values == w->rows * w->cols ? NULL : "dense columns need rows * cols values";
      if (w->index16) {
        const char *why = check_ptr(w, w->cols, w->n_values);
        return why ? why : check_index16(w, w->n_values, w->rows);
      }
      return check_pointers(w, w->cols, w->n_values, w->rows);
    case SC_FMT_columns16:
      if (w->rows % 16) return "columns of 16-row blocks need a multiple of 16 rows";
      return w->n_values % 16 ? "values are not whole blocks"
                              : check_pointers(w, w->cols, w->n_values / 16, w->rows / 16);
    case SC_FMT_tiled_csr:
      return check_tiled_csr(w);
    case SC_FMT_lookup16:
    case SC_FMT_lookup8:
    case SC_FMT_dense16:
    case SC_FMT_dense8:
      return check_integers(w);
    default:
      return "the format is unknown";
  }
}

int sc_reads_past_end(const sc_matrix *w) {
  return w->format == SC_FMT_lookup || w->format == SC_FMT_mantissa || w->format == SC_FMT_lookup_bf16;
}

const char *sc_matrix_supported(const sc_ops *ops, const sc_matrix *w) {
  const sc_tile *tile = &ops->tile[w->format];
  const int64_t depth = w->tile_depth;
  const int same = w->tile_rows == tile->rows && w->tile_cols == tile->cols && w->tile_step == tile->step;
  return !tile->rows || (same && (depth & (depth - 1)) == 0 && (depth & tile->depths)) ? NULL : tile->says;
}
