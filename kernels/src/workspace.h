/* Pieces of a workspace that a caller passes, in floats and in integers. */
#ifndef SC_WORKSPACE_H
#define SC_WORKSPACE_H

#include "../include/sparsecirc_training.h"

static inline int64_t sc_padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Hands out pieces of a workspace, each on a 64-byte boundary if the workspace is; without one it only counts. */
typedef struct sc_arena {
  float *floats;
  int32_t *ints;
  sc_space used;
} sc_arena;

static inline float *sc_take(sc_arena *a, int64_t n) {
  float *p = a->floats ? a->floats + a->used.floats : NULL;
  a->used.floats += (size_t)sc_padded(n, 16);
  return p;
}

static inline int32_t *sc_take_ints(sc_arena *a, int64_t n) {
  int32_t *p = a->ints ? a->ints + a->used.ints : NULL;
  a->used.ints += (size_t)sc_padded(n, 16);
  return p;
}

#endif
