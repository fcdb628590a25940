/* Which instruction sets this build and this processor both have. */
#include <string.h>

#include "../include/sparsecirc.h"

#define X(name) extern const sc_ops sc_ops_##name;
SC_ISAS(X)
#undef X

static const sc_ops *sc_find_scalar(void) { return &sc_ops_scalar; }

#ifdef SC_X86
static const sc_ops *sc_find_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &sc_ops_avx2 : NULL;
}
static const sc_ops *sc_find_avx512(void) {
  const int has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has && sc_find_avx2() ? &sc_ops_avx512 : NULL;
}
#else
static const sc_ops *sc_find_avx2(void) { return NULL; }
static const sc_ops *sc_find_avx512(void) { return NULL; }
#endif

#ifdef SC_AARCH64
static const sc_ops *sc_find_neon(void) { return &sc_ops_neon; } /* every 64-bit Arm has it */
#else
static const sc_ops *sc_find_neon(void) { return NULL; }
#endif

const sc_ops *sc_ops_for(const char *isa) {
#define X(name) \
  if (!strcmp(isa, #name)) return sc_find_##name();
  SC_ISAS(X)
#undef X
  return NULL;
}
