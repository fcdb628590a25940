/* Which instruction sets this build and this processor both have. */
#include <string.h>

#include "../include/sparsecirc.h"

#define X(name) extern const sc_ops sc_ops_##name;
SC_ISAS(X)
#undef X

static int sc_has_scalar(void) { return 1; }

#ifdef SC_X86
static int sc_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int sc_has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && sc_has_avx2();
}
#define SC_TABLE(name) &sc_ops_##name
#else
static int sc_has_avx2(void) { return 0; }
static int sc_has_avx512(void) { return 0; }
#define SC_TABLE(name) NULL
#endif

const sc_ops *sc_ops_for(const char *isa) {
  if (!strcmp(isa, "scalar")) return sc_has_scalar() ? &sc_ops_scalar : NULL;
  if (!strcmp(isa, "avx2")) return sc_has_avx2() ? SC_TABLE(avx2) : NULL;
  if (!strcmp(isa, "avx512")) return sc_has_avx512() ? SC_TABLE(avx512) : NULL;
  return NULL;
}
