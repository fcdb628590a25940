/* The same mathematics in double precision, written as plainly as possible and sharing nothing with the kernels. */
#ifndef SPARSECIRC_TEST_REFERENCE_H
#define SPARSECIRC_TEST_REFERENCE_H

#include "packing.h"

/* What a kernel of `format` sees of an input. */
static double seen(int format, double x) {
  if (!is_integer(format)) return x;
  const float top = is_byte(format) ? 127.0f : 2047.0f;
  const float v = (float)x * top;
  return (double)(rintf(v > top ? top : v < -top ? -top : v) / top);
}

/* One entry of W x + bias, and the sum of the magnitudes that are added. */
static double entry(const plain *p, int format, int64_t r, const double *x, const float *bias, double *size) {
  double sum = bias ? (double)bias[r] : 0.0, magnitude = fabs(sum);
  for (int64_t c = 0; c < p->cols; c++) {
    if (p->w[r * p->cols + c] == 0) continue;
    const double term = (double)p->w[r * p->cols + c] * seen(format, x[c]);
    sum += term;
    magnitude += fabs(term);
  }
  if (size) *size = magnitude;
  return sum;
}

/* A layer with its plain matrices (null where absent) and the format of the recurrent one. */
typedef struct layer_case {
  sc_layer l;
  plain *ih, *hh, *hr;
  int ih_format, hh_format, hr_format;
} layer_case;

static const int gate_count[] = {
#define X(name, gates, states, spiking) gates,
    SC_CELLS(X)
#undef X
};
static const int state_count[] = {
#define X(name, gates, states, spiking) states,
    SC_CELLS(X)
#undef X
};
static const int is_spiking[] = {
#define X(name, gates, states, spiking) spiking,
    SC_CELLS(X)
#undef X
};

static double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }

/* The membrane of one neuron: decay, integrate `input`, reset, fire. */
static void fire(const sc_layer *l, int64_t i, double input, double *spk, double *mem) {
  const double theta = (double)l->theta[i], due = *mem > theta ? 1 : 0;
  double m = *mem;
  if (l->reset == SC_RESET_zero) m = (1 - due) * m;
  m = (double)l->beta[i] * m + input;
  if (l->reset == SC_RESET_subtract) m -= due * theta;
  if (l->reset == SC_RESET_zero_update) m -= due * m;
  const double s = m > theta ? 1 : 0, now = s - due;
  if (!l->delay && l->reset == SC_RESET_subtract) m -= now * theta;
  if (!l->delay && (l->reset == SC_RESET_zero || l->reset == SC_RESET_zero_update)) m -= now * m;
  *spk = s;
  *mem = m;
}

/* The same with a threshold that rises by its strength with every spike and sinks back. */
static void fire_adaptive(const sc_layer *l, int64_t i, double input, double *spk, double *adapt, double *mem) {
  const double theta = (double)l->theta[i], strength = (double)l->strength[i], z = *spk, old = *adapt;
  const double a = (double)l->alpha[i] * old + z, level = theta + strength * a;
  double m = *mem;
  if (l->delay && l->reset == SC_RESET_zero && z != 0) m = 0;
  m = (double)l->beta[i] * m + input;
  if (l->delay && l->reset == SC_RESET_subtract) m -= z * (theta + (l->adapted ? strength * old : 0));
  if (l->delay && l->reset == SC_RESET_zero_update && z != 0) m = 0;
  const double s = m > level ? 1 : 0;
  if (!l->delay && l->reset == SC_RESET_subtract) m -= s * (theta + (l->adapted ? strength * a : 0));
  if (!l->delay && (l->reset == SC_RESET_zero || l->reset == SC_RESET_zero_update) && s != 0) m = 0;
  *spk = s;
  *adapt = a;
  *mem = m;
}

/* One unit of one step; a and b are the input and the recurrent product, state s[k] of the unit is changed. */
static void unit(const sc_layer *l, int64_t i, const double *a, const double *b, double *s[3], double *h) {
  const int64_t n = l->units;
  double in, keep;
  switch (l->cell) {
    case SC_CELL_rnn_tanh:
      h[i] = tanh(a[i] + b[i]);
      break;
    case SC_CELL_rnn_relu:
      h[i] = fmax(a[i] + b[i], 0);
      break;
    case SC_CELL_gru:
      keep = logistic(a[n + i] + b[n + i]);
      h[i] = (1 - keep) * tanh(a[2 * n + i] + logistic(a[i] + b[i]) * b[2 * n + i]) + keep * s[0][i];
      break;
    case SC_CELL_lstm:
      in = logistic(a[i] + b[i]);
      s[1][i] = logistic(a[n + i] + b[n + i]) * s[1][i] + in * tanh(a[2 * n + i] + b[2 * n + i]);
      h[i] = logistic(a[3 * n + i] + b[3 * n + i]) * tanh(s[1][i]);
      break;
    case SC_CELL_lif:
      fire(l, i, a[i] + b[i], &h[i], &s[1][i]);
      break;
    case SC_CELL_synaptic:
      s[1][i] = (double)l->alpha[i] * s[1][i] + a[i] + b[i];
      fire(l, i, s[1][i], &h[i], &s[2][i]);
      break;
    case SC_CELL_alif:
      h[i] = s[0][i];
      fire_adaptive(l, i, a[i] + b[i], &h[i], &s[1][i], &s[2][i]);
      break;
    case SC_CELL_li:
      h[i] = (double)l->beta[i] * s[0][i] + a[i] + b[i];
      break;
    default:
      abort(); /* a cell without a reference is a test that is missing */
  }
}

