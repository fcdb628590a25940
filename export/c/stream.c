/* Runs the exported network `net` on a stream: numbers on standard input, NET_INPUTS of them a step; after each step
   all outputs on one line. For networks that take numbers (not indices) at every step. */
#include "net.h"

#include <stdio.h>
#include <string.h>

/* The output struct holds arrays of float only, so it has no padding and can be read as one array. */
typedef char no_padding[(sizeof(net_output) == NET_OUTPUTS * sizeof(float)) ? 1 : -1];

int main(void) {
  static net_state state;
  static float x[NET_INPUTS];
  static float values[NET_OUTPUTS];
  static net_output y;
  uint32_t filled = 0u;
  int got;
  net_init(&state);
  while ((got = scanf("%f", &x[filled])) == 1) {
    filled += 1u;
    if (filled == NET_INPUTS) {
      filled = 0u;
      net_step(&state, x, &y);
      memcpy(values, &y, sizeof values);
      for (uint32_t i = 0u; i < NET_OUTPUTS; ++i) {
        printf("%s%.9g", i > 0u ? " " : "", (double)values[i]);
      }
      printf("\n");
    }
  }
  if (got == 0 || filled != 0u) {
    fprintf(stderr, "stream: expected numbers, %u a step\n", (unsigned)NET_INPUTS);
    return 1;
  }
  return 0;
}
