/* How deep a call reaches into the stack: paint what lies below, call, and look what is left of the paint. No interrupt
   may come in between. */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>

#define STACK_PAINTED 4096u /* bytes; a call that takes more is told as this many */

/* Paints STACK_PAINTED bytes below the caller's stack. */
void stack_paint(void);

/* Bytes of the paint that are gone. Call it from the function that called stack_paint. */
uint32_t stack_used(void);

#endif