static int64_t wide_of(const sc_layer *l, int k) { return k ? l->units : l->width; }

/* A matrix row by row, without its zeros: a run multiplies by it at every step, under an emulator too. */
typedef struct rows_of {
  int64_t rows, cols, *end, *column;
  double *w, *x; /* x: room for what the kernel sees of an input */
  int format;
} rows_of;

static rows_of live_rows(const plain *p, int format) {
  rows_of m = {.format = format};
  if (!p) return m;
  m.rows = p->rows;
  m.cols = p->cols;
  m.end = exactly(m.rows, sizeof(int64_t));
  m.column = exactly(m.rows * m.cols, sizeof(int64_t));
  m.w = exactly(m.rows * m.cols, sizeof(double));
  m.x = exactly(m.cols, sizeof(double));
  int64_t n = 0;
  for (int64_t i = 0; i < m.rows * m.cols; i++) {
    if (p->w[i] != 0) {
      m.column[n] = i % m.cols;
      m.w[n++] = (double)p->w[i];
    }
    m.end[i / m.cols] = n;
  }
  return m;
}

static void free_rows(const rows_of *m) {
  free(m->end);
  free(m->column);
  free(m->w);
  free(m->x);
}

/* y = W x + bias; bias may be null. */
static void times(const rows_of *m, const double *x, const float *bias, double *y) {
  for (int64_t c = 0; c < m->cols; c++) m->x[c] = seen(m->format, x[c]);
  int64_t k = 0;
  for (int64_t r = 0; r < m->rows; r++) {
    y[r] = bias ? (double)bias[r] : 0.0;
    for (; m->cols && k < m->end[r]; k++) y[r] += m->w[k] * m->x[m->column[k]];
  }
}

/* Sample `b` of a run; states and outputs are doubles in the layout of sc_io. */
static void reference_run(const layer_case *c, const sc_io *io, int64_t b, double *state[3], double *out[3]) {
  const sc_layer *l = &c->l;
  const int64_t rows = l->units * gate_count[l->cell], steps = io->lengths ? io->lengths[b] : io->steps;
  double *a = exactly(rows, sizeof(double)), *r = exactly(rows, sizeof(double));
  double *x = exactly(l->in, sizeof(double)), *h = exactly(l->units, sizeof(double));
  const rows_of ih = live_rows(c->ih, c->ih_format), hh = live_rows(c->hh, c->hh_format);
  const rows_of hr = live_rows(c->hr, c->hr_format);
  double *s[3];
  for (int k = 0; k < state_count[l->cell]; k++) s[k] = state[k] + b * wide_of(l, k);
  for (int64_t k = 0; k < steps; k++) {
    const int64_t t = l->reverse ? steps - 1 - k : k;
    for (int64_t i = 0; i < l->in; i++) x[i] = (double)io->x[(t * io->batch + b) * l->in + i];
    if (c->ih) times(&ih, x, l->bias_ih, a);
    if (c->hh) times(&hh, s[0], l->bias_hh, r);
    for (int64_t i = 0; i < rows; i++) {
      if (!c->ih) a[i] = x[i];
      if (!c->hh) r[i] = l->bias_hh ? (double)l->bias_hh[i] : 0.0;
      if (l->hh_diag) r[i] += s[0][i] * (double)l->hh_diag[i];
    }
    for (int64_t i = 0; i < l->units; i++) unit(l, i, a, r, s, h);
    if (c->hr)
      times(&hr, h, NULL, s[0]);
    else
      memcpy(s[0], h, (size_t)l->units * sizeof(double));
    for (int j = 0; j < state_count[l->cell]; j++)
      memcpy(out[j] + (t * io->batch + b) * wide_of(l, j), s[j], (size_t)wide_of(l, j) * sizeof(double));
  }
  free_rows(&ih);
  free_rows(&hh);
  free_rows(&hr);
  free(a);
  free(r);
  free(x);
  free(h);
}

#endif
