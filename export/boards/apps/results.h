/* The outputs of the network as one array, and how the applications print them. */
#ifndef RESULTS_H
#define RESULTS_H

#include "net.h"
#include "serial.h"

#include <string.h>

#if !NET_INPUT_PER_STEP
#error "the applications feed a network step by step: this one takes one input for all steps"
#endif

/* The output struct holds arrays of float only, so it has no padding and can be read as one array. */
typedef char results_no_padding[(sizeof(net_output) == NET_OUTPUTS * sizeof(float)) ? 1 : -1];

/* Takes one step with numbers as they came over the line; returns where the outputs are. */
static const float *results_of_step(net_state *state, const float *numbers) {
  static NET_INPUT_TYPE x[NET_INPUTS];
  static net_output y;
  static float values[NET_OUTPUTS];
  for (uint32_t i = 0u; i < NET_INPUTS; ++i) {
    x[i] = (NET_INPUT_TYPE)numbers[i];
  }
  net_step(state, x, &y);
  memcpy(values, &y, sizeof values);
  return values;
}

#endif
