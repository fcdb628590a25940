/* Training kernels for the compiler's default target. */
#define SC_NAME(x) sc_train_##x##__scalar
#define SC_VL 4
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_scalar)
