/* Training kernels for AVX2 and FMA. */
#include <immintrin.h>

#define SC_NAME(x) sc_train_##x##__avx2
#define SC_VL 8
#define SC_VEC_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_avx2)
