/* Start-up for the emulated Cortex-M boards: vector table, memory, floating-point unit, C library, main. Applications
   that use semihosting files and those that do not share it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

void reset_handler(void);
int main(void);
void initialise_monitor_handles(void) __attribute__((weak)); /* newlib's files by semihosting, where they are linked */
void __libc_init_array(void);
void _init(void);
void _fini(void);

/* newlib calls these around static constructors; C has none. */
void _init(void) {}
void _fini(void) {}

static void fault_handler(void) { _Exit(70); /* an exit code that tells a fault from a failed comparison */ }

/* An application with a timer defines it. */
void systick_handler(void) __attribute__((weak, alias("fault_handler")));

typedef void (*handler)(void);

/* Initial stack, then the exceptions of the core by number; 15 is the timer. A board's own interrupts would follow. */
__attribute__((section(".vectors"), used)) static const struct {
  uint32_t *stack;
  handler entries[15];
} vectors = {stack_top,
             {reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
              fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
              systick_handler}};

void reset_handler(void) {
#ifdef __ARM_FP
  volatile uint32_t *const coprocessor_access = (uint32_t *)0xE000ED88u;
  *coprocessor_access |= 0xFu << 20; /* full access to the floating-point unit */
  __asm volatile("dsb\n isb" ::: "memory");
#endif
  memcpy(data_start, data_load, (size_t)((char *)data_end - (char *)data_start));
  memset(bss_start, 0, (size_t)((char *)bss_end - (char *)bss_start));
  if (initialise_monitor_handles != NULL) {
    initialise_monitor_handles();
  }
  __libc_init_array();
  exit(main());
}
