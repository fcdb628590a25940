/* Products with sparse matrices as operators of the domain "sparsecirc": Linear, and LinearSpikes for inputs of which
 * most are zero, as spikes are. Inputs: X (..., in), W (rows, in), B (rows); output (..., rows). A constant W is packed
 * once, when a session is made.
 */
#include "glue.h"

#define SC_TOGETHER 32 /* vectors that stand for many when layouts are compared */

typedef struct product_facts {
  operator_facts of;
  int events;
} product_facts;

typedef struct packed_product {
  sc_packed one, many;
  float *bias;
} packed_product;

typedef struct kernel {
  const ort_api *api;
  const product_facts *facts;
  const sc_ops *ops;
  int ready; /* the weights are constant and `product` holds them */
  packed_product product;
} kernel;

static void free_product(packed_product *p) {
  sc_pack_free(&p->one);
  sc_pack_free(&p->many);
  free(p->bias);
  memset(p, 0, sizeof *p);
}

static const char *fill_product(const kernel *k, const tensor *w, packed_product *p) {
  memset(p, 0, sizeof *p);
  if (w[0].type != ORT_FLOAT || w[1].type != ORT_FLOAT) return "weights must be float32";
  if (!sc_has_shape(&w[0], 2, -1, -1, -1)) return "W must be (rows, features)";
  const int64_t rows = w[0].dims[0], cols = w[0].dims[1];
  if (!sc_has_shape(&w[1], 1, rows, -1, -1)) return "B must be (rows,)";
  if (rows > INT32_MAX / 64 || cols > INT32_MAX / 64) return "the shape is out of range";
  const char *why = sc_pack_fastest(&p->one, k->ops, rows, cols, w[0].data, 1, k->facts->events);
  if (!why) why = sc_pack_fastest(&p->many, k->ops, rows, cols, w[0].data, SC_TOGETHER, k->facts->events);
  p->bias = sc_zeros((size_t)rows, sizeof *p->bias);
  if (!why && !p->bias) why = SC_SHORT_OF_MEMORY;
  if (!why && rows) memcpy(p->bias, w[1].data, (size_t)rows * sizeof *p->bias);
  if (why) free_product(p);
  return why;
}

static void SC_ORT_CALL destroy(void *p) {
  if (!p) return;
  free_product(&((kernel *)p)->product);
  free(p);
}

static ort_status *SC_ORT_CALL create(const ort_operator *op, const ort_api *api, const ort_info *info, void **made) {
  const product_facts *facts = (const product_facts *)op;
  kernel *k = calloc(1, sizeof *k);
  *made = NULL;
  if (!k) return sc_failed(api, facts->of.name, SC_SHORT_OF_MEMORY);
  k->api = api;
  k->facts = facts;
  k->ops = sc_best_ops();
  tensor w[2];
  ort_status *status = sc_constants(api, info, 2, w, &k->ready);
  if (!status && k->ready) {
    const char *why = fill_product(k, w, &k->product);
    if (why) status = sc_failed(api, facts->of.name, why);
  }
  if (status) {
    destroy(k);
    return status;
  }
  *made = k;
  return NULL;
}

static ort_status *compute_with(const kernel *k, const packed_product *p, const tensor *x, ort_context *context) {
  const int64_t rows = p->one.m.rows, cols = p->one.m.cols;
  if (x->type != ORT_FLOAT || x->rank < 1 || x->dims[x->rank - 1] != cols)
    return sc_failed(k->api, k->facts->of.name, "X must be float32 (..., features)");
  int64_t shape[4], n = 1;
  for (int i = 0; i + 1 < x->rank; i++) n *= shape[i] = x->dims[i];
  shape[x->rank - 1] = rows;
  float *y = NULL;
  ort_status *status = sc_output(k->api, context, 0, shape, (size_t)x->rank, &y);
  if (status || !y) return status;
  const sc_packed *w = n < SC_TOGETHER / 2 ? &p->one : &p->many;
  float *workspace = sc_zeros(sc_product_workspace(&w->m), sizeof *workspace);
  if (!workspace) return sc_failed(k->api, k->facts->of.name, SC_SHORT_OF_MEMORY);
  sc_product(k->ops, &w->m, x->data, cols, n, p->bias, y, rows, workspace);
  free(workspace);
  return NULL;
}

static ort_status *SC_ORT_CALL compute(void *p, ort_context *context) {
  const kernel *k = p;
  tensor in[3];
  for (size_t i = 0; i < (k->ready ? 1u : 3u); i++) {
    ort_status *status = sc_input(k->api, context, i, &in[i]);
    if (status) return status;
  }
  if (k->ready) return compute_with(k, &k->product, in, context);
  packed_product product; /* weights that another node computes: packed for this call alone */
  const char *why = fill_product(k, in + 1, &product);
  if (why) return sc_failed(k->api, k->facts->of.name, why);
  ort_status *status = compute_with(k, &product, in, context);
  free_product(&product);
  return status;
}

#define CALLS SC_CALLS(create, compute, destroy)
static const product_facts operators[] = {{{CALLS, "Linear", 3, 1, 0}, 0}, {{CALLS, "LinearSpikes", 3, 1, 0}, 1}};

ort_status *sc_add_products(const ort_api *api, ort_domain *domain) {
  ort_status *status = NULL;
  for (size_t i = 0; !status && i < sizeof operators / sizeof *operators; i++)
    status = CALL(api, domain_add, (ort_domain *, const ort_operator *))(domain, &operators[i].of.op);
  return status;
}
