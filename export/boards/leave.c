/* For applications without semihosting files: what exit() ends in. Under an emulator with semihosting enabled the board
   stops with the exit code; without a debugger it sleeps. */
#include <stdint.h>

void _exit(int code);

void _exit(int code) {
#ifdef EMULATED
  const uint32_t block[2] = {0x20026u, (uint32_t)code}; /* the application ended, with this code */
  register uint32_t operation __asm("r0") = 0x20u;
  register const uint32_t *argument __asm("r1") = block;
  __asm volatile("bkpt 0xAB" ::"r"(operation), "r"(argument) : "memory");
#else
  (void)code;
#endif
  for (;;) {
    __asm volatile("wfi");
  }
}
