#include "stack.h"

#define PAINT 0xA5C33C5Au
#define WORDS (STACK_PAINTED / 4u)

static volatile uint32_t *top; /* the stack pointer while painting; both functions are leaves without a frame */

__attribute__((noinline)) void stack_paint(void) {
  uint32_t *here;
  __asm volatile("mov %0, sp" : "=r"(here));
  top = here;
  for (uint32_t i = 1u; i <= WORDS; ++i) {
    *(top - i) = PAINT;
  }
}

__attribute__((noinline)) uint32_t stack_used(void) {
  uint32_t words = WORDS;
  while (words > 0u && *(top - words) == PAINT) {
    words -= 1u;
  }
  return 4u * words;
}
