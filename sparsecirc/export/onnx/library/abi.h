/* The part of ONNX Runtime's C interface that a library of operators needs, without its headers, which no wheel ships.
 *
 * The interface is a table of function pointers to which versions only append; a slot keeps its place. Functions return
 * null, or a status that says what went wrong. This is version 16 of the interface, of ONNX Runtime 1.16 and later.
 */
#ifndef SPARSECIRC_ABI_H
#define SPARSECIRC_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define SC_ORT_CALL __stdcall
#define SC_EXPORT __declspec(dllexport)
#else
#define SC_ORT_CALL
#define SC_EXPORT __attribute__((visibility("default")))
#endif

#define SC_ORT_VERSION 16

typedef struct ort_status ort_status;
typedef struct ort_value ort_value;
typedef struct ort_info ort_info;       /* of a kernel that is made */
typedef struct ort_context ort_context; /* of a call of a kernel */
typedef struct ort_options ort_options; /* of a session */
typedef struct ort_domain ort_domain;
typedef struct ort_shape ort_shape; /* type and shape of a tensor */

typedef void(SC_ORT_CALL *ort_function)(void);
typedef struct ort_api {
  ort_function slots[250];
} ort_api;

typedef struct ort_api_base {
  const ort_api *(SC_ORT_CALL *get)(uint32_t version);
  const char *(SC_ORT_CALL *version)(void);
} ort_api_base;

enum {
  SLOT_create_status = 0,           /* (int code, const char *) -> status */
  SLOT_create_domain = 26,          /* (const char *, ort_domain **) */
  SLOT_domain_add = 27,             /* (ort_domain *, const ort_operator *) */
  SLOT_add_domain = 28,             /* (ort_options *, ort_domain *) */
  SLOT_tensor_data = 51,            /* (ort_value *, void **) */
  SLOT_element_type = 60,           /* (const ort_shape *, int *) */
  SLOT_dimensions_count = 61,       /* (const ort_shape *, size_t *) */
  SLOT_dimensions = 62,             /* (const ort_shape *, int64_t *, size_t) */
  SLOT_type_and_shape = 65,         /* (const ort_value *, ort_shape **) */
  SLOT_attribute_int = 86,          /* (const ort_info *, const char *, int64_t *) */
  SLOT_input_count = 88,            /* (const ort_context *, size_t *) */
  SLOT_input = 90,                  /* (const ort_context *, size_t, const ort_value **) */
  SLOT_output = 91,                 /* (ort_context *, size_t, const int64_t *, size_t, ort_value **) */
  SLOT_release_type_and_shape = 99, /* (ort_shape *) */
  SLOT_constant_input = 249,        /* (const ort_info *, size_t, int *, const ort_value **) */
};

enum { ORT_FLOAT = 1, ORT_INT32 = 6 };
enum { ORT_FAIL = 1 };

typedef struct ort_operator ort_operator;
struct ort_operator {
  uint32_t version;
  void *(SC_ORT_CALL *create_old)(const ort_operator *, const ort_api *, const ort_info *);
  const char *(SC_ORT_CALL *name)(const ort_operator *);
  const char *(SC_ORT_CALL *provider)(const ort_operator *);
  int(SC_ORT_CALL *input_type)(const ort_operator *, size_t);
  size_t(SC_ORT_CALL *inputs)(const ort_operator *);
  int(SC_ORT_CALL *output_type)(const ort_operator *, size_t);
  size_t(SC_ORT_CALL *outputs)(const ort_operator *);
  void(SC_ORT_CALL *compute_old)(void *, ort_context *);
  void(SC_ORT_CALL *destroy)(void *);
  int(SC_ORT_CALL *input_kind)(const ort_operator *, size_t);
  int(SC_ORT_CALL *output_kind)(const ort_operator *, size_t);
  int(SC_ORT_CALL *input_memory)(const ort_operator *, size_t);
  int(SC_ORT_CALL *input_arity)(const ort_operator *);
  int(SC_ORT_CALL *input_homogeneity)(const ort_operator *);
  int(SC_ORT_CALL *output_arity)(const ort_operator *);
  int(SC_ORT_CALL *output_homogeneity)(const ort_operator *);
  ort_status *(SC_ORT_CALL *create)(const ort_operator *, const ort_api *, const ort_info *, void **);
  ort_status *(SC_ORT_CALL *compute)(void *, ort_context *);
};

#endif
