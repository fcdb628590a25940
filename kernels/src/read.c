/* Reading memory as fast as one core can: what the bandwidth of a kernel is compared with. */
#include <string.h>

#include "../include/sparsecirc.h"

enum { STREAMS = 8 }; /* loads in flight that do not wait for each other */

/* The bitwise or of all words: the cheapest result that needs every one of them. The barrier keeps the compiler from
 * reading once for all repeats.
 */
#define SC_READ(name, bytes, features)                                                     \
  typedef uint32_t name##_words __attribute__((vector_size(bytes)));                       \
  features static uint32_t sc_read_##name(const uint32_t *x, int64_t n, int64_t repeats) { \
    enum { LANES = bytes / 4 };                                                            \
    name##_words any[STREAMS] = {{0}};                                                     \
    uint32_t rest = 0, out[LANES];                                                         \
    for (int64_t k = 0; k < repeats; k++) {                                                \
      int64_t i = 0;                                                                       \
      for (; i + STREAMS * LANES <= n; i += STREAMS * LANES)                               \
        for (int s = 0; s < STREAMS; s++) {                                                \
          name##_words w;                                                                  \
          memcpy(&w, x + i + s * LANES, sizeof w);                                         \
          any[s] |= w;                                                                     \
        }                                                                                  \
      for (; i < n; i++) rest |= x[i];                                                     \
      __asm__ volatile("" : : : "memory");                                                 \
    }                                                                                      \
    for (int s = 1; s < STREAMS; s++) any[0] |= any[s];                                    \
    memcpy(out, &any[0], sizeof out);                                                      \
    for (int s = 0; s < LANES; s++) rest |= out[s];                                        \
    return rest;                                                                           \
  }

SC_READ(plain, 16, )
#ifdef SC_X86
SC_READ(avx2, 32, __attribute__((target("avx2"))))
SC_READ(avx512, 64, __attribute__((target("avx512f"))))
#endif

uint32_t sc_read(const uint32_t *x, int64_t n, int64_t repeats) {
#ifdef SC_X86
  if (__builtin_cpu_supports("avx512f")) return sc_read_avx512(x, n, repeats);
  if (__builtin_cpu_supports("avx2")) return sc_read_avx2(x, n, repeats);
#endif
  return sc_read_plain(x, n, repeats);
}
