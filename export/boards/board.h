/* What differs between the emulated boards: where the first serial port (a CMSDK UART) and the timer's clock are. The
   Makefile and CMakeLists.txt define one BOARD_... macro; for hardware of your own, replace this file and serial.c. */
#ifndef BOARD_H
#define BOARD_H

#if defined(BOARD_MPS2_AN505)
#define SERIAL_BASE 0x50200000u /* seen from the secure state, in which the core starts */
#define CORE_HZ 20000000u
#elif defined(BOARD_MPS3_AN547)
#define SERIAL_BASE 0x59303000u
#define CORE_HZ 32000000u
#elif defined(BOARD_MPS2_AN385) || defined(BOARD_MPS2_AN386) || defined(BOARD_MPS2_AN500)
#define SERIAL_BASE 0x40004000u
#define CORE_HZ 25000000u
#else
#error "expected -DBOARD_MPS2_AN385, _AN386, _AN500, _AN505 or -DBOARD_MPS3_AN547"
#endif

#endif
