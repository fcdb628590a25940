/* The table every processor can run; built for the compiler's default target. */
#define SC_NAME(x) sc_f32_##x##__scalar
#define SC_VL 4
#define SC_GENERIC_MV
#include "generic.h"
#include "integer.h"
#include "pointwise.h"

SC_DEFINE_OPS("scalar", sc_ops_scalar)
