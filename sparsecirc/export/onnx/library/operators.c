/* ONNX Runtime operators of the domain "sparsecirc": RNN, GRU and LSTM layers on the sparse kernels.
 *
 * An operator takes what ONNX's own takes: X (T, B, in), W (1, gates * units, in), R (1, gates * units, units),
 * B (1, 2 * gates * units), gates in ONNX's order; the ragged ones also the valid steps (B,). It gives the state at
 * every step (T, B, units), an LSTM also its cell state after the last one (B, units). The attribute hidden_size is the
 * number of units; those called Reverse begin at the last step. Constant weights are packed once, when a session is
 * made; a kernel never changes after that, so that threads may share it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "pack.h"

#define SC_BATCHED_FROM 8 /* samples from which the state is held as (units, batch) */

typedef struct operator_facts {
  ort_operator op; /* first: the runtime hands back a pointer to it */
  const char *name;
  int cell, gates, reverse, ragged;
  int order[4]; /* gate k of our kernels is gate order[k] of ONNX */
} operator_facts;

typedef struct packed_layer {
  sc_packed ih, hh, ih_many, hh_many;
  float *bias_ih, *bias_hh, *bias[2]; /* in the kernels' order of gates; bias: what was allocated */
  int64_t in;
} packed_layer;

typedef struct kernel {
  const ort_api *api;
  const operator_facts *facts;
  const sc_ops *ops;
  int64_t units;
  int ready; /* the weights are constant and `layer` holds them */
  packed_layer layer;
} kernel;

/* ---- calls of the interface ------------------------------------------------------------------------------------- */

#define CALL(api, slot, ...) ((ort_status * (SC_ORT_CALL *)__VA_ARGS__)(api)->slots[SLOT_##slot])

static ort_status *failed(const ort_api *api, const char *name, const char *what) {
  char text[240];
  snprintf(text, sizeof text, "sparsecirc.%s: %s", name, what);
  return ((ort_status * (SC_ORT_CALL *)(int, const char *)) api->slots[SLOT_create_status])(ORT_FAIL, text);
}

/* A tensor as it lies in memory; rank -1 where it is no tensor, or none of at most 4 axes. */
typedef struct tensor {
  const void *data;
  int type, rank;
  int64_t dims[4];
} tensor;

static ort_status *look_at(const ort_api *api, const ort_value *value, tensor *t) {
  memset(t, 0, sizeof *t);
  t->rank = -1;
  if (!value) return NULL;
  ort_shape *shape = NULL;
  size_t rank = 0;
  ort_status *status = CALL(api, type_and_shape, (const ort_value *, ort_shape **))(value, &shape);
  if (!status) status = CALL(api, element_type, (const ort_shape *, int *))(shape, &t->type);
  if (!status) status = CALL(api, dimensions_count, (const ort_shape *, size_t *))(shape, &rank);
  if (!status && rank <= 4) {
    status = CALL(api, dimensions, (const ort_shape *, int64_t *, size_t))(shape, t->dims, rank);
    t->rank = (int)rank;
  }
  if (shape) ((void(SC_ORT_CALL *)(ort_shape *))api->slots[SLOT_release_type_and_shape])(shape);
  if (!status) status = CALL(api, tensor_data, (const ort_value *, const void **))(value, &t->data);
  return status;
}

