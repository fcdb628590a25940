/* Packs random matrices in every layout of library/pack.c and multiplies by them; run under sanitizers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pack.h"

static uint32_t state = 7;
static float uniform(void) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return (float)(int32_t)state * 0x1p-31f;
}

static int check(const sc_ops *ops, const sc_packed *p, const float *w, const char *what) {
  const int64_t rows = p->m.rows, cols = p->m.cols;
  float *x = sc_zeros((size_t)cols, sizeof *x), *y = sc_zeros((size_t)rows + 16, sizeof *y);
  float *space = sc_zeros(sc_product_workspace(&p->m), sizeof *space);
  for (int64_t c = 0; c < cols; c++) x[c] = uniform();
  sc_product_step(ops, &p->m, x, NULL, y, space);
  int wrong = 0;
  for (int64_t r = 0; r < rows; r++) {
    double sum = 0, size = 1;
    for (int64_t c = 0; c < cols; c++) sum += (double)w[r * cols + c] * x[c], size += fabs((double)w[r * cols + c]);
    wrong |= !(fabs(sum - (double)y[r]) <= 1e-5 * size);
  }
  if (wrong) printf("%s of %d x %d is wrong\n", what, (int)rows, (int)cols);
  free(x);
  free(y);
  free(space);
  return wrong;
}

int main(void) {
  const int shapes[][2] = {{1, 1}, {3, 5}, {16, 16}, {17, 64}, {48, 20}, {96, 130}, {5, 0}, {33, 4}};
  const float densities[] = {0.0f, 0.05f, 0.3f, 1.0f};
  const int formats[] = {SC_FMT_dense,    SC_FMT_csr,      SC_FMT_block16x1, SC_FMT_block8x1,
                         SC_FMT_block8x4, SC_FMT_block4x4, SC_FMT_lookup,    SC_FMT_columns};
  const sc_ops *ops = sc_best_ops();
  int wrong = 0, packed = 0;
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (size_t d = 0; d < sizeof densities / sizeof *densities; d++) {
      const int64_t rows = shapes[s][0], cols = shapes[s][1];
      float *w = malloc((size_t)(rows * cols + 1) * sizeof *w); /* exactly: what is read beside it is seen */
      for (int64_t i = 0; i < rows * cols; i++) w[i] = fabsf(uniform()) < densities[d] ? uniform() : 0;
      sc_packed p;
      for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (int depth = 1; depth <= 4; depth *= 2) {
          const sc_tile wide = {16, 64, 16, depth, ""}, only = ops->tile[SC_FMT_lookup];
          sc_tile tile = only.rows ? only : wide;
          tile.depths = only.rows ? only.depths & depth : depth;
          if (formats[f] == SC_FMT_lookup ? !tile.depths : depth > 1) continue;
          if (sc_pack(&p, formats[f], rows, cols, w, &tile)) continue;
          if (!sc_matrix_supported(ops, &p.m)) wrong |= check(ops, &p, w, "a layout");
          packed++;
          sc_pack_free(&p);
        }
      if (sc_pack_fastest(&p, ops, rows, cols, w, s % 2 ? 32 : 1, s % 3 == 0)) {
        printf("nothing packs %d x %d\n", (int)rows, (int)cols);
        wrong = 1;
      } else {
        wrong |= check(ops, &p, w, "the fastest layout");
        sc_pack_free(&p);
      }
      free(w);
    }
  printf("%d matrices\n", packed);
  return wrong || packed < 150;
}
