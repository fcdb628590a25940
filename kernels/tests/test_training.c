/* The training kernels of every instruction set against dual numbers in double precision, meant to run under the
 * address and undefined-behaviour sanitizers: each array has exactly the size that the interface asks for.
 *
 * The gradients are checked along random directions: a wrong entry shows in their product with a direction.
 */
#include "dual.h"

#define FORWARD_TOLERANCE 2e-5
#define GRADIENT_TOLERANCE 1e-4 /* of the sum of the magnitudes that are added */

static int passed, failed;

static void report(int ok, const char *isa, const char *what, const char *detail) {
  if (ok) {
    passed++;
    return;
  }
  if (failed++ < 40) fprintf(stderr, "FAILED %s %s: %s\n", isa, what, detail);
}

static int differs(const float *y, const dual *want, int64_t n, double size) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)y[i] - want[i].v) <= FORWARD_TOLERANCE * (size + fabs(want[i].v)))) return 1;
  return 0;
}

static dual weighted(const dual *y, const float *g, int64_t n) {
  dual sum = number(0);
  for (int64_t i = 0; i < n; i++) sum = add(sum, mul(y[i], number((double)g[i])));
  return sum;
}

/* Whether the gradients, along the directions, give the derivative that the dual numbers found. */
static int gradients_agree(argument *const *all, int count, double derivative) {
  double sum = 0, size = 1e-6;
  for (int k = 0; k < count; k++)
    for (int64_t i = 0; i < all[k]->n; i++) {
      const double term = (double)all[k]->gradient[i] * all[k]->direction[i];
      sum += term;
      size += fabs(term);
    }
  return fabs(sum - derivative) <= GRADIENT_TOLERANCE * size;
}

/* A direction that moves argument `only`, or all of them where it is negative. */
static void choose_direction(argument *const *all, int count, int only) {
  for (int k = 0; k < count; k++)
    for (int64_t i = 0; i < all[k]->n; i++) all[k]->direction[i] = only < 0 || only == k ? (double)random_float() : 0.0;
}

/* ---- gated ------------------------------------------------------------------------------------------------------ */
typedef struct gated_case {
  int cell, reverse, packed, projected, full, percent;
  int64_t steps, batch, units, in;
} gated_case;

typedef struct gated {
  gated_case c;
  int64_t gates, width, rows; /* rows of x */
  int64_t *offsets;
  argument x, state[2], bias_ih, bias_hh;
  live ih, hh, hr;
} gated;

static gated make_gated(gated_case c) {
  gated g = {.c = c, .gates = c.cell == SC_CELL_gru ? 3 : c.cell == SC_CELL_lstm ? 4 : 1};
  g.width = c.projected ? (c.units + 1) / 2 : c.units;
  g.rows = c.steps * c.batch;
  if (c.packed) {
    g.offsets = exactly(c.steps + 1, sizeof(int64_t));
    int64_t count = c.batch;
    for (int64_t k = 0; k < c.steps; k++) {
      g.offsets[k + 1] = g.offsets[k] + count;
      count -= count > 0 ? random_bits() % 2 : 0;
    }
    g.rows = g.offsets[c.steps];
  }
  g.x = make_argument("x", g.rows * c.in, 1, 0);
  g.state[0] = make_argument("state 0", c.batch * g.width, 1, 0);
  g.state[1] = make_argument("state 1", c.cell == SC_CELL_lstm ? c.batch * c.units : 0, 1, 0);
  g.bias_ih = make_argument("bias ih", g.gates * c.units, 0.5f, 0);
  g.bias_hh = make_argument("bias hh", g.gates * c.units, 0.5f, 0);
  g.ih = make_live("ih", g.gates * c.units, c.in, c.full ? 100 : c.percent, 0);
  g.hh = make_live("hh", g.gates * c.units, g.width, c.percent, 0);
  if (c.projected) g.hr = make_live("hr", g.width, c.units, c.percent, 0);
  return g;
}

static void free_gated(gated *g) {
  argument *all[] = {&g->x, &g->state[0], &g->state[1], &g->bias_ih, &g->bias_hh};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) free_argument(all[k]);
  free_live(&g->ih);
  free_live(&g->hh);
  if (g->c.projected) free_live(&g->hr);
  free(g->offsets);
}

