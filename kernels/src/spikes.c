/* Whole sequences of a spiking layer for many samples at once: each weight is read once for 64 of them. */
#include <string.h>

#include "sequence.h"

/* Whether adding columns, a mask with spikes at a time, takes less than adding masks to all rows. Measured: rows take
 * as long as 0.2 + 0.3 groups columns do.
 */
static int few(int64_t found, int64_t cols, int64_t groups) { return 10 * found < cols * (2 + 3 * groups); }

/* All arrays of samples are (groups, features, 16); alpha .. strength are (units, 16), the same for all groups. */
typedef struct spike_space {
  float *spk, *syn, *mem, *rec, *drive, *flat, *product;
  float *alpha, *beta, *theta, *strength;
  uint16_t *in, *on;
} spike_space;

static int64_t groups_of(int64_t batch) { return (batch < SC_SPIKES ? batch + 15 : SC_SPIKES) / 16; }

static uint16_t *take_masks(sc_arena *a, int64_t n) { return (uint16_t *)(void *)sc_take(a, n * SC_SPIKES / 32); }

static size_t lay_out(const sc_layer *l, int64_t batch, float *base, spike_space *s) {
  sc_arena a = {.floats = base};
  const int64_t groups = groups_of(batch), lanes = l->units * 16, n = groups * lanes;
  s->spk = sc_take(&a, n);
  s->mem = sc_take(&a, n);
  s->syn = sc_take(&a, sc_states_of[l->cell] == 3 ? n : 0);
  s->rec = sc_take(&a, n);
  s->drive = sc_take(&a, n);
  s->flat = sc_take(&a, l->ih ? n : 0);
  s->product = sc_take(&a, l->ih ? (int64_t)sc_product_workspace(l->ih) : 0);
  s->alpha = sc_take(&a, l->alpha ? lanes : 0);
  s->beta = sc_take(&a, lanes);
  s->theta = sc_take(&a, lanes);
  s->strength = sc_take(&a, l->strength ? lanes : 0);
  s->in = take_masks(&a, l->in);
  s->on = take_masks(&a, l->units);
  return a.used.floats;
}

size_t sc_spikes_workspace(const sc_layer *l, const sc_io *io) {
  spike_space s;
  return lay_out(l, io->batch, NULL, &s);
}

int sc_runs_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io) {
  return ops->spikes && !io->lengths && (!l->hh || l->hh->format == SC_FMT_csr);
}

/* One parameter of each unit, for every lane. */
static void spread(const float *from, int64_t n, float *to) {
  for (int64_t i = 0; from && i < n; i++)
    for (int64_t k = 0; k < 16; k++) to[16 * i + k] = from[i];
}

/* y = bias + W x, where `found` of the masks are not empty. */
static void product(const sc_ops *ops, const sc_matrix *w, const sc_matrix *events, const uint16_t *masks,
                    int64_t found, const float *bias, int64_t groups, float *y) {
  if (events && few(found, w->cols, groups))
    ops->spikes->columns(events, masks, bias, groups, y);
  else
    ops->spikes->rows(w, masks, bias, groups, y);
}

/* The input product of one step of `batch` samples: of spikes where all of them are, else as for single samples. */
static void drive(const sc_ops *ops, const sc_layer *l, const float *x, int64_t batch, int64_t groups,
                  const spike_space *s) {
  if (!l->ih) {
    ops->spikes->to_lanes(x, l->in, batch, l->units, s->drive);
    return;
  }
  const int64_t found = l->ih->format == SC_FMT_csr ? ops->spikes->pack(x, l->in, batch, l->in, s->in) : -1;
  if (found >= 0) {
    product(ops, l->ih, l->ih_events, s->in, found, l->bias_ih, groups, s->drive);
    return;
  }
  sc_product(ops, l->ih, x, l->in, batch, l->bias_ih, s->flat, l->units, s->product);
  ops->spikes->to_lanes(s->flat, l->units, batch, l->units, s->drive);
}

/* The recurrent product; without recurrence it was filled once. */
static void recur(const sc_ops *ops, const sc_layer *l, int64_t found, int64_t groups, const spike_space *s) {
  if (l->hh) {
    product(ops, l->hh, l->hh_events, s->on, found, l->bias_hh, groups, s->rec);
    return;
  }
  for (int64_t g = 0; l->hh_diag && g < groups; g++)
    for (int64_t i = 0; i < l->units; i++)
      for (int64_t k = 0, at = (g * l->units + i) * 16; k < 16; k++)
        s->rec[at + k] = s->spk[at + k] * l->hh_diag[i] + (l->bias_hh ? l->bias_hh[i] : 0.0f);
}

/* At most SC_SPIKES samples, from `first` on. */
static void run_some(const sc_ops *ops, const sc_layer *l, const sc_io *io, int64_t first, int64_t batch,
                     const spike_space *s) {
  const int64_t groups = groups_of(batch), lanes = l->units * 16;
  const int states = sc_states_of[l->cell];
  float *held[3] = {s->spk, states == 3 ? s->syn : s->mem, s->mem};
  for (int i = 0; i < states; i++)
    ops->spikes->to_lanes(io->state[i] + first * l->units, l->units, batch, l->units, held[i]);
  memset(s->rec, 0, (size_t)(groups * lanes) * sizeof(float));
  for (int64_t k = 0; k < io->steps; k++) {
    const int64_t t = l->reverse ? io->steps - 1 - k : k;
    drive(ops, l, io->x + (t * io->stride + first) * l->in, batch, groups, s);
    recur(ops, l, l->hh ? ops->spikes->fired(s->spk, l->units, groups, s->on) : 0, groups, s);
    for (int64_t g = 0; g < groups; g++) {
      const int64_t at = g * lanes;
      const sc_point p = {.n = lanes,
                          .drive = s->drive + at,
                          .rec = s->rec + at,
                          .spk = s->spk + at,
                          .syn = states == 3 ? s->syn + at : NULL,
                          .mem = s->mem + at,
                          .alpha = s->alpha,
                          .beta = s->beta,
                          .theta = s->theta,
                          .strength = s->strength,
                          .reset = l->reset,
                          .delay = l->delay,
                          .adapted = l->adapted};
      ops->point[l->cell](&p);
    }
    for (int i = 0; i < states; i++)
      if (io->out[i])
        ops->spikes->to_samples(held[i], batch, l->units, io->out[i] + (t * io->stride + first) * l->units, l->units);
  }
  for (int i = 0; i < states; i++)
    ops->spikes->to_samples(held[i], batch, l->units, io->state[i] + first * l->units, l->units);
}

int sc_run_spikes(const sc_ops *ops, const sc_layer *l, const sc_io *io, float *workspace) {
  spike_space s;
  lay_out(l, io->batch, workspace, &s);
  for (int64_t b = 0; b < io->batch; b += SC_SPIKES) {
    const int64_t n = io->batch - b < SC_SPIKES ? io->batch - b : SC_SPIKES;
    if (ops->spikes->pack(io->state[0] + b * l->units, l->units, n, l->units, s.on) < 0) return 0;
  }
  spread(l->alpha, l->units, s.alpha);
  spread(l->beta, l->units, s.beta);
  spread(l->theta, l->units, s.theta);
  spread(l->strength, l->units, s.strength);
  for (int64_t b = 0; b < io->batch; b += SC_SPIKES)
    run_some(ops, l, io, b, io->batch - b < SC_SPIKES ? io->batch - b : SC_SPIKES, &s);
  return 1;
}
