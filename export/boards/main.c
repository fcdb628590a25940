/* Runs the exported network `net` on a file, step by step, as an application on a board would; counts its instructions
   and measures its stack, the functions of the C library that it calls included.

   x.bin in the folder that the emulator runs in: samples and steps (uint32), then the input of every sample. y.bin gets
   the output struct of every step. Both are read and written by semihosting. */
#include "instructions.h"
#include "net.h"
#include "stack.h"

#include <stdio.h>
#include <string.h>

static net_state state;
static net_output y;
static NET_INPUT_TYPE x[NET_INPUTS];

int main(void) {
  uint32_t sizes[2] = {0u, 0u};
  uint64_t ticks = 0u, most = 0u;
  uint32_t deepest = 0u;
  FILE *const in = fopen("x.bin", "rb");
  FILE *const out = fopen("y.bin", "wb");
  if (in == NULL || out == NULL || fread(sizes, sizeof sizes, 1u, in) != 1u) {
    printf("expected a file x.bin that can be read, and y.bin that can be written\n");
    return 2;
  }
  instructions_start();
  for (uint32_t sample = 0u; sample < sizes[0]; ++sample) {
    net_init(&state);
    for (uint32_t step = 0u; step < sizes[1]; ++step) {
      if ((NET_INPUT_PER_STEP || step == 0u) && fread(x, sizeof x, 1u, in) != 1u) {
        printf("x.bin ends in sample %u, step %u\n", (unsigned)sample, (unsigned)step);
        return 3;
      }
      stack_paint();
      const uint32_t before = instructions_now();
      net_step(&state, x, &y);
      const uint32_t taken = (before - instructions_now()) & 0xFFFFFFu;
      const uint32_t stack = stack_used();
      deepest = stack > deepest ? stack : deepest;
      ticks += taken;
      most = taken > most ? taken : most;
      if (fwrite(&y, sizeof y, 1u, out) != 1u) {
        return 4;
      }
    }
  }
  const uint64_t steps = (uint64_t)sizes[0] * sizes[1];
  printf("instructions per step: %.0f, at most %.0f\n", instructions_in(ticks) / (double)(steps > 0u ? steps : 1u),
         instructions_in(most));
  printf("stack of a step: %u bytes\n", (unsigned)deepest);
  fclose(in);
  return fclose(out) == 0 ? 0 : 5;
}