/* One unit: pre-activations a of the input and b of the recurrence; returns what it puts out, c is its cell state. */
static dual unit_step(int cell, int64_t n, int64_t u, const dual *a, const dual *b, dual h, dual *c) {
  const dual sum = add(a[u], b[u]);
  if (cell == SC_CELL_rnn_tanh) return dual_tanh(sum);
  if (cell == SC_CELL_rnn_relu) return sum.v > 0 ? sum : number(0);
  const dual second = dual_sigmoid(add(a[n + u], b[n + u]));
  if (cell == SC_CELL_gru) {
    const dual r = dual_sigmoid(sum), new = dual_tanh(add(a[2 * n + u], mul(r, b[2 * n + u])));
    return add(new, mul(second, sub(h, new)));
  }
  const dual in = dual_sigmoid(sum), cand = dual_tanh(add(a[2 * n + u], b[2 * n + u]));
  *c = add(mul(second, *c), mul(in, cand));
  return mul(dual_sigmoid(add(a[3 * n + u], b[3 * n + u])), dual_tanh(*c));
}

/* Outputs (rows, width) and last states of one sample after another. */
static void reference_gated(const gated *g, dual *out, dual *last[2]) {
  const gated_case *c = &g->c;
  const int64_t n = c->units, rows = g->gates * n;
  dual *a = exactly(rows, sizeof(dual)), *b = exactly(rows, sizeof(dual)), *x = exactly(c->in, sizeof(dual));
  dual *wide = exactly(n, sizeof(dual)), *h = exactly(n, sizeof(dual)), *cell = exactly(n, sizeof(dual));
  for (int64_t s = 0; s < c->batch; s++) {
    for (int64_t i = 0; i < g->width; i++) h[i] = of(&g->state[0], s * g->width + i);
    for (int64_t i = 0; i < n; i++) cell[i] = g->state[1].n ? of(&g->state[1], s * n + i) : number(0);
    for (int64_t k = 0; k < c->steps; k++) {
      const int64_t t = c->reverse ? c->steps - 1 - k : k;
      const int64_t from = g->offsets ? g->offsets[t] : t * c->batch,
                    to = g->offsets ? g->offsets[t + 1] : from + c->batch;
      if (s >= to - from) continue;
      for (int64_t i = 0; i < c->in; i++) x[i] = of(&g->x, (from + s) * c->in + i);
      product(&g->ih, x, a);
      product(&g->hh, h, b);
      for (int64_t i = 0; i < rows; i++) {
        a[i] = add(a[i], of(&g->bias_ih, i));
        b[i] = add(b[i], of(&g->bias_hh, i));
      }
      for (int64_t u = 0; u < n; u++) wide[u] = unit_step(c->cell, n, u, a, b, h[u], &cell[u]);
      if (c->projected)
        product(&g->hr, wide, h);
      else
        memcpy(h, wide, (size_t)n * sizeof *h);
      memcpy(out + (from + s) * g->width, h, (size_t)g->width * sizeof *h);
    }
    memcpy(last[0] + s * g->width, h, (size_t)g->width * sizeof *h);
    memcpy(last[1] + s * n, cell, (size_t)n * sizeof *cell);
  }
  free(a);
  free(b);
  free(x);
  free(wide);
  free(h);
  free(cell);
}

