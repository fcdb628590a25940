/* Channels: several sensors, one network. Each line starts with the letter of its sensor (A, B, ...), whose numbers go
   to a state of its own; all states share the constants in flash. Prints the letter and the outputs of the step. */
#include "results.h"

#define CHANNELS 4u

static net_state states[CHANNELS];

int main(void) {
  static float numbers[NET_INPUTS];
  float word;
  serial_item item;
  serial_start();
  for (uint32_t c = 0u; c < CHANNELS; ++c) {
    net_init(&states[c]);
  }
  do {
    item = serial_read(&word);
    const int letter = item == SERIAL_WORD ? (int)word : 0;
    if (letter >= 'A' && letter < 'A' + (int)CHANNELS && serial_numbers(numbers, NET_INPUTS)) {
      const float *const y = results_of_step(&states[letter - 'A'], numbers);
      const char name[2] = {(char)letter, '\0'};
      serial_print(name);
      for (uint32_t i = 0u; i < NET_OUTPUTS; ++i) {
        serial_print(" ");
        serial_print_number(y[i]);
      }
      serial_print("\n");
    }
  } while (item != SERIAL_OVER);
  return 0;
}
