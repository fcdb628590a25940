#include "instructions.h"

typedef struct {
  volatile uint32_t control;
  volatile uint32_t reload;
  volatile uint32_t value;
} timer;

static timer *const systick = (timer *)0xE000E010u;
static double per_tick = 1.0;

uint32_t instructions_now(void) { return systick->value; }

void instructions_start(void) {
  uint32_t rounds = 1000000u;
  systick->reload = 0xFFFFFFu;
  systick->value = 0u;
  systick->control = 5u; /* on, from the core's clock, without interrupt */
  const uint32_t before = instructions_now();
  __asm volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(rounds)::"cc");
  const uint32_t ticks = (before - instructions_now()) & 0xFFFFFFu;
  per_tick = 2000000.0 / (double)ticks;
}

double instructions_in(uint64_t ticks) { return per_tick * (double)ticks; }
