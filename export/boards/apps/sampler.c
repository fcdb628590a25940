/* Sampler: a timer interrupt sets the pace, one step a tick, and the core sleeps in between. The sensor is the serial
   line. Prints the largest output of every step and at the end how many steps took longer than their tick. */
#include "board.h"
#include "results.h"

#ifndef RATE_HZ
#define RATE_HZ 100u
#endif

typedef struct {
  volatile uint32_t control;
  volatile uint32_t reload;
  volatile uint32_t value;
} timer;

static timer *const systick = (timer *)0xE000E010u;
static volatile uint32_t ticks = 0u;
static net_state state;

void systick_handler(void);

void systick_handler(void) { ticks += 1u; }

int main(void) {
  static float numbers[NET_INPUTS];
  uint32_t late = 0u, steps = 0u;
  serial_start();
  net_init(&state);
  systick->reload = CORE_HZ / RATE_HZ - 1u;
  systick->value = 0u;
  systick->control = 7u; /* on, with interrupt, from the core's clock */
  while (serial_numbers(numbers, NET_INPUTS)) {
    const uint32_t now = ticks;
    __asm volatile("cpsid i"); /* a tick between the look and the sleep stays pending, which ends the sleep at once */
    while (ticks == now) {
      __asm volatile("wfi\n cpsie i\n isb\n cpsid i" ::: "memory");
    }
    __asm volatile("cpsie i");
    const uint32_t due = ticks;
    const float *const y = results_of_step(&state, numbers);
    late += ticks != due ? 1u : 0u;
    steps += 1u;
    uint32_t best = 0u;
    for (uint32_t i = 1u; i < NET_OUTPUTS; ++i) {
      best = y[i] > y[best] ? i : best;
    }
    serial_print_integer(best);
    serial_print(" ");
    serial_print_number(y[best]);
    serial_print("\n");
  }
  serial_print_integer(steps);
  serial_print(" steps, ");
  serial_print_integer(late);
  serial_print(" late\n");
  return 0;
}
