/* Counts instructions on an emulated board. Under `qemu-system-arm -icount shift=0` an instruction takes one nanosecond
   of the board's time, so its timer counts instructions; on hardware the same code counts ticks of the core's clock. */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include <stdint.h>

/* Starts the timer and measures a loop of known length with it. */
void instructions_start(void);

/* The timer; it counts down and wraps around at 24 bits. */
uint32_t instructions_now(void);

/* Instructions in `ticks` ticks. */
double instructions_in(uint64_t ticks);

#endif