static void test_gated_case(const sc_ops *ops, gated_case c) {
  gated g = make_gated(c);
  char detail[160];
  snprintf(detail, sizeof detail,
           "cell %d, T %d, B %d, U %d, I %d, reverse %d, packed %d, projected %d, full %d, %d %%", c.cell, (int)c.steps,
           (int)c.batch, (int)c.units, (int)c.in, c.reverse, c.packed, c.projected, c.full, c.percent);
  const int64_t wide = (c.batch + ops->vector - 1) / ops->vector * ops->vector, n = c.units,
                kept = sc_train_gates(c.cell);
  const int64_t singles[2] = {c.batch * g.width, c.batch * n}, lstm = c.cell == SC_CELL_lstm;
  float *out = poisoned(g.rows * g.width), *last[2] = {poisoned(singles[0]), poisoned(singles[1])};
  float *gates = poisoned(c.steps * kept * n * wide),
        *states[2] = {poisoned((c.steps + 1) * g.width * wide), poisoned((c.steps + 1) * n * wide)};
  sc_train t = {.cell = c.cell,
                .units = n,
                .width = g.width,
                .in = c.in,
                .steps = c.steps,
                .batch = c.batch,
                .reverse = c.reverse,
                .offsets = g.offsets,
                .ih = &g.ih.m,
                .hh = &g.hh.m,
                .hr = c.projected ? &g.hr.m : NULL,
                .bias_ih = g.bias_ih.value,
                .bias_hh = g.bias_hh.value,
                .x = g.x.value,
                .state = {g.state[0].value, g.state[1].value},
                .out = out,
                .last = {last[0], last[1]}};
  space s = make_space(sc_train_forward_space(ops, &t)); /* nothing kept */
  sc_train_forward(ops, &t, s.floats, s.ints);
  free_space(&s);
  float *alone = floats(g.rows * g.width);
  memcpy(alone, out, (size_t)(g.rows * g.width) * sizeof *out);
  t.gates = kept ? gates : NULL;
  t.states[0] = states[0];
  t.states[1] = lstm ? states[1] : NULL;
  s = make_space(sc_train_forward_space(ops, &t));
  sc_train_forward(ops, &t, s.floats, s.ints);
  free_space(&s);
  report(!memcmp(alone, out, (size_t)(g.rows * g.width) * sizeof *out), ops->isa, "kept or not", detail);
  argument g_out = make_argument("", g.rows * g.width, 1, 0),
           g_last[2] = {make_argument("", singles[0], 1, 0), make_argument("", singles[1], 1, 0)};
  t.g_out = g_out.value;
  t.g_last[0] = g_last[0].value;
  t.g_last[1] = lstm ? g_last[1].value : NULL;
  t.dx = g.x.gradient;
  t.d_state[0] = g.state[0].gradient;
  t.d_state[1] = lstm ? g.state[1].gradient : NULL;
  t.d_ih = g.ih.values.gradient;
  t.d_hh = g.hh.values.gradient;
  t.d_hr = c.projected ? g.hr.values.gradient : NULL;
  t.d_bias_ih = g.bias_ih.gradient;
  t.d_bias_hh = g.bias_hh.gradient;
  s = make_space(sc_train_backward_space(ops, &t));
  sc_train_backward(ops, &t, s.floats, s.ints);
  free_space(&s);
  argument *all[] = {&g.x, &g.state[0], &g.ih.values, &g.hh.values, &g.bias_ih, &g.bias_hh, &g.state[1], &g.hr.values};
  const int count = c.projected ? 8 : 7;
  dual *want = exactly(g.rows * g.width, sizeof(dual)),
       *want_last[2] = {exactly(singles[0], sizeof(dual)), exactly(singles[1], sizeof(dual))};
  for (int only = n > 100 ? count : 0; only <= count; only++) { /* the large ones take time */
    choose_direction(all, count, only == count ? -1 : only);
    reference_gated(&g, want, want_last);
    dual loss = add(weighted(want, g_out.value, g.rows * g.width), weighted(want_last[0], g_last[0].value, singles[0]));
    if (lstm) loss = add(loss, weighted(want_last[1], g_last[1].value, singles[1]));
    report(gradients_agree(all, count, loss.d), ops->isa, only == count ? "all gradients" : all[only]->name, detail);
  }
  report(!differs(out, want, g.rows * g.width, 1) && !differs(last[0], want_last[0], singles[0], 1) &&
             (!lstm || !differs(last[1], want_last[1], singles[1], 1)),
         ops->isa, "forward", detail);
  void *used[] = {out, last[0], last[1], gates, states[0], states[1], alone, want, want_last[0], want_last[1]};
  for (size_t k = 0; k < sizeof used / sizeof *used; k++) free(used[k]);
  free_argument(&g_out);
  free_argument(&g_last[0]);
  free_argument(&g_last[1]);
  free_gated(&g);
}

static void test_gated(const sc_ops *ops) {
  static const int cells[] = {SC_CELL_rnn_tanh, SC_CELL_rnn_relu, SC_CELL_gru, SC_CELL_lstm};
  static const int64_t sizes[][4] = {{0, 3, 5, 4}, {2, 0, 5, 4},    {1, 1, 1, 1},
                                     {5, 3, 7, 6}, {4, 17, 19, 16}, {3, 64, 5, 21}};
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
      for (int flags = 0; flags < 16; flags++) {
        const int projected = flags >> 2 & 1;
        if (projected && cells[i] != SC_CELL_lstm) continue;
        static const int percents[] = {35, 0, 100};
        const gated_case c = {
            cells[i],    flags & 1,   flags >> 1 & 1, projected,  flags >> 3, percents[(k + (size_t)flags) % 3],
            sizes[k][0], sizes[k][1], sizes[k][2],    sizes[k][3]};
        test_gated_case(ops, c);
      }
  test_gated_case(ops, (gated_case){SC_CELL_gru, 0, 0, 0, 0, 30, 8, 40, 260, 260}); /* tiles of columns */
}

