/* A part of the rows of a matrix, for one of several threads that share its product: whole strips, about as many
 * weights for each. Every row is summed as it would be alone, so that a result does not depend on the number of
 * threads.
 */
#include "../include/sparsecirc.h"

/* Rows of a strip; 0 where rows cannot be told apart without reading the others as well. */
static int64_t strip_rows(const sc_matrix *w) {
  switch (w->format) {
#define X(name, height, width) \
  case SC_FMT_##name:          \
    return height;
    SC_BLOCKS(X)
#undef X
    case SC_FMT_csr:
      return 1;
    case SC_FMT_dense:
      return 64; /* strips whose sums a kernel may take together, in another order than alone */
    case SC_FMT_dense16:
    case SC_FMT_dense8:
    case SC_FMT_block_diagonal: /* at most */
      return 16;
    case SC_FMT_lookup:
    case SC_FMT_mantissa:
    case SC_FMT_lookup_bf16:
    case SC_FMT_lookup16:
    case SC_FMT_lookup8:
      return w->tile_rows;
    default:
      return 0;
  }
}

int sc_can_part(const sc_matrix *w) { return strip_rows(w) > 0; }

/* The strip at which part `member` of `members` begins. */
static int64_t begins(const sc_matrix *w, int64_t strips, int64_t member, int64_t members) {
  if (!w->ptr) return strips * member / members;
  const int64_t wanted = w->ptr[strips] * member / members;
  int64_t low = 0, high = strips;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (w->ptr[middle] < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return member == members ? strips : low;
}

int64_t sc_part(const sc_matrix *w, int64_t member, int64_t members, sc_matrix *part) {
  const int64_t height = strip_rows(w), fixed = w->format != SC_FMT_block_diagonal;
  const int64_t strips = fixed ? (w->rows + height - 1) / height : w->n_ptr - 1;
  const int64_t from = begins(w, strips, member, members), to = begins(w, strips, member + 1, members);
  const int64_t first = fixed ? from * height : 0;
  *part = *w;
  if (fixed)
    part->rows = (to * height < w->rows ? to * height : w->rows) - first;
  else { /* its strips say where their rows are */
    part->rows = w->base[to];
    part->base += from;
  }
  if (w->ptr) {
    part->ptr += from;
    part->n_ptr = to - from + 1;
  }
  if (w->format == SC_FMT_dense) part->values += first * w->cols;
  if (w->format == SC_FMT_dense16) part->words += first * ((w->cols + 1) / 2) * 2;
  if (w->format == SC_FMT_dense8) part->bytes += first * ((w->cols + 3) / 4) * 4;
  if (w->scale) part->scale += first;
  if (w->correction) part->correction += first;
  if (w->order) part->order += first;
  return first;
}
