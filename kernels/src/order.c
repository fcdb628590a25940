/* Which rows share a strip: what an order costs, and a search for a better one.
 *
 * The search swaps rows of different strips as long as that does not cost slots. A strip costs, summed over parts of
 * its columns, as many slots as its longest row has there. For each place it holds the longest counts of the *other*
 * rows of its strip: a swap of two rows then costs two sums of maxima, and sum max(a, b) = (sum a + sum b + sum |a -
 * b|) / 2, of which only the last is not known beforehand.
 */
#include <string.h>

#include "../include/sparsecirc.h"

#define MOST_ROWS 16 /* of a strip */
#define TRIALS 16    /* random partners that a row is compared with before it moves */

typedef struct search {
  int64_t height, wide;                 /* rows of a strip; bytes of a row, a whole number of vectors */
  uint8_t *row, *others;                /* [places][wide]: counts of the row there; longest of the rest of its strip */
  uint8_t *before;                      /* [wide]: working space */
  int64_t *row_sum, *others_sum, *cost; /* [places], [places], [strips] */
} search;

static int64_t whole(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

size_t sc_order_workspace(int64_t rows, int64_t height, int64_t parts) {
  const int64_t places = whole(rows, height);
  return (size_t)((2 * places + 1) * whole(parts, 16) + (2 * places + places / height) * (int64_t)sizeof(int64_t));
}

static int64_t apart(const uint8_t *a, const uint8_t *b, int64_t n) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const int d = a[i] - b[i];
    sum += (uint32_t)(d < 0 ? -d : d);
  }
  return sum;
}

/* Slots of the strip of place p if the row of place q stood there. */
static int64_t cost_with(const search *s, int64_t p, int64_t q) {
  return (s->others_sum[p] + s->row_sum[q] + apart(s->others + p * s->wide, s->row + q * s->wide, s->wide)) / 2;
}

static int64_t sum(const uint8_t *a, int64_t n) {
  uint32_t total = 0;
  for (int64_t i = 0; i < n; i++) total += a[i];
  return total;
}

/* to[i] = max(a[i], b[i]) */
static void longest(uint8_t *to, const uint8_t *a, const uint8_t *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = a[i] > b[i] ? a[i] : b[i];
}

/* After the rows of a strip changed. */
static void refresh(search *s, int64_t strip) {
  const int64_t n = s->wide, first = strip * s->height, last = first + s->height - 1;
  memset(s->before, 0, (size_t)n);
  memset(s->others + last * n, 0, (size_t)n);
  for (int64_t p = last; p > first; p--) longest(s->others + (p - 1) * n, s->others + p * n, s->row + p * n, n);
  for (int64_t p = first; p <= last; p++) {
    longest(s->others + p * n, s->others + p * n, s->before, n);
    longest(s->before, s->before, s->row + p * n, n);
    s->others_sum[p] = sum(s->others + p * n, n);
  }
  s->cost[strip] = sum(s->before, n);
}

static void swap(search *s, int64_t p, int64_t q, int32_t *order) {
  for (int64_t t = 0; t < s->wide; t++) {
    const uint8_t count = s->row[p * s->wide + t];
    s->row[p * s->wide + t] = s->row[q * s->wide + t];
    s->row[q * s->wide + t] = count;
  }
  const int64_t total = s->row_sum[p];
  s->row_sum[p] = s->row_sum[q];
  s->row_sum[q] = total;
  const int32_t was = order[p];
  order[p] = order[q];
  order[q] = was;
  refresh(s, p / s->height);
  refresh(s, q / s->height);
}

/* A number below n; the same ones in every run. */
static int64_t below(uint32_t *state, int64_t n) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return (int64_t)(((uint64_t)*state * (uint64_t)n) >> 32);
}

int64_t sc_order_rows(int64_t rows, int64_t height, int64_t parts, const uint8_t *count, int64_t turns, int32_t *order,
                      void *workspace) {
  const int64_t wide = whole(parts, 16), places = whole(rows, height), strips = places / height;
  int64_t *sums = workspace;
  search s = {height, wide, NULL, NULL, NULL, sums, sums + places, sums + 2 * places};
  s.row = (uint8_t *)(sums + 2 * places + strips);
  s.others = s.row + places * wide;
  s.before = s.others + places * wide;
  memset(s.row, 0, (size_t)(places * wide));
  for (int64_t p = 0; p < rows && parts > 0; p++) memcpy(s.row + p * wide, count + order[p] * parts, (size_t)parts);
  for (int64_t p = 0; p < places; p++) s.row_sum[p] = sum(s.row + p * wide, wide);
  for (int64_t k = 0; k < strips; k++) refresh(&s, k);
  uint32_t state = 2463534242u;
  for (; turns > 0 && strips > 1; turns--) {
    const int64_t p = below(&state, rows);
    int64_t best = 1,
            with = -1; /* a swap that costs nothing is made as well: it leads away from where all others cost */
    for (int k = 0; k < TRIALS; k++) {
      const int64_t q = below(&state, rows);
      if (q / height == p / height) continue;
      const int64_t more = cost_with(&s, p, q) + cost_with(&s, q, p) - s.cost[p / height] - s.cost[q / height];
      if (more < best) {
        best = more;
        with = q;
      }
    }
    if (with >= 0) swap(&s, p, with, order);
  }
  int64_t total = 0;
  for (int64_t k = 0; k < strips; k++) total += s.cost[k];
  return total;
}

int64_t sc_count_windows(int64_t rows, int64_t cols, const int32_t *ptr, const int32_t *index, const int32_t *order,
                         int64_t height, int64_t width, int64_t step, int64_t depth) {
  const int64_t most = width > SC_PAD ? width : SC_PAD, last = whole(cols, most) - width;
  int64_t windows = 0;
  for (int64_t r = 0; r < rows; r += height) {
    const int64_t n = rows - r < height ? rows - r : height;
    const int32_t *next[MOST_ROWS], *end[MOST_ROWS];
    for (int64_t i = 0; i < n; i++) {
      const int64_t row = order ? order[r + i] : r + i;
      next[i] = index + ptr[row];
      end[i] = index + ptr[row + 1];
    }
    for (;; windows++) {
      int64_t first = cols;
      for (int64_t i = 0; i < n; i++)
        if (next[i] < end[i] && *next[i] < first) first = *next[i];
      if (first == cols) break;
      first = first / step * step < last ? first / step * step : last;
      for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < depth && next[i] < end[i] && *next[i] < first + width; k++) next[i]++;
    }
  }
  return windows;
}