/* ---- spiking ---------------------------------------------------------------------------------------------------- */
typedef struct spiking_case {
  int reset, delay, surrogate, synaptic, feedback;
  float drive;
  int64_t steps, batch, units;
  int integrates; /* never fires */
} spiking_case;

typedef struct neurons {
  spiking_case c;
  argument x, spk, syn, mem, bias, alpha, beta, theta;
  live hh;
} neurons;

/* Decays and weights are dyadic: membranes are exact in single precision, so that spikes agree to the last. */
static neurons make_neurons(spiking_case c) {
  const int64_t n = c.batch * c.units;
  neurons p = {.c = c,
               .x = make_argument("x", n * c.steps, c.drive, 1),
               .spk = make_argument("spk", n, 1, 1),
               .syn = make_argument("syn", c.synaptic ? n : 0, 1, 1),
               .mem = make_argument("mem", n, 1, 1),
               .bias = make_argument("bias", c.units, 0.25f, 1),
               .alpha = make_argument("alpha", c.synaptic ? c.units : 0, 0, 0),
               .beta = make_argument("beta", c.units, 0, 0),
               .theta = make_argument("theta", c.units, 0, 0)};
  for (int64_t u = 0; u < c.units; u++) {
    if (c.synaptic) p.alpha.value[u] = 0.5f;
    p.beta.value[u] = u % 3 ? 0.5f : 0.25f;
    p.theta.value[u] = 0.625f + 0.25f * (float)(u % 2);
  }
  p.hh = make_live("hh", c.units, c.units, c.feedback ? 30 : 0, 1);
  return p;
}

static void free_neurons(neurons *p) {
  argument *all[] = {&p->x, &p->spk, &p->syn, &p->mem, &p->bias, &p->alpha, &p->beta, &p->theta};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) free_argument(all[k]);
  free_live(&p->hh);
}

/* One neuron: `in` enters its membrane; returns the spike. */
static dual neuron_step(const spiking_case *c, dual in, dual beta, dual theta, double scale, dual *mem) {
  if (c->integrates) {
    *mem = add(mul(beta, *mem), in);
    return number(0);
  }
  const double due = mem->v > theta.v ? 1 : 0; /* the reset signal is detached */
  dual m = *mem;
  if (c->reset == SC_RESET_zero) m = mul(number(1 - due), m);
  m = add(mul(beta, m), in);
  if (c->reset == SC_RESET_subtract) m = sub(m, mul(number(due), theta));
  if (c->reset == SC_RESET_zero_update) m = sub(m, mul(number(due), m));
  const dual over = sub(m, theta);
  const dual spk = {over.v > 0 ? 1 : 0, surrogate_slope(c->surrogate, over.v, scale) * over.d};
  if (!c->delay) {
    const dual now = sub(spk, number(due));
    if (c->reset == SC_RESET_subtract) m = sub(m, mul(now, theta));
    if (c->reset == SC_RESET_zero || c->reset == SC_RESET_zero_update) m = sub(m, mul(now, m));
  }
  *mem = m;
  return spk;
}

static void reference_spiking(const neurons *p, double scale, dual *out[3]) {
  const spiking_case *c = &p->c;
  const int64_t n = c->units;
  dual *rec = exactly(n, sizeof(dual)), *spk = exactly(n, sizeof(dual)), *syn = exactly(n, sizeof(dual));
  dual *mem = exactly(n, sizeof(dual));
  for (int64_t b = 0; b < c->batch; b++) {
    for (int64_t u = 0; u < n; u++) {
      spk[u] = of(&p->spk, b * n + u);
      if (c->synaptic) syn[u] = of(&p->syn, b * n + u);
      mem[u] = of(&p->mem, b * n + u);
    }
    for (int64_t k = 0; k < c->steps; k++) {
      if (c->feedback) product(&p->hh, spk, rec);
      for (int64_t u = 0; u < n; u++) {
        const int64_t at = (k * c->batch + b) * n + u;
        dual in = of(&p->x, at);
        if (!c->integrates) in = add(in, of(&p->bias, u));
        if (c->feedback) in = add(in, rec[u]);
        if (c->synaptic) in = syn[u] = add(mul(of(&p->alpha, u), syn[u]), in);
        spk[u] = neuron_step(c, in, of(&p->beta, u), of(&p->theta, u), scale, &mem[u]);
        out[0][at] = spk[u];
        out[1][at] = syn[u];
        out[2][at] = mem[u];
      }
    }
  }
  free(rec);
  free(spk);
  free(syn);
  free(mem);
}