static int has_shape(const tensor *t, int rank, int64_t a, int64_t b, int64_t c) {
  const int64_t want[3] = {a, b, c};
  if (t->rank != rank) return 0;
  for (int i = 0; i < rank; i++)
    if (want[i] >= 0 && t->dims[i] != want[i]) return 0;
  return 1;
}

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
  if (!w) return "there is not enough memory";
  int64_t live = 0;
  for (int64_t i = 0; i < rows * cols; i++) live += w[i] != 0;
  const char *why = sc_pack_fastest(one, k->ops, rows, cols, w);
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
  if (!has_shape(&w[0], 3, 1, rows, -1)) return "W must be (1, gates * hidden_size, features)";
  if (!has_shape(&w[1], 3, 1, rows, k->units)) return "R must be (1, gates * hidden_size, hidden_size)";
  if (!has_shape(&w[2], 2, 1, 2 * rows, -1)) return "B must be (1, 2 * gates * hidden_size)";
  l->in = w[0].dims[2];
  const char *why = pack_both(k, w[0].data, l->in, &l->ih, &l->ih_many);
  if (!why) why = pack_both(k, w[1].data, k->units, &l->hh, &l->hh_many);
  l->bias[0] = reordered(k, w[2].data, 1);
  l->bias[1] = reordered(k, (const float *)w[2].data + rows, 1);
  l->bias_ih = l->bias[0];
  l->bias_hh = l->bias[1];
  if (!why && (!l->bias_ih || !l->bias_hh)) why = "there is not enough memory";
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
  const operator_facts *facts = (const operator_facts *)op;
  kernel *k = calloc(1, sizeof *k);
  *made = NULL;
  if (!k) return failed(api, facts->name, "there is not enough memory");
  k->api = api;
  k->facts = facts;
  k->ops = sc_best_ops();
  ort_status *status =
      CALL(api, attribute_int, (const ort_info *, const char *, int64_t *))(info, "hidden_size", &k->units);
  if (!status && (k->units < 1 || k->units > INT32_MAX / 8))
    status = failed(api, facts->name, "hidden_size is out of range");
  tensor w[3];
  int constant = 1;
  for (size_t i = 0; !status && constant && i < 3; i++) {
    const ort_value *value = NULL;
    status = CALL(api, constant_input, (const ort_info *, size_t, int *, const ort_value **))(info, i + 1, &constant,
                                                                                              &value);
    if (!status && constant) status = look_at(api, value, &w[i]);
  }
  if (!status && constant) {
    const char *why = fill_layer(k, w, &k->layer);
    if (why) status = failed(api, facts->name, why);
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
    if (!s->state[i]) return "there is not enough memory";
    io.state[i] = s->state[i];
  }
  io.out[0] = y;
  if (lens) {
    s->lengths = sc_zeros((size_t)batch, sizeof *s->lengths);
    if (!s->lengths) return "there is not enough memory";
    for (int64_t b = 0; b < batch; b++) {
      s->lengths[b] = ((const int32_t *)lens->data)[b];
      if (s->lengths[b] < 0 || s->lengths[b] > steps) return "a length is below 0 or above the number of steps";
    }
    io.lengths = s->lengths;
  }
  s->workspace = sc_zeros(sc_workspace(k->ops, &layer, &io, many), sizeof(float));
  if (!s->workspace) return "there is not enough memory";
  sc_run(k->ops, &layer, &io, many, s->workspace);
  return NULL;
}

static ort_status *compute_with(const kernel *k, const packed_layer *l, const tensor *in, ort_context *context) {
  const ort_api *api = k->api;
  const tensor *x = &in[0], *lens = k->facts->ragged ? &in[4] : NULL;
  if (x->type != ORT_FLOAT || !has_shape(x, 3, -1, -1, l->in))
    return failed(api, k->facts->name, "X must be float32 (T, B, features)");
  if (lens && (lens->type != ORT_INT32 || !has_shape(lens, 1, x->dims[1], -1, -1)))
    return failed(api, k->facts->name, "the valid steps must be int32 (B,)");
  const int64_t shape[3] = {x->dims[0], x->dims[1], k->units};
  ort_value *out = NULL;
  float *y = NULL;
  ort_status *status =
      CALL(api, output, (ort_context *, size_t, const int64_t *, size_t, ort_value **))(context, 0, shape, 3, &out);
  if (!status) status = CALL(api, tensor_data, (const ort_value *, void **))(out, (void **)(void *)&y);
  if (status) return status;
  call_space space = {0};
  const char *why = run_layer(k, l, x, lens, y, &space);
  if (why) status = failed(api, k->facts->name, why);
  if (!status && k->facts->cell == SC_CELL_lstm) {
    float *c = NULL;
    status = CALL(api, output, (ort_context *, size_t, const int64_t *, size_t, ort_value **))(context, 1, shape + 1, 2,
                                                                                               &out);
    if (!status && out) status = CALL(api, tensor_data, (const ort_value *, void **))(out, (void **)(void *)&c);
    if (!status && c) memcpy(c, space.state[1], (size_t)(shape[1] * k->units) * sizeof *c);
  }
  free_space(&space);
  return status;
}

