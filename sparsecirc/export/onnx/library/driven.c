/* Recurrences that take their input product ready made, as operators of the domain "sparsecirc": neurons, and LSTM
 * layers with a projection.
 *
 * Inputs: D (T, B, gates * units), the input product with its bias; with a recurrence R (gates * units, width) and its
 * bias B (gates * units); with a projection P (width, units); of neurons V (vectors, units), what each unit holds, in
 * the order of the cell; the ragged ones also the valid steps (B,). Gates are in torch's order. Outputs: every state at
 * every step (T, B, units), the fed-back one first. Names say the cell, what a spike does to the membrane, Now where it
 * does so at once, Forward without a recurrence. Constant weights are packed once, when a session is made; a kernel
 * never changes after that, so that threads may share it.
 */
#include "glue.h"

#define SC_GATED_FROM 8    /* samples from which the state is held as (units, batch) */
#define SC_SPIKING_FROM 16 /* the same for spikes */
#define SC_STATES 3

typedef struct driven_facts {
  operator_facts of;
  int cell, states, recurrent, projected, vectors, reverse, reset, delay, adapted;
} driven_facts;

enum { ALPHA, BETA, THETA, STRENGTH, N_VECTORS };

typedef struct packed_driven {
  int64_t units, width;
  sc_packed hh, hh_many, hh_events, hr, hr_many;
  float *bias, *held[N_VECTORS];
} packed_driven;

typedef struct kernel {
  const ort_api *api;
  const driven_facts *facts;
  const sc_ops *ops;
  int ready; /* the weights are constant and `layer` holds them */
  packed_driven layer;
} kernel;

static int gates_of(const driven_facts *f) { return f->cell == SC_CELL_lstm ? 4 : 1; }
static int is_spiking(const driven_facts *f) { return f->cell != SC_CELL_lstm && f->cell != SC_CELL_li; }
static size_t weights_of(const driven_facts *f) { return (size_t)(f->of.inputs - 1 - f->of.ragged); }

static void free_layer(packed_driven *l) {
  sc_pack_free(&l->hh);
  sc_pack_free(&l->hh_many);
  sc_pack_free(&l->hh_events);
  sc_pack_free(&l->hr);
  sc_pack_free(&l->hr_many);
  free(l->bias);
  for (int i = 0; i < N_VECTORS; i++) free(l->held[i]);
  memset(l, 0, sizeof *l);
}

static float *copied(const float *from, int64_t n) {
  float *to = sc_zeros((size_t)n, sizeof *to);
  if (to && n) memcpy(to, from, (size_t)n * sizeof *to);
  return to;
}

/* One matrix, for single samples and for batches. */
static const char *pack_both(const sc_ops *ops, const tensor *w, int events, sc_packed *one, sc_packed *many) {
  const int64_t rows = w->dims[0], cols = w->dims[1];
  int64_t live = 0;
  for (int64_t i = 0; i < rows * cols; i++) live += ((const float *)w->data)[i] != 0;
  const char *why = sc_pack_fastest(one, ops, rows, cols, w->data, 1, events);
  const int format = events || 2 * live < rows * cols ? SC_FMT_csr : SC_FMT_dense; /* spikes know rows alone */
  return why ? why : sc_pack(many, format, rows, cols, w->data, NULL);
}

/* Where the cell's k-th vector belongs. */
static int place_of(const driven_facts *f, int k) {
  static const int lif[] = {BETA, THETA}, synaptic[] = {ALPHA, BETA, THETA}, alif[] = {BETA, THETA, ALPHA, STRENGTH};
  return f->cell == SC_CELL_alif ? alif[k] : f->cell == SC_CELL_synaptic ? synaptic[k] : lif[k];
}

static const char *fill_vectors(const driven_facts *f, const tensor *v, packed_driven *l) {
  if (!sc_has_shape(v, 2, f->vectors, -1, -1)) return "V must be (vectors, units)";
  l->units = l->width = v->dims[1];
  for (int k = 0; k < f->vectors; k++) {
    float **to = &l->held[place_of(f, k)];
    *to = copied((const float *)v->data + k * l->units, l->units);
    if (!*to) return SC_SHORT_OF_MEMORY;
  }
  return NULL;
}

static const char *fill_recurrence(const kernel *k, const tensor *w, packed_driven *l) {
  const driven_facts *f = k->facts;
  const int64_t rows = l->units * gates_of(f);
  if (!sc_has_shape(&w[0], 2, rows, l->width, -1)) return "R must be (gates * units, width)";
  if (!sc_has_shape(&w[1], 1, rows, -1, -1)) return "B must be (gates * units,)";
  const char *why = pack_both(k->ops, &w[0], is_spiking(f), &l->hh, &l->hh_many);
  if (!why && is_spiking(f)) why = sc_pack(&l->hh_events, SC_FMT_columns, rows, l->width, w[0].data, NULL);
  l->bias = copied(w[1].data, rows);
  return why ? why : l->bias ? NULL : SC_SHORT_OF_MEMORY;
}

