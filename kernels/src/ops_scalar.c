/* The table every processor can run; built for the compiler's default target. */
#define SC_ISA "scalar"
#define SC_NAME(x) sc_f32_##x##__scalar
#define SC_VL 4
#include "generic.h"
#include "integer.h"
#include "pointwise.h"

SC_DEFINE_OPS(sc_ops_scalar)
