/* What runs of whole sequences share: pieces of workspace, and the sizes of cells. */
#ifndef SC_SEQUENCE_H
#define SC_SEQUENCE_H

#include "../include/sparsecirc.h"

static const int sc_gates_of[] = {
#define X(name, gates, states, spiking) gates,
    SC_CELLS(X)
#undef X
};
static const int sc_states_of[] = {
#define X(name, gates, states, spiking) states,
    SC_CELLS(X)
#undef X
};
static const int sc_spiking_of[] = {
#define X(name, gates, states, spiking) spiking,
    SC_CELLS(X)
#undef X
};

static inline int64_t sc_padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Hands out pieces of the workspace, each on a 64-byte boundary if the workspace is. */
typedef struct sc_arena {
  float *base;
  size_t used;
} sc_arena;

static inline float *sc_take(sc_arena *a, int64_t n) {
  float *p = a->base ? a->base + a->used : NULL;
  a->used += (size_t)sc_padded(n, 16);
  return p;
}

/* Spiking layers of whole batches (spikes.c): whether this one can be run so, and its workspace. */
int sc_runs_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io);
size_t sc_spikes_workspace(const sc_layer *l, const sc_io *io);
/* Returns 0, and has done nothing, where the spikes of the first state are other numbers than 0 and 1. */
int sc_run_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io, float *workspace);

#endif
