/* Classify: one step per line; an empty line ends a sequence, and the number of the largest output is printed. The next
   sequence starts from a fresh state. */
#include "results.h"

static net_state state;

static uint32_t largest(const float *y) {
  uint32_t best = 0u;
  for (uint32_t i = 1u; i < NET_OUTPUTS; ++i) {
    best = y[i] > y[best] ? i : best;
  }
  return best;
}

int main(void) {
  static float numbers[NET_INPUTS];
  uint32_t filled = 0u, steps = 0u, class_now = 0u;
  int line_is_empty = 1;
  serial_item item;
  serial_start();
  net_init(&state);
  do {
    item = serial_read(&numbers[filled]);
    if (item == SERIAL_NUMBER) {
      line_is_empty = 0;
      filled += 1u;
      if (filled == NET_INPUTS) {
        class_now = largest(results_of_step(&state, numbers));
        filled = 0u;
        steps += 1u;
      }
    } else if (item == SERIAL_LINE || item == SERIAL_OVER) {
      if ((line_is_empty || item == SERIAL_OVER) && steps > 0u) {
        serial_print("class ");
        serial_print_integer(class_now);
        serial_print(" after ");
        serial_print_integer(steps);
        serial_print(" steps\n");
        net_init(&state);
        steps = 0u;
        filled = 0u;
      }
      line_is_empty = 1;
    }
  } while (item != SERIAL_OVER);
  return 0;
}