static void test_spiking_case(const sc_ops *ops, spiking_case c) {
  neurons p = make_neurons(c);
  char detail[128];
  snprintf(detail, sizeof detail,
           "T %d, B %d, U %d, reset %d, delay %d, surrogate %d, synaptic %d, feedback %d, drive %g", (int)c.steps,
           (int)c.batch, (int)c.units, c.reset, c.delay, c.surrogate, c.synaptic, c.feedback, (double)c.drive);
  const int64_t n = c.steps * c.batch * c.units;
  float *out[3] = {poisoned(n), c.synaptic ? poisoned(n) : NULL, poisoned(n)}, *fired = c.delay ? NULL : poisoned(n);
  sc_spiking t = {.units = c.units,
                  .steps = c.steps,
                  .batch = c.batch,
                  .reset = c.reset,
                  .delay = c.delay,
                  .surrogate = c.surrogate,
                  .scale = 2,
                  .hh = c.feedback ? &p.hh.m : NULL,
                  .bias = p.bias.value,
                  .alpha = c.synaptic ? p.alpha.value : NULL,
                  .beta = p.beta.value,
                  .theta = p.theta.value,
                  .x = p.x.value,
                  .spk0 = p.spk.value,
                  .syn0 = p.syn.value,
                  .mem0 = p.mem.value,
                  .spk = out[0],
                  .syn = out[1],
                  .mem = out[2],
                  .fired = fired};
  if (c.integrates) {
    t.bias = t.theta = t.spk0 = NULL;
    t.spk = NULL;
  }
  space s = make_space(sc_spiking_forward_space(ops, &t));
  sc_spiking_forward(ops, &t, s.floats, s.ints);
  free_space(&s);
  argument g[3] = {make_argument("", n, 1, 0), make_argument("", n, 1, 0), make_argument("", n, 1, 0)};
  t.g_spk = g[0].value;
  t.g_syn = c.synaptic ? g[1].value : NULL;
  t.g_mem = g[2].value;
  t.dx = p.x.gradient;
  t.d_spk0 = p.spk.gradient;
  t.d_syn0 = c.synaptic ? p.syn.gradient : NULL;
  t.d_mem0 = p.mem.gradient;
  t.d_hh = c.feedback ? p.hh.values.gradient : NULL;
  t.d_bias = p.bias.gradient;
  t.d_alpha = c.synaptic ? p.alpha.gradient : NULL;
  t.d_beta = p.beta.gradient;
  t.d_theta = p.theta.gradient;
  if (c.integrates) {
    t.d_bias = t.d_theta = t.d_spk0 = NULL;
    for (int64_t i = 0; i < p.spk.n; i++) p.spk.gradient[i] = 0;
    for (int64_t u = 0; u < c.units; u++) p.bias.gradient[u] = p.theta.gradient[u] = 0;
  }
  s = make_space(sc_spiking_backward_space(ops, &t));
  sc_spiking_backward(ops, &t, s.floats, s.ints);
  free_space(&s);
  argument *all[] = {&p.x, &p.spk, &p.mem, &p.bias, &p.beta, &p.theta, &p.syn, &p.alpha, &p.hh.values};
  const int count = c.feedback ? 9 : 8;
  dual *want[3] = {exactly(n, sizeof(dual)), exactly(n, sizeof(dual)), exactly(n, sizeof(dual))};
  for (int only = c.units > 100 ? count : 0; only <= count; only++) {
    choose_direction(all, count, only == count ? -1 : only);
    reference_spiking(&p, 2, want);
    dual loss = add(weighted(want[0], g[0].value, n), weighted(want[2], g[2].value, n));
    if (c.synaptic) loss = add(loss, weighted(want[1], g[1].value, n));
    report(gradients_agree(all, count, loss.d), ops->isa, only == count ? "all gradients" : all[only]->name, detail);
  }
  int wrong = differs(out[2], want[2], n, 1) || (c.synaptic && differs(out[1], want[1], n, 1));
  for (int64_t i = 0; i < n && !c.integrates; i++) wrong += (double)out[0][i] != want[0][i].v;
  report(!wrong, ops->isa, "spikes and membranes", detail);
  for (int k = 0; k < 3; k++) {
    free(out[k]);
    free(want[k]);
    free_argument(&g[k]);
  }
  free(fired);
  free_neurons(&p);
}

