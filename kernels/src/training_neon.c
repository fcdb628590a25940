/* Training kernels for NEON (64-bit Arm). */
#include <arm_neon.h>

#define SC_NAME(x) sc_train_##x##__neon
#define SC_VL 4
#define SC_VEC_FMA(a, b, c) vfmaq_f32((c), (a), (b))
#define SC_VEC_SUM(v) vaddvq_f32(v)
#define SC_VEC_SUM4(a, b, c, d) vpaddq_f32(vpaddq_f32((a), (b)), vpaddq_f32((c), (d)))
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_neon)