/* Packs the inputs between the first one and the valid steps. */
static const char *fill_layer(const kernel *k, const tensor *w, packed_driven *l) {
  const driven_facts *f = k->facts;
  const char *why = NULL;
  memset(l, 0, sizeof *l);
  for (size_t i = 0; i < weights_of(f); i++)
    if (w[i].type != ORT_FLOAT) return "weights must be float32";
  const tensor *last = &w[weights_of(f) - 1];
  if (f->vectors) {
    why = fill_vectors(f, last, l);
  } else if (last->rank != 2) {
    return "P must be (width, units)";
  } else {
    l->width = last->dims[0];
    l->units = last->dims[1];
    why = pack_both(k->ops, last, 0, &l->hr, &l->hr_many);
  }
  if (!why && (l->units < 1 || l->width < 1 || l->units > INT32_MAX / 8)) why = "the number of units is out of range";
  if (!why && f->recurrent) why = fill_recurrence(k, w, l);
  if (why) free_layer(l);
  return why;
}

static void SC_ORT_CALL destroy(void *p) {
  if (!p) return;
  free_layer(&((kernel *)p)->layer);
  free(p);
}

static ort_status *SC_ORT_CALL create(const ort_operator *op, const ort_api *api, const ort_info *info, void **made) {
  const driven_facts *facts = (const driven_facts *)op;
  kernel *k = calloc(1, sizeof *k);
  *made = NULL;
  if (!k) return sc_failed(api, facts->of.name, SC_SHORT_OF_MEMORY);
  k->api = api;
  k->facts = facts;
  k->ops = sc_best_ops();
  tensor w[4];
  ort_status *status = sc_constants(api, info, weights_of(facts), w, &k->ready);
  if (!status && k->ready) {
    const char *why = fill_layer(k, w, &k->layer);
    if (why) status = sc_failed(api, facts->of.name, why);
  }
  if (status) {
    destroy(k);
    return status;
  }
  *made = k;
  return NULL;
}

/* Memory of one call. */
typedef struct call_space {
  float *state[SC_STATES], *workspace;
  int64_t *lengths;
} call_space;

static void free_space(call_space *s) {
  for (int i = 0; i < SC_STATES; i++) free(s->state[i]);
  free(s->workspace);
  free(s->lengths);
}

static int64_t features(const packed_driven *l, int state) { return state == 0 ? l->width : l->units; }

static const char *run_layer(const kernel *k, const packed_driven *l, const tensor *x, const tensor *lens,
                             float *const y[SC_STATES], call_space *s) {
  const driven_facts *f = k->facts;
  const int64_t steps = x->dims[0], batch = x->dims[1];
  const int spiking = is_spiking(f) && batch >= SC_SPIKING_FROM && !lens;
  const int many = f->cell == SC_CELL_lstm ? batch >= SC_GATED_FROM : spiking;
  const sc_layer layer = {.cell = f->cell,
                          .units = l->units,
                          .width = l->width,
                          .in = l->units * gates_of(f),
                          .reset = f->reset,
                          .delay = f->delay,
                          .adapted = f->adapted,
                          .reverse = f->reverse,
                          .hh = f->recurrent ? (many ? &l->hh_many.m : &l->hh.m) : NULL,
                          .hr = f->projected ? (many ? &l->hr_many.m : &l->hr.m) : NULL,
                          .hh_events = f->recurrent && spiking ? &l->hh_events.m : NULL,
                          .bias_hh = l->bias,
                          .alpha = l->held[ALPHA],
                          .beta = l->held[BETA],
                          .theta = l->held[THETA],
                          .strength = l->held[STRENGTH]};
  sc_io io = {.steps = steps, .batch = batch, .stride = batch, .x = x->data};
  for (int i = 0; i < f->states; i++) {
    s->state[i] = sc_zeros((size_t)(batch * features(l, i)), sizeof(float));
    if (!s->state[i]) return SC_SHORT_OF_MEMORY;
    io.state[i] = s->state[i];
    io.out[i] = y[i];
  }
  if (lens) {
    const char *why = NULL;
    s->lengths = sc_lengths(lens, steps, batch, &why);
    if (why) return why;
    io.lengths = s->lengths;
  }
  s->workspace = sc_zeros(sc_workspace(k->ops, &layer, &io, many), sizeof(float));
  if (!s->workspace) return SC_SHORT_OF_MEMORY;
  sc_run(k->ops, &layer, &io, many, s->workspace);
  return NULL;
}

