#include "serial.h"

#include "board.h"

typedef struct {
  volatile uint32_t data;
  volatile uint32_t state;
  volatile uint32_t control;
  volatile uint32_t interrupts;
  volatile uint32_t divider;
} uart;

#define SENDING 1u /* bits of `state` */
#define RECEIVED 2u

static uart *const port = (uart *)SERIAL_BASE;
static int ahead = -1; /* a character that was read and belongs to the next item */

void serial_start(void) {
  port->divider = CORE_HZ / 115200u;
  port->control = 3u; /* send and receive */
}

static int next(void) {
  int c = ahead;
  ahead = -1;
  if (c < 0) {
    while ((port->state & RECEIVED) == 0u) {
    }
    c = (int)(port->data & 0xFFu);
  }
  return c;
}

static int is_digit(int c) { return c >= '0' && c <= '9'; }

static int ends_item(int c) { return c == ' ' || c == ',' || c == '\t' || c == '\r' || c == '\n' || c == SERIAL_END; }

serial_item serial_read(float *number) {
  int c = next();
  while (c == ' ' || c == ',' || c == '\t' || c == '\r') {
    c = next();
  }
  if (c == '\n') {
    return SERIAL_LINE;
  }
  if (c == SERIAL_END) {
    ahead = c; /* it stays over */
    return SERIAL_OVER;
  }
  const int first = c;
  const int negative = c == '-';
  uint32_t digits = 0u; /* the number without its point, at most nine digits */
  float scale = 1.0f;
  int decimals = 0, wrong = 0, any = 0;
  c = negative ? next() : c;
  while (!ends_item(c)) {
    if (is_digit(c) && digits < 100000000u) {
      digits = 10u * digits + (uint32_t)(c - '0');
      scale = decimals ? 10.0f * scale : scale;
    } else if (is_digit(c)) {
      wrong = wrong || !decimals; /* decimals beyond the ninth digit do not count */
    } else if (c == '.' && !decimals) {
      decimals = 1;
    } else {
      wrong = 1;
    }
    any = any || is_digit(c);
    c = next();
  }
  ahead = c;
  if (wrong || !any) {
    *number = (float)first;
    return SERIAL_WORD;
  }
  *number = (negative ? -(float)digits : (float)digits) / scale; /* rounded once up to seven digits */
  return SERIAL_NUMBER;
}

int serial_numbers(float *numbers, uint32_t count) {
  uint32_t filled = 0u;
  while (filled < count) {
    const serial_item item = serial_read(&numbers[filled]);
    if (item == SERIAL_OVER) {
      return 0;
    }
    filled += item == SERIAL_NUMBER ? 1u : 0u;
  }
  return 1;
}

static void send(char c) {
  while ((port->state & SENDING) != 0u) {
  }
  port->data = (uint32_t)c;
}

void serial_print(const char *text) {
  for (; *text != '\0'; ++text) {
    send(*text);
  }
}

static void print_digits(uint32_t number, uint32_t least) {
  char text[10];
  uint32_t n = 0u;
  do {
    text[n] = (char)('0' + (char)(number % 10u));
    n += 1u;
    number /= 10u;
  } while (number > 0u || n < least);
  while (n > 0u) {
    n -= 1u;
    send(text[n]);
  }
}

void serial_print_integer(uint32_t number) { print_digits(number, 1u); }

void serial_print_number(float number) {
  float size = number < 0.0f ? -number : number;
  if (!(size < 1e9f)) {
    serial_print(size > 0.0f ? (number < 0.0f ? "-inf" : "inf") : "nan");
    return;
  }
  uint32_t whole = (uint32_t)size;
  uint32_t millionths = (uint32_t)((size - (float)whole) * 1e6f + 0.5f);
  if (millionths >= 1000000u) {
    whole += 1u;
    millionths -= 1000000u;
  }
  if (number < 0.0f) {
    send('-');
  }
  print_digits(whole, 1u);
  send('.');
  print_digits(millionths, 6u);
}
