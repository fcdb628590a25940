/* See glue.h. */
#include "glue.h"

#include <stdio.h>

ort_status *sc_failed(const ort_api *api, const char *name, const char *what) {
  char text[240];
  snprintf(text, sizeof text, "sparsecirc.%s: %s", name, what);
  return ((ort_status * (SC_ORT_CALL *)(int, const char *)) api->slots[SLOT_create_status])(ORT_FAIL, text);
}

ort_status *sc_look_at(const ort_api *api, const ort_value *value, tensor *t) {
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

int sc_has_shape(const tensor *t, int rank, int64_t a, int64_t b, int64_t c) {
  const int64_t want[3] = {a, b, c};
  if (t->rank != rank) return 0;
  for (int i = 0; i < rank; i++)
    if (want[i] >= 0 && t->dims[i] != want[i]) return 0;
  return 1;
}

ort_status *sc_input(const ort_api *api, const ort_context *context, size_t i, tensor *t) {
  const ort_value *value = NULL;
  ort_status *status = CALL(api, input, (const ort_context *, size_t, const ort_value **))(context, i, &value);
  return status ? status : sc_look_at(api, value, t);
}

ort_status *sc_output(const ort_api *api, ort_context *context, size_t i, const int64_t *shape, size_t rank,
                      float **y) {
  ort_value *out = NULL;
  *y = NULL;
  ort_status *status =
      CALL(api, output, (ort_context *, size_t, const int64_t *, size_t, ort_value **))(context, i, shape, rank, &out);
  if (!status && out) status = CALL(api, tensor_data, (const ort_value *, void **))(out, (void **)(void *)y);
  return status;
}

ort_status *sc_constants(const ort_api *api, const ort_info *info, size_t n, tensor *t, int *constant) {
  *constant = 1;
  for (size_t i = 0; i < n; i++) {
    const ort_value *value = NULL;
    ort_status *status =
        CALL(api, constant_input, (const ort_info *, size_t, int *, const ort_value **))(info, i + 1, constant, &value);
    if (!status && *constant) status = sc_look_at(api, value, &t[i]);
    if (status || !*constant) return status;
  }
  return NULL;
}

int64_t *sc_lengths(const tensor *t, int64_t steps, int64_t batch, const char **why) {
  *why = NULL;
  if (t->type != ORT_INT32 || !sc_has_shape(t, 1, batch, -1, -1)) *why = "the valid steps must be int32 (B,)";
  int64_t *lengths = *why ? NULL : sc_zeros((size_t)batch, sizeof *lengths);
  if (!*why && !lengths) *why = SC_SHORT_OF_MEMORY;
  for (int64_t b = 0; !*why && b < batch; b++) {
    lengths[b] = ((const int32_t *)t->data)[b];
    if (lengths[b] < 0 || lengths[b] > steps) *why = "a length is below 0 or above the number of steps";
  }
  if (!*why) return lengths;
  free(lengths);
  return NULL;
}

const char *SC_ORT_CALL sc_name_of(const ort_operator *op) { return ((const operator_facts *)op)->name; }

const char *SC_ORT_CALL sc_provider_of(const ort_operator *op) {
  (void)op;
  return NULL; /* the CPU */
}

int SC_ORT_CALL sc_input_type(const ort_operator *op, size_t i) {
  const operator_facts *facts = (const operator_facts *)op;
  return facts->ragged && i + 1 == (size_t)facts->inputs ? ORT_INT32 : ORT_FLOAT;
}

size_t SC_ORT_CALL sc_input_number(const ort_operator *op) { return (size_t)((const operator_facts *)op)->inputs; }

int SC_ORT_CALL sc_output_type(const ort_operator *op, size_t i) {
  (void)op;
  (void)i;
  return ORT_FLOAT;
}

size_t SC_ORT_CALL sc_output_number(const ort_operator *op) { return (size_t)((const operator_facts *)op)->outputs; }

int SC_ORT_CALL sc_zero_of(const ort_operator *op, size_t i) { /* required; memory of the CPU */
  (void)op;
  (void)i;
  return 0;
}

int SC_ORT_CALL sc_one_of(const ort_operator *op) {
  (void)op;
  return 1;
}

SC_EXPORT ort_status *SC_ORT_CALL RegisterCustomOps(ort_options *options, const ort_api_base *base) {
  const ort_api *api = base->get(SC_ORT_VERSION);
  if (!api) return NULL; /* an older runtime, which runs the bodies of the functions */
  ort_domain *domain = NULL;
  ort_status *status = CALL(api, create_domain, (const char *, ort_domain **))("sparsecirc", &domain);
  if (!status) status = sc_add_layers(api, domain);
  if (!status) status = sc_add_driven(api, domain);
  if (!status) status = sc_add_products(api, domain);
  if (!status) status = CALL(api, add_domain, (ort_options *, ort_domain *))(options, domain);
  return status;
}