static ort_status *compute_with(const kernel *k, const packed_driven *l, const tensor *in, ort_context *context) {
  const ort_api *api = k->api;
  const driven_facts *f = k->facts;
  const tensor *x = &in[0], *lens = f->of.ragged ? &in[f->of.inputs - 1] : NULL;
  if (x->type != ORT_FLOAT || !sc_has_shape(x, 3, -1, -1, l->units * gates_of(f)))
    return sc_failed(api, f->of.name, "D must be float32 (T, B, gates * units)");
  float *y[SC_STATES] = {NULL, NULL, NULL};
  for (int i = 0; i < f->states; i++) {
    const int64_t shape[3] = {x->dims[0], x->dims[1], features(l, i)};
    ort_status *status = sc_output(api, context, (size_t)i, shape, 3, &y[i]);
    if (status) return status;
  }
  call_space space = {0};
  const char *why = run_layer(k, l, x, lens, y, &space);
  free_space(&space);
  return why ? sc_failed(api, f->of.name, why) : NULL;
}

static ort_status *SC_ORT_CALL compute(void *p, ort_context *context) {
  const kernel *k = p;
  const size_t n = (size_t)k->facts->of.inputs, weights = weights_of(k->facts);
  tensor in[6];
  for (size_t i = 0; i < n; i++) {
    if (k->ready && i > 0 && i <= weights) continue; /* they were packed */
    ort_status *status = sc_input(k->api, context, i, &in[i]);
    if (status) return status;
  }
  if (k->ready) return compute_with(k, &k->layer, in, context);
  packed_driven layer; /* weights that another node computes: packed for this call alone */
  const char *why = fill_layer(k, in + 1, &layer);
  if (why) return sc_failed(k->api, k->facts->of.name, why);
  ort_status *status = compute_with(k, &layer, in, context);
  free_layer(&layer);
  return status;
}

#define CALLS SC_CALLS(create, compute, destroy)
/* With and without a recurrence, with and without valid steps. */
#define NEURONS(name, cell, states, vectors, reset, delay, adapted)                                          \
  {{CALLS, name, 4, states, 0}, SC_CELL_##cell, states, 1, 0, vectors, 0, SC_RESET_##reset, delay, adapted}, \
      {{CALLS, name "Ragged", 5, states, 1},                                                                 \
       SC_CELL_##cell,                                                                                       \
       states,                                                                                               \
       1,                                                                                                    \
       0,                                                                                                    \
       vectors,                                                                                              \
       0,                                                                                                    \
       SC_RESET_##reset,                                                                                     \
       delay,                                                                                                \
       adapted},                                                                                             \
      {{CALLS, name "Forward", 2, states, 0},                                                                \
       SC_CELL_##cell,                                                                                       \
       states,                                                                                               \
       0,                                                                                                    \
       0,                                                                                                    \
       vectors,                                                                                              \
       0,                                                                                                    \
       SC_RESET_##reset,                                                                                     \
       delay,                                                                                                \
       adapted},                                                                                             \
      {{CALLS, name "ForwardRagged", 3, states, 1},                                                          \
       SC_CELL_##cell,                                                                                       \
       states,                                                                                               \
       0,                                                                                                    \
       0,                                                                                                    \
       vectors,                                                                                              \
       0,                                                                                                    \
       SC_RESET_##reset,                                                                                     \
       delay,                                                                                                \
       adapted},
#define RESETS(name, cell, states, vectors)                            \
  NEURONS(name "NoReset", cell, states, vectors, none, 1, 0)           \
  NEURONS(name "Subtract", cell, states, vectors, subtract, 1, 0)      \
  NEURONS(name "SubtractNow", cell, states, vectors, subtract, 0, 0)   \
  NEURONS(name "Zero", cell, states, vectors, zero, 1, 0)              \
  NEURONS(name "ZeroNow", cell, states, vectors, zero, 0, 0)           \
  NEURONS(name "ZeroUpdate", cell, states, vectors, zero_update, 1, 0) \
  NEURONS(name "ZeroUpdateNow", cell, states, vectors, zero_update, 0, 0)
/* Cell, states, recurrent, projected, vectors, reverse. */
#define PROJECTED(name, reverse)                                                    \
  {{CALLS, name, 4, 2, 0}, SC_CELL_lstm, 2, 1, 1, 0, reverse, SC_RESET_none, 0, 0}, \
      {{CALLS, name "Ragged", 5, 2, 1}, SC_CELL_lstm, 2, 1, 1, 0, reverse, SC_RESET_none, 0, 0},
static const driven_facts operators[] = {
    RESETS("Lif", lif, 2, 2) RESETS("Synaptic", synaptic, 3, 3) RESETS("Alif", alif, 3, 4) NEURONS(
        "AlifSubtractAdapted", alif, 3, 4, subtract, 1, 1) NEURONS("AlifSubtractAdaptedNow", alif, 3, 4, subtract, 0, 1)
        NEURONS("Li", li, 1, 1, none, 1, 0) PROJECTED("LstmProjected", 0) PROJECTED("LstmProjectedReverse", 1)};

ort_status *sc_add_driven(const ort_api *api, ort_domain *domain) {
  ort_status *status = NULL;
  for (size_t i = 0; !status && i < sizeof operators / sizeof *operators; i++)
    status = CALL(api, domain_add, (ort_domain *, const ort_operator *))(domain, &operators[i].of.op);
  return status;
}
