/* Multiplies by packed matrices from standard input, so that packers can be tested against kernels of another machine:
 *
 *   run_packed ISA < problems > results
 *
 * A problem: the format's name in 16 bytes; rows, cols, tile_rows, tile_cols, tile_step, tile_depth, number of vectors
 * and number of arrays as int64; then each array: its name in 16 bytes, its length in bytes as int64, its bytes. Beside
 * those of sc_matrix there are `x` [vectors][cols] and `bias`. A result: [vectors][rows] floats.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/sparsecirc.h"

typedef struct problem {
  sc_matrix w;
  const float *x, *bias;
  int64_t n_x, n_bias;
} problem;

static const struct {
  const char *name;
  size_t array, count, size;
} arrays[] = {
#define ARRAY(name, field, count) \
  {#name, offsetof(problem, field), offsetof(problem, count), sizeof *((problem *)0)->field}
    ARRAY(values, w.values, w.n_values),
    ARRAY(ptr, w.ptr, w.n_ptr),
    ARRAY(index32, w.index32, w.n_index),
    ARRAY(index16, w.index16, w.n_index),
    ARRAY(index8, w.index8, w.n_index),
    ARRAY(base, w.base, w.n_base),
    ARRAY(words, w.words, w.n_words),
    ARRAY(words8, w.bytes, w.n_bytes),
    ARRAY(scale, w.scale, w.n_scale),
    ARRAY(correction, w.correction, w.n_correction),
    ARRAY(order, w.order, w.n_order),
    ARRAY(x, x, n_x),
    ARRAY(bias, bias, n_bias),
#undef ARRAY
};
enum { ARRAYS = sizeof arrays / sizeof *arrays, NAME = 16 };

static const char *formats[] = {
#define X(name, has_mm) #name,
    SC_FORMATS(X)
#undef X
};

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void need(void *to, int64_t bytes) {
  if (fread(to, 1, (size_t)bytes, stdin) != (size_t)bytes) fail("input", "ends early");
}

/* Reads one array into its place in `p`; returns what is to be freed. */
static void *read_array(problem *p) {
  char name[NAME];
  int64_t bytes;
  need(name, NAME);
  need(&bytes, sizeof bytes);
  void *data = aligned_alloc(64, ((size_t)bytes + 127) / 64 * 64);
  if (!data) fail(name, "out of memory");
  need(data, bytes);
  int k = 0;
  while (k < ARRAYS && strcmp(arrays[k].name, name)) k++;
  if (k == ARRAYS) fail(name, "run_packed does not know this array");
  const int64_t n = bytes / (int64_t)arrays[k].size;
  memcpy((char *)p + arrays[k].array, &data, sizeof data);
  memcpy((char *)p + arrays[k].count, &n, sizeof n);
  return data;
}

static void solve(const sc_ops *ops, const char *format) {
  int64_t head[8];
  problem p;
  memset(&p, 0, sizeof p);
  need(head, sizeof head);
  for (int f = 0; f <= SC_N_FORMATS; f++) {
    if (f == SC_N_FORMATS) fail(format, "unknown format");
    p.w.format = f;
    if (!strcmp(formats[f], format)) break;
  }
  p.w.rows = head[0];
  p.w.cols = head[1];
  p.w.tile_rows = head[2];
  p.w.tile_cols = head[3];
  p.w.tile_step = head[4];
  p.w.tile_depth = head[5];
  const int64_t vectors = head[6];
  void *owned[ARRAYS];
  if (head[7] > ARRAYS) fail(format, "too many arrays");
  for (int64_t k = 0; k < head[7]; k++) owned[k] = read_array(&p);
  const char *why = sc_matrix_check(&p.w);
  if (!why) why = sc_matrix_supported(ops, &p.w);
  if (why) fail(format, why);
  if (p.n_x != vectors * p.w.cols || (p.bias && p.n_bias != p.w.rows)) fail(format, "x or bias has another length");
  float *y = calloc((size_t)(vectors * p.w.rows) + 1, sizeof *y);
  float *space = aligned_alloc(64, (sc_product_workspace(&p.w) + 16) / 16 * 64);
  if (!y || !space) fail(format, "out of memory");
  sc_product(ops, &p.w, p.x, p.w.cols, vectors, p.bias, y, p.w.rows, space);
  fwrite(y, sizeof *y, (size_t)(vectors * p.w.rows), stdout);
  free(y);
  free(space);
  for (int64_t k = 0; k < head[7]; k++) free(owned[k]);
}

int main(int argc, char **argv) {
  const sc_ops *ops = argc > 1 ? sc_ops_for(argv[1]) : NULL;
  if (!ops) {
    fprintf(stderr, "usage: run_packed ISA, an instruction set of this build and processor\n");
    return 2;
  }
  char format[NAME];
  while (fread(format, NAME, 1, stdin) == 1) solve(ops, format);
  return 0;
}
