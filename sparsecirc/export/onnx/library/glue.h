/* What all operators share: tensors of the runtime, and what the runtime asks of an operator. */
#ifndef SPARSECIRC_GLUE_H
#define SPARSECIRC_GLUE_H

#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "pack.h"

#define SC_SHORT_OF_MEMORY "there is not enough memory"

/* The first member of what is known of an operator. Its valid steps, if it takes any, are its last input. */
typedef struct operator_facts {
  ort_operator op; /* first: the runtime hands back a pointer to it */
  const char *name;
  int inputs, outputs, ragged;
} operator_facts;

#define CALL(api, slot, ...) ((ort_status * (SC_ORT_CALL *)__VA_ARGS__)(api)->slots[SLOT_##slot])

ort_status *sc_failed(const ort_api *api, const char *name, const char *what);

/* A tensor as it lies in memory; rank -1 where it is no tensor, or none of at most 4 axes. */
typedef struct tensor {
  const void *data;
  int type, rank;
  int64_t dims[4];
} tensor;

ort_status *sc_look_at(const ort_api *api, const ort_value *value, tensor *t);
/* Dimensions below zero may be anything. */
int sc_has_shape(const tensor *t, int rank, int64_t a, int64_t b, int64_t c);
/* Input i of a call, and output i, which is null where nobody wants it. */
ort_status *sc_input(const ort_api *api, const ort_context *context, size_t i, tensor *t);
ort_status *sc_output(const ort_api *api, ort_context *context, size_t i, const int64_t *shape, size_t rank, float **y);
/* Inputs 1 .. n of an operator that is made; *constant: whether all of them are known already. */
ort_status *sc_constants(const ort_api *api, const ort_info *info, size_t n, tensor *t, int *constant);
/* Valid steps (B,) of every sample, allocated; null and *why where they are wrong. */
int64_t *sc_lengths(const tensor *t, int64_t steps, int64_t batch, const char **why);

const char *SC_ORT_CALL sc_name_of(const ort_operator *op);
const char *SC_ORT_CALL sc_provider_of(const ort_operator *op);
int SC_ORT_CALL sc_input_type(const ort_operator *op, size_t i);
size_t SC_ORT_CALL sc_input_number(const ort_operator *op);
int SC_ORT_CALL sc_output_type(const ort_operator *op, size_t i);
size_t SC_ORT_CALL sc_output_number(const ort_operator *op);
int SC_ORT_CALL sc_zero_of(const ort_operator *op, size_t i);
int SC_ORT_CALL sc_one_of(const ort_operator *op);

#define SC_CALLS(make, run, end)    \
  {.version = SC_ORT_VERSION,       \
   .name = sc_name_of,              \
   .provider = sc_provider_of,      \
   .input_type = sc_input_type,     \
   .inputs = sc_input_number,       \
   .output_type = sc_output_type,   \
   .outputs = sc_output_number,     \
   .destroy = end,                  \
   .input_kind = sc_zero_of,        \
   .output_kind = sc_zero_of,       \
   .input_memory = sc_zero_of,      \
   .input_arity = sc_one_of,        \
   .input_homogeneity = sc_one_of,  \
   .output_arity = sc_one_of,       \
   .output_homogeneity = sc_one_of, \
   .create = make,                  \
   .compute = run}

/* Adds the operators of a file to a domain. */
ort_status *sc_add_layers(const ort_api *api, ort_domain *domain);
ort_status *sc_add_driven(const ort_api *api, ort_domain *domain);
ort_status *sc_add_products(const ort_api *api, ort_domain *domain);

#endif
