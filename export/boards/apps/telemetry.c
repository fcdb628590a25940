/* Telemetry: what every step costs on this core: instructions (on hardware: ticks of the core's clock) and stack, with
   the largest output. */
#include "instructions.h"
#include "results.h"
#include "stack.h"

static net_state state;

int main(void) {
  static float numbers[NET_INPUTS];
  uint32_t worst = 0u, deepest = 0u;
  serial_start();
  instructions_start();
  net_init(&state);
  while (serial_numbers(numbers, NET_INPUTS)) {
    stack_paint();
    const uint32_t before = instructions_now();
    const float *const y = results_of_step(&state, numbers);
    const uint32_t ticks = (before - instructions_now()) & 0xFFFFFFu;
    const uint32_t stack = stack_used();
    const uint32_t taken = (uint32_t)(instructions_in(ticks) + 0.5);
    worst = taken > worst ? taken : worst;
    deepest = stack > deepest ? stack : deepest;
    uint32_t best = 0u;
    for (uint32_t i = 1u; i < NET_OUTPUTS; ++i) {
      best = y[i] > y[best] ? i : best;
    }
    serial_print_integer(best);
    serial_print(" ");
    serial_print_number(y[best]);
    serial_print(", ");
    serial_print_integer(taken);
    serial_print(" instructions\n");
  }
  serial_print("at most ");
  serial_print_integer(worst);
  serial_print(" instructions and ");
  serial_print_integer(deepest);
  serial_print(" bytes of stack\n");
  return 0;
}