static ort_status *SC_ORT_CALL compute(void *p, ort_context *context) {
  const kernel *k = p;
  const size_t n = k->facts->ragged ? 5 : 4;
  tensor in[5];
  for (size_t i = 0; i < n; i++) {
    if (k->ready && i > 0 && i < 4) continue; /* they were packed */
    const ort_value *value = NULL;
    ort_status *status = CALL(k->api, input, (const ort_context *, size_t, const ort_value **))(context, i, &value);
    if (!status) status = look_at(k->api, value, &in[i]);
    if (status) return status;
  }
  if (k->ready) return compute_with(k, &k->layer, in, context);
  packed_layer layer; /* weights that another node computes: packed for this call alone */
  const char *why = fill_layer(k, in + 1, &layer);
  if (why) return failed(k->api, k->facts->name, why);
  ort_status *status = compute_with(k, &layer, in, context);
  free_layer(&layer);
  return status;
}

/* ---- what the runtime asks of an operator ----------------------------------------------------------------------- */

static const char *SC_ORT_CALL name_of(const ort_operator *op) { return ((const operator_facts *)op)->name; }
static const char *SC_ORT_CALL provider_of(const ort_operator *op) {
  (void)op;
  return NULL; /* the CPU */
}
static int SC_ORT_CALL input_type(const ort_operator *op, size_t i) {
  (void)op;
  return i == 4 ? ORT_INT32 : ORT_FLOAT;
}
static size_t SC_ORT_CALL input_number(const ort_operator *op) { return ((const operator_facts *)op)->ragged ? 5 : 4; }
static int SC_ORT_CALL output_type(const ort_operator *op, size_t i) {
  (void)op;
  (void)i;
  return ORT_FLOAT;
}
static size_t SC_ORT_CALL output_number(const ort_operator *op) {
  return ((const operator_facts *)op)->cell == SC_CELL_lstm ? 2 : 1;
}
static int SC_ORT_CALL zero_of(const ort_operator *op, size_t i) { /* required; memory of the CPU */
  (void)op;
  (void)i;
  return 0;
}
static int SC_ORT_CALL one_of(const ort_operator *op) {
  (void)op;
  return 1;
}

#define CALLS                    \
  {.version = SC_ORT_VERSION,    \
   .name = name_of,              \
   .provider = provider_of,      \
   .input_type = input_type,     \
   .inputs = input_number,       \
   .output_type = output_type,   \
   .outputs = output_number,     \
   .destroy = destroy,           \
   .input_kind = zero_of,        \
   .output_kind = zero_of,       \
   .input_memory = zero_of,      \
   .input_arity = one_of,        \
   .input_homogeneity = one_of,  \
   .output_arity = one_of,       \
   .output_homogeneity = one_of, \
   .create = create,             \
   .compute = compute}

/* ONNX's order: z r h of a GRU, i o f c of an LSTM; ours: r z n and i f g o. */
#define OPERATORS(name, cell, gates, ...)                                  \
  {CALLS, name, SC_CELL_##cell, gates, 0, 0, {__VA_ARGS__}},               \
      {CALLS, name "Ragged", SC_CELL_##cell, gates, 0, 1, {__VA_ARGS__}},  \
      {CALLS, name "Reverse", SC_CELL_##cell, gates, 1, 0, {__VA_ARGS__}}, \
      {CALLS, name "ReverseRagged", SC_CELL_##cell, gates, 1, 1, {__VA_ARGS__}},
static const operator_facts operators[] = {OPERATORS("RnnTanh", rnn_tanh, 1, 0) OPERATORS(
    "RnnRelu", rnn_relu, 1, 0) OPERATORS("Gru", gru, 3, 1, 0, 2) OPERATORS("Lstm", lstm, 4, 0, 2, 3, 1)};

SC_EXPORT ort_status *SC_ORT_CALL RegisterCustomOps(ort_options *options, const ort_api_base *base) {
  const ort_api *api = base->get(SC_ORT_VERSION);
  if (!api) return NULL; /* an older runtime, which runs the bodies of the functions */
  ort_domain *domain = NULL;
  ort_status *status = CALL(api, create_domain, (const char *, ort_domain **))("sparsecirc", &domain);
  for (size_t i = 0; !status && i < sizeof operators / sizeof *operators; i++)
    status = CALL(api, domain_add, (ort_domain *, const ort_operator *))(domain, &operators[i].op);
  if (!status) status = CALL(api, add_domain, (ort_options *, ort_domain *))(options, domain);
  return status;
}
