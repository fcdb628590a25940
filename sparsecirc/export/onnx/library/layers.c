/* RNN, GRU and LSTM layers as operators of the domain "sparsecirc" on the sparse kernels.
 *
 * An operator takes what ONNX's own takes: X (T, B, in), W (1, gates * units, in), R (1, gates * units, units),
 * B (1, 2 * gates * units), gates in ONNX's order; the ragged ones also the valid steps (B,). It gives the state at
 * every step (T, B, units), an LSTM also its cell state after the last one (B, units). The attribute hidden_size is the
 * number of units; those called Reverse begin at the last step. Constant weights are packed once, when a session is
 * made; a kernel never changes after that, so that threads may share it.
 */
#include "glue.h"

#define SC_BATCHED_FROM 8 /* samples from which the state is held as (units, batch) */

typedef struct layer_facts {
  operator_facts of;
  int cell, gates, reverse;
  int order[4]; /* gate k of our kernels is gate order[k] of ONNX */
} layer_facts;

typedef struct packed_layer {
  sc_packed ih, hh, ih_many, hh_many;
  float *bias_ih, *bias_hh, *bias[2]; /* in the kernels' order of gates; bias: what was allocated */
  int64_t in;
} packed_layer;

typedef struct kernel {
  const ort_api *api;
  const layer_facts *facts;
  const sc_ops *ops;
  int64_t units;
  int ready; /* the weights are constant and `layer` holds them */
  packed_layer layer;
} kernel;

/* ---- weights ---------------------------------------------------------------------------------------------------- */

static void free_layer(packed_layer *l) {
  sc_pack_free(&l->ih);
  sc_pack_free(&l->hh);
  sc_pack_free(&l->ih_many);
  sc_pack_free(&l->hh_many);
  free(l->bias[0]);
  free(l->bias[1]);
  memset(l, 0, sizeof *l);
}

/* Blocks of `units` rows of `cols` floats in our order of gates. */
static float *reordered(const kernel *k, const float *from, int64_t cols) {
  const int64_t block = k->units * cols;
  float *to = sc_zeros((size_t)(block * k->facts->gates), sizeof *to);
  for (int g = 0; to && block && g < k->facts->gates; g++)
    memcpy(to + g * block, from + k->facts->order[g] * block, (size_t)block * sizeof *to);
  return to;
}

/* One matrix, for single samples and for batches. */
static const char *pack_both(const kernel *k, const float *from, int64_t cols, sc_packed *one, sc_packed *many) {
  const int64_t rows = k->units * k->facts->gates;
  float *w = reordered(k, from, cols);
  if (!w) return SC_SHORT_OF_MEMORY;
  int64_t live = 0;
  for (int64_t i = 0; i < rows * cols; i++) live += w[i] != 0;
  const char *why = sc_pack_fastest(one, k->ops, rows, cols, w, 1, 0);
  if (!why) why = sc_pack(many, 2 * live < rows * cols ? SC_FMT_csr : SC_FMT_dense, rows, cols, w, NULL);
  free(w);
  return why;
}

/* Packs W, R and B; weights were looked at before. */
static const char *fill_layer(const kernel *k, const tensor *w, packed_layer *l) {
  const int64_t rows = k->units * k->facts->gates;
  memset(l, 0, sizeof *l);
  for (int i = 0; i < 3; i++)
    if (w[i].type != ORT_FLOAT) return "weights must be float32";
  if (!sc_has_shape(&w[0], 3, 1, rows, -1)) return "W must be (1, gates * hidden_size, features)";
  if (!sc_has_shape(&w[1], 3, 1, rows, k->units)) return "R must be (1, gates * hidden_size, hidden_size)";
  if (!sc_has_shape(&w[2], 2, 1, 2 * rows, -1)) return "B must be (1, 2 * gates * hidden_size)";
  l->in = w[0].dims[2];
  const char *why = pack_both(k, w[0].data, l->in, &l->ih, &l->ih_many);
  if (!why) why = pack_both(k, w[1].data, k->units, &l->hh, &l->hh_many);
  l->bias[0] = reordered(k, w[2].data, 1);
  l->bias[1] = reordered(k, (const float *)w[2].data + rows, 1);
  l->bias_ih = l->bias[0];
  l->bias_hh = l->bias[1];
  if (!why && (!l->bias_ih || !l->bias_hh)) why = SC_SHORT_OF_MEMORY;
  if (why) free_layer(l);
  return why;
}

/* ---- the life of a kernel --------------------------------------------------------------------------------------- */

static void SC_ORT_CALL destroy(void *p) {
  if (!p) return;
  free_layer(&((kernel *)p)->layer);
  free(p);
}

