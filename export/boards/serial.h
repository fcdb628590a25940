/* Numbers and words over a serial line, without the C library's input and output. */
#ifndef SERIAL_H
#define SERIAL_H

#include <stdint.h>

#define SERIAL_END 0x04 /* control-D: no more input will come */

/* What serial_read found. */
typedef enum {
  SERIAL_NUMBER, /* a number, stored */
  SERIAL_WORD,   /* something else; the first character is stored */
  SERIAL_LINE,   /* the end of a line */
  SERIAL_OVER    /* SERIAL_END */
} serial_item;

/* Switches the port on. */
void serial_start(void);

/* Waits for the next item. Numbers are written like -12.625: up to seven digits are read exactly, no exponent. `number`
   gets its value, or of a word its first character. */
serial_item serial_read(float *number);

/* Waits until `count` numbers are there, across lines; words are skipped. Returns 0 when the input is over. */
int serial_numbers(float *numbers, uint32_t count);

/* Text as it is. */
void serial_print(const char *text);

/* A whole number. */
void serial_print_integer(uint32_t number);

/* A number with six decimals; beyond +-1e9 "inf", no number "nan". */
void serial_print_number(float number);

#endif
