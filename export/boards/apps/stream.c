/* Stream: after every NET_INPUTS numbers all outputs of the step, on one line. */
#include "results.h"

static net_state state;

int main(void) {
  static float numbers[NET_INPUTS];
  serial_start();
  net_init(&state);
  while (serial_numbers(numbers, NET_INPUTS)) {
    const float *const y = results_of_step(&state, numbers);
    for (uint32_t i = 0u; i < NET_OUTPUTS; ++i) {
      serial_print(i > 0u ? " " : "");
      serial_print_number(y[i]);
    }
    serial_print("\n");
  }
  return 0;
}
