/* Training kernels for AVX-512 F/BW/DQ/VL. */
#include <immintrin.h>

#define SC_NAME(x) sc_train_##x##__avx512
#define SC_VL 16
#define SC_VEC_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define SC_VEC_SUM(v) _mm512_reduce_add_ps(v)
#include "training.h"

SC_DEFINE_TRAIN_OPS(sc_train_ops_avx512)
