/* Dense weights into the layouts that kernels read; used where a file is loaded without Python. */
#ifndef SPARSECIRC_PACK_H
#define SPARSECIRC_PACK_H

#include "sparsecirc.h"

/* A matrix that owns its arrays. */
typedef struct sc_packed {
  sc_matrix m;
  void *arrays[4];
} sc_packed;

/* w (rows, cols), row by row; what is not zero is stored. tile: of lookups, its depth in `depths`. Returns null, or why
 * this format cannot hold it; then there is nothing to free. */
const char *sc_pack(sc_packed *to, int format, int64_t rows, int64_t cols, const float *w, const sc_tile *tile);
/* In the exact layout whose product with `vectors` vectors was fastest on this processor just now. events: they are
 * spikes, a tenth of them ones, so that columns are tried too. */
const char *sc_pack_fastest(sc_packed *to, const sc_ops *ops, int64_t rows, int64_t cols, const float *w,
                            int64_t vectors, int events);
void sc_pack_free(sc_packed *p);
/* The best instruction set that this build and this processor have. */
const sc_ops *sc_best_ops(void);
/* 64-byte aligned and zero; null where memory is short. */
void *sc_zeros(size_t n, size_t size);

#endif
