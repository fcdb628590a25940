/* What runs of whole sequences share: the sizes of cells. */
#ifndef SC_SEQUENCE_H
#define SC_SEQUENCE_H

#include "workspace.h"

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

/* Spiking layers of whole batches (spikes.c): whether this one can be run so, and its workspace. */
int sc_runs_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io);
size_t sc_spikes_workspace(const sc_layer *l, const sc_io *io);
/* Returns 0, and has done nothing, where the spikes of the first state are other numbers than 0 and 1. */
int sc_run_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io, float *workspace);

#endif