static void test_spiking(const sc_ops *ops) {
  static const int64_t sizes[][3] = {{0, 3, 5}, {2, 0, 5}, {1, 1, 1}, {7, 3, 9}, {6, 17, 19}, {6, 64, 33}, {3, 2, 70}};
  static const float drives[] = {0.0f, 0.25f, 1.0f, 4.0f};
  int k = 0;
  for (int reset = SC_RESET_none; reset <= SC_RESET_zero_update; reset++)
    for (int flags = 0; flags < 8; flags++)
      for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++, k++) {
        const spiking_case c = {reset,
                                flags & 1,
                                k % SC_N_SURROGATES,
                                flags >> 1 & 1,
                                flags >> 2,
                                drives[k / 3 % 4],
                                sizes[i][0],
                                sizes[i][1],
                                sizes[i][2],
                                0};
        test_spiking_case(ops, c);
      }
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    test_spiking_case(
        ops,
        (spiking_case){
            .delay = 1, .drive = 1, .steps = sizes[i][0], .batch = sizes[i][1], .units = sizes[i][2], .integrates = 1});
  test_spiking_case(ops,
                    (spiking_case){SC_RESET_subtract, 1, SC_SURROGATE_atan, 1, 1, 1.0f, 9, 40, 260, 0}); /* tiles */
}

/* ---- linear ----------------------------------------------------------------------------------------------------- */
static void test_linear(const sc_ops *ops) {
  static const int64_t counts[] = {0, 1, 63, 64, 130};
  for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
    const int64_t n = counts[k], rows = 19, cols = 13;
    live w = make_live("weight", rows, cols, k == 1 ? 0 : 30, 0);
    argument x = make_argument("x", n * cols, 1, 0), bias = make_argument("bias", rows, 1, 0);
    argument g = make_argument("", n * rows, 1, 0);
    float *y = poisoned(n * rows);
    space s = make_space(sc_train_linear_space(ops, &w.m, n));
    sc_train_linear(ops, &w.m, x.value, n, bias.value, y, s.floats, s.ints);
    free_space(&s);
    s = make_space(sc_train_linear_space(ops, &w.m, n));
    sc_train_linear_backward(ops, &w.m, x.value, n, g.value, x.gradient, w.values.gradient, bias.gradient, s.floats,
                             s.ints);
    free_space(&s);
    argument *all[] = {&x, &bias, &w.values};
    choose_direction(all, 3, -1);
    dual *want = exactly(n * rows, sizeof(dual)), *in = exactly(cols, sizeof(dual));
    for (int64_t i = 0; i < n; i++) {
      for (int64_t c = 0; c < cols; c++) in[c] = of(&x, i * cols + c);
      product(&w, in, want + i * rows);
      for (int64_t r = 0; r < rows; r++) want[i * rows + r] = add(want[i * rows + r], of(&bias, r));
    }
    report(!differs(y, want, n * rows, 1), ops->isa, "linear", "forward");
    report(gradients_agree(all, 3, weighted(want, g.value, n * rows).d), ops->isa, "linear", "gradients");
    free(want);
    free(in);
    free(y);
    free_argument(&g);
    free_argument(&x);
    free_argument(&bias);
    free_live(&w);
  }
}

/* A gradient that is wrong in one entry must be seen. */
static void test_wrong_gradient_is_seen(void) {
  argument a = make_argument("a", 50, 1, 0), *all[] = {&a};
  choose_direction(all, 1, -1);
  double derivative = 0;
  for (int64_t i = 0; i < a.n; i++) {
    a.gradient[i] = random_float();
    derivative += (double)a.gradient[i] * a.direction[i];
  }
  const int right = gradients_agree(all, 1, derivative);
  a.gradient[7] += 0.1f;
  report(right && !gradients_agree(all, 1, derivative), "any", "the check itself", "a wrong gradient passes");
  a.gradient[7] = NAN;
  report(!gradients_agree(all, 1, derivative), "any", "the check itself", "NaN passes");
  free_argument(&a);
}

int main(void) {
  static const char *isa_names[] = {
#define X(name) #name,
      SC_ISAS(X)
#undef X
  };
  test_wrong_gradient_is_seen();
  for (size_t k = 0; k < sizeof isa_names / sizeof *isa_names; k++) {
    const sc_ops *ops = sc_ops_for(isa_names[k]);
    if (!ops) {
      printf("skipped %s: this build or processor lacks it\n", isa_names[k]);
      continue;
    }
    test_gated(ops);
    test_spiking(ops);
    test_linear(ops);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