static ort_status *SC_ORT_CALL create(const ort_operator *op, const ort_api *api, const ort_info *info, void **made) {
  const layer_facts *facts = (const layer_facts *)op;
  kernel *k = calloc(1, sizeof *k);
  *made = NULL;
  if (!k) return sc_failed(api, facts->of.name, SC_SHORT_OF_MEMORY);
  k->api = api;
  k->facts = facts;
  k->ops = sc_best_ops();
  ort_status *status =
      CALL(api, attribute_int, (const ort_info *, const char *, int64_t *))(info, "hidden_size", &k->units);
  if (!status && (k->units < 1 || k->units > INT32_MAX / 8))
    status = sc_failed(api, facts->of.name, "hidden_size is out of range");
  tensor w[3];
  int constant = 0;
  if (!status) status = sc_constants(api, info, 3, w, &constant);
  if (!status && constant) {
    const char *why = fill_layer(k, w, &k->layer);
    if (why) status = sc_failed(api, facts->of.name, why);
    k->ready = !why;
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
  float *state[2], *workspace;
  int64_t *lengths;
} call_space;

static void free_space(call_space *s) {
  free(s->state[0]);
  free(s->state[1]);
  free(s->workspace);
  free(s->lengths);
}

/* Runs the layer; x was looked at. The cell state of an LSTM is left in s->state[1]. */
static const char *run_layer(const kernel *k, const packed_layer *l, const tensor *x, const tensor *lens, float *y,
                             call_space *s) {
  const int64_t steps = x->dims[0], batch = x->dims[1];
  const int many = batch >= SC_BATCHED_FROM;
  const sc_layer layer = {.cell = k->facts->cell,
                          .units = k->units,
                          .width = k->units,
                          .in = l->in,
                          .reverse = k->facts->reverse,
                          .ih = many ? &l->ih_many.m : &l->ih.m,
                          .hh = many ? &l->hh_many.m : &l->hh.m,
                          .bias_ih = l->bias_ih,
                          .bias_hh = l->bias_hh};
  sc_io io = {.steps = steps, .batch = batch, .stride = batch, .x = x->data};
  for (int i = 0; i < 2; i++) {
    s->state[i] = sc_zeros((size_t)(batch * k->units), sizeof(float));
    if (!s->state[i]) return SC_SHORT_OF_MEMORY;
    io.state[i] = s->state[i];
  }
  io.out[0] = y;
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

static ort_status *compute_with(const kernel *k, const packed_layer *l, const tensor *in, ort_context *context) {
  const ort_api *api = k->api;
  const tensor *x = &in[0], *lens = k->facts->of.ragged ? &in[4] : NULL;
  if (x->type != ORT_FLOAT || !sc_has_shape(x, 3, -1, -1, l->in))
    return sc_failed(api, k->facts->of.name, "X must be float32 (T, B, features)");
  const int64_t shape[3] = {x->dims[0], x->dims[1], k->units};
  float *y = NULL, *c = NULL;
  ort_status *status = sc_output(api, context, 0, shape, 3, &y);
  if (!status && k->facts->cell == SC_CELL_lstm) status = sc_output(api, context, 1, shape + 1, 2, &c);
  if (status) return status;
  call_space space = {0};
  const char *why = run_layer(k, l, x, lens, y, &space);
  if (why) status = sc_failed(api, k->facts->of.name, why);
  if (!why && c) memcpy(c, space.state[1], (size_t)(shape[1] * k->units) * sizeof *c);
  free_space(&space);
  return status;
}

static ort_status *SC_ORT_CALL compute(void *p, ort_context *context) {
  const kernel *k = p;
  const size_t n = k->facts->of.ragged ? 5 : 4;
  tensor in[5];
  for (size_t i = 0; i < n; i++) {
    if (k->ready && i > 0 && i < 4) continue; /* they were packed */
    ort_status *status = sc_input(k->api, context, i, &in[i]);
    if (status) return status;
  }
  if (k->ready) return compute_with(k, &k->layer, in, context);
  packed_layer layer; /* weights that another node computes: packed for this call alone */
  const char *why = fill_layer(k, in + 1, &layer);
  if (why) return sc_failed(k->api, k->facts->of.name, why);
  ort_status *status = compute_with(k, &layer, in, context);
  free_layer(&layer);
  return status;
}

/* ONNX's order: z r h of a GRU, i o f c of an LSTM; ours: r z n and i f g o. */
#define CALLS SC_CALLS(create, compute, destroy)
#define OPERATORS(name, outputs, cell, gates, ...)                                       \
  {{CALLS, name, 4, outputs, 0}, SC_CELL_##cell, gates, 0, {__VA_ARGS__}},               \
      {{CALLS, name "Ragged", 5, outputs, 1}, SC_CELL_##cell, gates, 0, {__VA_ARGS__}},  \
      {{CALLS, name "Reverse", 4, outputs, 0}, SC_CELL_##cell, gates, 1, {__VA_ARGS__}}, \
      {{CALLS, name "ReverseRagged", 5, outputs, 1}, SC_CELL_##cell, gates, 1, {__VA_ARGS__}},
static const layer_facts operators[] = {OPERATORS("RnnTanh", 1, rnn_tanh, 1, 0) OPERATORS(
    "RnnRelu", 1, rnn_relu, 1, 0) OPERATORS("Gru", 1, gru, 3, 1, 0, 2) OPERATORS("Lstm", 2, lstm, 4, 0, 2, 3, 1)};

ort_status *sc_add_layers(const ort_api *api, ort_domain *domain) {
  ort_status *status = NULL;
  for (size_t i = 0; !status && i < sizeof operators / sizeof *operators; i++)
    status = CALL(api, domain_add, (ort_domain *, const ort_operator *))(domain, &operators[i].of.op);
  return status;
}
