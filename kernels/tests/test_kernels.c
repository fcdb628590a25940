/* Every kernel of every instruction set against double precision, meant to run under the address and
 * undefined-behaviour sanitizers: each array has exactly the size that the interface asks for, and workspace starts as
 * NaN.
 */
#include "reference.h"

static int passed, failed;

static void report(int ok, const char *isa, const char *what, const char *name, const char *detail) {
  if (ok) {
    passed++;
    return;
  }
  if (failed++ < 40) fprintf(stderr, "FAILED %s %s %s: %s\n", isa, what, name, detail);
}

static const char *format_names[] = {
#define X(name, has_mm) #name,
    SC_FORMATS(X)
#undef X
};
static const int format_has_mm[] = {
#define X(name, has_mm) has_mm,
    SC_FORMATS(X)
#undef X
};
static const char *cell_names[] = {
#define X(name, gates, states, spiking) #name,
    SC_CELLS(X)
#undef X
};
static const char *isa_names[] = {
#define X(name) #name,
    SC_ISAS(X)
#undef X
};

/* Products */

#define PRODUCT_TOLERANCE 2e-6 /* of the sum of the magnitudes that are added */

static int64_t wrong_entries(const plain *p, int format, const float *x, int64_t step_x, int64_t next_x, int64_t n,
                             const float *bias, const float *y, int64_t step_y, int64_t next_y) {
  int64_t wrong = 0;
  double *v = exactly(p->cols, sizeof(double));
  for (int64_t k = 0; k < n; k++) {
    for (int64_t c = 0; c < p->cols; c++) v[c] = (double)x[k * next_x + c * step_x];
    for (int64_t r = 0; r < p->rows; r++) {
      double size;
      const double want = entry(p, format, r, v, bias, &size);
      wrong += !(fabs((double)y[k * next_y + r * step_y] - want) <= PRODUCT_TOLERANCE * size + 1e-30);
    }
  }
  free(v);
  return wrong;
}

static float *random_floats(int64_t n) {
  float *p = floats(n);
  for (int64_t i = 0; i < n; i++) p[i] = random_bits() % 4 ? random_float() : 0.0f;
  return p;
}

/* Entries of y that parts of the matrix, each multiplied for itself, give in other bits. */
static int64_t parts_differ(const sc_ops *ops, const sc_matrix *w, const float *x, const float *bias, const float *y,
                            float *space) {
  int64_t wrong = 0;
  for (int64_t members = 1; sc_can_part(w) && members <= 5; members++) {
    float *parts = poisoned(w->rows);
    for (int64_t k = 0; k < members; k++) {
      sc_matrix part;
      const int64_t first = sc_part(w, k, members, &part);
      sc_product_step(ops, &part, x, bias ? bias + first : NULL, w->order ? parts : parts + first, space);
    }
    for (int64_t r = 0; r < w->rows; r++) wrong += memcmp(y + r, parts + r, sizeof(float)) != 0;
    free(parts);
  }
  return wrong;
}

/* Wrong entries of n products one by one, in parts, or of one batched product. */
static int64_t check_product(const sc_ops *ops, const packed *w, const plain *p, int64_t n, int with_bias,
                             int batched) {
  float *x = random_floats(n * p->cols), *y = poisoned(n * p->rows);
  float *bias = with_bias ? random_floats(p->rows) : NULL;
  float *arranged = bias ? floats(p->rows) : NULL; /* as the rows of the matrix */
  for (int64_t r = 0; arranged && r < p->rows; r++) arranged[r] = bias[w->order ? w->order[r] : r];
  int64_t wrong;
  if (batched) {
    sc_mm(ops, &w->m, x, bias, y, n);
    wrong = wrong_entries(p, w->m.format, x, n, 1, n, bias, y, n, 1);
  } else {
    float *space = poisoned((int64_t)sc_product_workspace(&w->m));
    sc_product(ops, &w->m, x, p->cols, n, arranged, y, p->rows, space);
    wrong = wrong_entries(p, w->m.format, x, 1, p->cols, n, bias, y, 1, p->rows);
    for (int64_t k = 0; k < n; k++) sc_product_step(ops, &w->m, x + k * p->cols, arranged, y + k * p->rows, space);
    wrong += wrong_entries(p, w->m.format, x, 1, p->cols, n, bias, y, 1, p->rows);
    if (n) wrong += parts_differ(ops, &w->m, x, arranged, y, space);
    free(space);
  }
  free(x);
  free(y);
  free(bias);
  free(arranged);
  return wrong;
}

static void test_products(const sc_ops *ops, int format) {
  static const int64_t shapes[][2] = {{1, 1},   {1, 70},   {17, 5},   {16, 64}, {33, 65}, {50, 128},
                                      {65, 36}, {129, 12}, {100, 44}, {0, 4},   {4, 0},   {0, 0}};
  static const int percents[] = {0, 15, 60, 100};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int k = 0; k < (is_ordered(format) ? 16 : 8); k++) {
      plain p = make_plain(shapes[s][0], shapes[s][1], percents[k % 4], 0);
      packed w;
      const int variant = k / 4 % 2;
      const int status = k < 8 ? pack(&w, &p, format, ops, variant) : pack_in_order(&w, &p, format, ops, variant);
      char detail[64];
      snprintf(detail, sizeof detail, "%d x %d, %d %%", (int)p.rows, (int)p.cols, percents[k % 4]);
      if (status < 0) report(0, ops->isa, "product", format_names[format], "the tests cannot pack this format");
      if (status > 0) {
        report(!sc_matrix_check(&w.m), ops->isa, "check", format_names[format], detail);
        report(!sc_matrix_supported(ops, &w.m), ops->isa, "supported", format_names[format], detail);
        for (int64_t n = 0; n < 150; n = n < 6 ? n + 3 : 3 * n + 1)
          for (int bias = 0; bias < 2; bias++)
            report(!check_product(ops, &w, &p, n, bias, 0), ops->isa, "product", format_names[format], detail);
        for (int64_t n = 0; ops->mm_rows[format] && !w.order && n <= 5; n++)
          report(!check_product(ops, &w, &p, n * ops->vector, n % 2, 1), ops->isa, "batched", format_names[format],
                 detail);
      }
      free(p.w);
      free_packed(&w);
    }
  report((ops->mm_rows[format] != NULL) == format_has_mm[format], ops->isa, "table", format_names[format], "has_mm");
}

/* Rows that read a NaN, or all of them in integer formats, become NaN. */
static void test_nan(const sc_ops *ops, int format) {
  plain p = make_plain(33, 68, 30, 0);
  packed w;
  if (pack(&w, &p, format, ops, 0) > 0) {
    float *x = random_floats(68), *y = floats(33), *space = poisoned((int64_t)sc_product_workspace(&w.m));
    x[67] = NAN;
    sc_product(ops, &w.m, x, 68, 1, NULL, y, 33, space);
    int lost = 0;
    for (int64_t r = 0; r < 33; r++) lost += !isnan(y[r]) && (is_integer(format) || at(&p, r, 67) != 0);
    report(!lost, ops->isa, "NaN", format_names[format], "became a number");
    free(x);
    free(y);
    free(space);
  }
  free(p.w);
  free_packed(&w);
}

/* A kernel that forgets the last block of every strip. */
static void forgetful_mv(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch) {
  (void)scratch;
  for (int64_t r = 0; r < w->rows; r++) {
    y[r] = bias ? bias[r] : 0.0f;
    for (int32_t k = w->ptr[r / 16]; k + 1 < w->ptr[r / 16 + 1]; k++)
      y[r] += w->values[16 * k + r % 16] * x[w->index32[k]];
  }
}

static void test_wrong_kernel_is_seen(const sc_ops *ops) {
  sc_ops wrong = *ops;
  wrong.mv[SC_FMT_block16x1] = forgetful_mv;
  plain p = make_plain(33, 65, 50, 0);
  packed w;
  pack(&w, &p, SC_FMT_block16x1, ops, 0);
  report(check_product(ops, &w, &p, 3, 1, 0) == 0, ops->isa, "wrong kernel", "block16x1", "the right one fails");
  report(check_product(&wrong, &w, &p, 3, 1, 0) > 10, ops->isa, "wrong kernel", "block16x1", "it passes");
  free(p.w);
  free_packed(&w);
}

/* Sequences */

typedef struct shape {
  int64_t units, in, batch, steps, width; /* width: of a projection, 0 without */
  int ih, hh, bias, reverse, lengths;     /* hh: 1 a matrix, 2 one weight per unit */
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 0, 1, 1, 1, 0, 0},     {17, 5, 3, 12, 0, 1, 1, 1, 0, 0},  {20, 8, 9, 40, 0, 1, 1, 1, 1, 0},
    {33, 70, 2, 40, 0, 1, 1, 0, 0, 1},  {20, 12, 9, 40, 0, 1, 1, 1, 1, 1}, {17, 0, 3, 12, 0, 0, 1, 1, 0, 0},
    {17, 5, 3, 12, 0, 1, 0, 1, 0, 1},   {17, 5, 3, 0, 0, 1, 1, 1, 0, 1},   {17, 5, 0, 12, 0, 1, 1, 1, 0, 0},
    {64, 64, 17, 33, 0, 1, 1, 1, 0, 0}, {20, 8, 9, 12, 12, 1, 1, 1, 1, 1}, {17, 5, 3, 40, 0, 1, 2, 1, 0, 0},
    {18, 70, 70, 5, 0, 1, 1, 1, 0, 0},  {20, 8, 35, 12, 0, 1, 1, 1, 1, 0}, {17, 5, 33, 6, 0, 1, 2, 1, 0, 0},
    {17, 0, 40, 6, 0, 0, 1, 1, 0, 0},   {64, 9, 18, 9, 0, 1, 0, 0, 0, 0},
};

/* What a layer of the tests owns. */
typedef struct owned {
  plain plains[3];
  packed packs[5]; /* of ih, hh, hr; and the columns of ih and hh */
  float *vectors[7];
} owned;

static float *vector(owned *o, int k, int64_t n, int spiking, const float *choice, int choices) {
  o->vectors[k] = floats(n);
  for (int64_t i = 0; i < n; i++)
    o->vectors[k][i] = choices   ? choice[random_bits() % (uint32_t)choices]
                       : spiking ? random_dyadic(0.25f)
                                 : random_float() * 0.3f;
  return o->vectors[k];
}

/* Packs matrix k in `format`, or as compressed rows where that does not fit; returns the format. */
static int matrix(owned *o, int k, const sc_ops *ops, int format, int64_t rows, int64_t cols, int spiking, float gain) {
  o->plains[k] = make_plain(rows, cols, 30, spiking);
  for (int64_t i = 0; i < rows * cols; i++) o->plains[k].w[i] *= gain;
  if (format == SC_FMT_mantissa && spiking) format = SC_FMT_csr; /* its weights are no longer dyadic */
  if (pack(&o->packs[k], &o->plains[k], format, ops, 0) > 0) return format;
  pack(&o->packs[k], &o->plains[k], SC_FMT_csr, ops, 0);
  return SC_FMT_csr;
}

static layer_case make_layer(owned *o, const sc_ops *ops, const shape *s, int cell, int format, int option) {
  /* Few steps: factors of a half keep every sum exact. Many: factors of 0 and 1 do. */
  static const float halves[] = {0.5f, 1.0f}, bits[] = {0.0f, 1.0f}, thetas[] = {0.75f, 1.0f, 2.0f};
  static const float strengths[] = {0.0f, 0.25f, 0.5f};
  const float *decay = s->steps > 12 ? bits : halves;
  const int spiking = is_spiking[cell];
  const int64_t rows = s->units * gate_count[cell];
  layer_case c = {.l = {.cell = cell,
                        .units = s->units,
                        .width = s->width ? s->width : s->units,
                        .in = s->ih ? s->in : rows,
                        .reset = option / 2 % 4,
                        .delay = option % 2,
                        .adapted = option / 8,
                        .reverse = s->reverse}};
  memset(o, 0, sizeof *o);
  if (s->ih) {
    c.ih_format = matrix(o, 0, ops, is_integer(format) ? SC_FMT_csr : format, rows, s->in, spiking, 1.0f);
    c.ih = &o->plains[0];
    c.l.ih = &o->packs[0].m;
  }
  if (s->hh == 1) {
    c.hh_format = matrix(o, 1, ops, format, rows, c.l.width, spiking, cell == SC_CELL_li ? 0.1f : 1.0f);
    c.hh = &o->plains[1];
    c.l.hh = &o->packs[1].m;
  }
  if (s->width) {
    c.hr_format = matrix(o, 2, ops, format, s->width, s->units, spiking, 1.0f);
    c.hr = &o->plains[2];
    c.l.hr = &o->packs[2].m;
  }
  if (s->bias && s->ih) c.l.bias_ih = vector(o, 0, rows, spiking, NULL, 0);
  if (s->bias && s->hh) c.l.bias_hh = vector(o, 1, rows, spiking, NULL, 0);
  if (s->hh == 2) c.l.hh_diag = vector(o, 2, rows, spiking, NULL, 0);
  if (spiking) {
    c.l.alpha = vector(o, 3, s->units, 1, decay, 2);
    c.l.beta = vector(o, 4, s->units, 1, decay, 2);
    c.l.theta = vector(o, 5, s->units, 1, thetas, 3);
    c.l.strength = vector(o, 6, s->units, 1, strengths, 3);
  }
  if (cell == SC_CELL_li) c.l.beta = vector(o, 4, s->units, 0, halves, 1);
  return c;
}

/* The same weights as columns, beside compressed rows. */
static void add_events(owned *o, layer_case *c, const sc_ops *ops) {
  if (c->l.ih && c->ih_format == SC_FMT_csr && pack(&o->packs[3], &o->plains[0], SC_FMT_columns, ops, 1) > 0)
    c->l.ih_events = &o->packs[3].m;
  if (c->l.hh && pack(&o->packs[4], &o->plains[1], SC_FMT_columns, ops, 0) > 0) c->l.hh_events = &o->packs[4].m;
  if (c->l.ih_events && !c->l.ih_events->ptr) c->l.ih_events = NULL;
  if (c->l.hh_events && !c->l.hh_events->ptr) c->l.hh_events = NULL;
}

/* What the inputs of a run are. */
enum inputs { NUMBERS, SPIKES, FEW_SPIKES };

static float input_of(int spiking, enum inputs inputs) {
  if (!spiking) return random_float();
  return inputs == NUMBERS ? random_dyadic(0.5f) : (float)(random_bits() % (inputs == SPIKES ? 2 : 20) == 0);
}

/* Wrong numbers of one run: outputs (those that are wanted) and final states. */
static int64_t check_run(const sc_ops *ops, const layer_case *c, const shape *s, int batched, double tolerance,
                         enum inputs inputs) {
  const int states = state_count[c->l.cell], spiking = is_spiking[c->l.cell];
  sc_io io = {.steps = s->steps, .batch = s->batch, .stride = s->batch};
  float *x = floats(s->steps * s->batch * c->l.in);
  for (int64_t i = 0; i < s->steps * s->batch * c->l.in; i++) x[i] = input_of(spiking, inputs);
  int64_t *lengths = exactly(s->batch, sizeof(int64_t)), wrong = 0;
  for (int64_t b = 0; b < s->batch; b++) lengths[b] = b == 0 ? s->steps : b == 1 ? 0 : random_bits() % (s->steps + 1);
  io.x = x;
  io.lengths = s->lengths ? lengths : NULL;
  double *state[3] = {0}, *out[3] = {0};
  for (int k = 0; k < states; k++) {
    const int64_t n = s->batch * wide_of(&c->l, k);
    io.state[k] = floats(n);
    state[k] = exactly(n, sizeof(double));
    for (int64_t i = 0; i < n; i++) {
      io.state[k][i] = spiking ? (k ? random_dyadic(0.25f) : input_of(1, inputs ? inputs : SPIKES)) : random_float();
      state[k][i] = (double)io.state[k][i];
    }
    out[k] = exactly(s->steps * n, sizeof(double));
    if (k == states - 1 || random_bits() % 2) io.out[k] = poisoned(s->steps * n);
  }
  float *space = poisoned((int64_t)sc_workspace(ops, &c->l, &io, batched));
  sc_run(ops, &c->l, &io, batched, space);
  for (int64_t b = 0; b < s->batch; b++) reference_run(c, &io, b, state, out);
  for (int k = 0; k < states; k++) {
    const int64_t n = s->batch * wide_of(&c->l, k);
    for (int64_t i = 0; io.out[k] && i < s->steps * n; i++)
      wrong += !(fabs((double)io.out[k][i] - out[k][i]) <= tolerance * fmax(1.0, fabs(out[k][i])));
    for (int64_t i = 0; i < n; i++)
      wrong += !(fabs((double)io.state[k][i] - state[k][i]) <= tolerance * fmax(1.0, fabs(state[k][i])));
    free(io.state[k]);
    free(io.out[k]);
    free(state[k]);
    free(out[k]);
  }
  free(space);
  free(x);
  free(lengths);
  return wrong;
}

/* Batches of several groups are for the kernels of spikes, which know one format. */
static int applies(const shape *s, int cell, int format) {
  if (s->batch > 17 && format != SC_FMT_csr) return 0;
  if (s->width && cell != SC_CELL_lstm) return 0;
  if (s->hh == 2 && !is_spiking[cell] && cell != SC_CELL_li) return 0;
  /* Quantised states lie in [-1, 1]. */
  return !is_integer(format) || (!is_spiking[cell] && cell != SC_CELL_rnn_relu && cell != SC_CELL_li && !s->width);
}

static void test_sequences(const sc_ops *ops, int cell, int format) {
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
    if (!applies(&shapes[k], cell, format)) continue;
    const int options = cell == SC_CELL_alif ? 12 : is_spiking[cell] ? 8 : 1; /* of 12, the last 4 with `adapted` */
    for (int option = 0; option < options; option++) {
      owned o;
      layer_case c = make_layer(&o, ops, &shapes[k], cell, format, option);
      /* A rounded state differs from the reference's by one unit here and there. */
      const double tolerance = is_spiking[cell] ? 0.0 : is_byte(format) ? 3e-2 : is_integer(c.hh_format) ? 3e-3 : 1e-5;
      char detail[96];
      snprintf(detail, sizeof detail, "%s, shape %d, option %d", format_names[format], (int)k, option);
      report(!check_run(ops, &c, &shapes[k], 0, tolerance, NUMBERS), ops->isa, "sequence", cell_names[cell], detail);
      int mm = !is_spiking[cell] && cell != SC_CELL_li;
      for (int m = 0; m < 3; m++) mm = mm && (!o.plains[m].w || ops->mm_rows[o.packs[m].m.format]);
      if (mm)
        report(!check_run(ops, &c, &shapes[k], 1, tolerance, NUMBERS), ops->isa, "batched", cell_names[cell], detail);
      if (is_spiking[cell] && ops->spikes && format == SC_FMT_csr) {
        if (option % 3) add_events(&o, &c, ops);
        for (int inputs = NUMBERS; inputs <= FEW_SPIKES; inputs++)
          report(!check_run(ops, &c, &shapes[k], 1, tolerance, (enum inputs)inputs), ops->isa, "spikes",
                 cell_names[cell], detail);
      }
      for (int m = 0; m < 3; m++) free(o.plains[m].w);
      for (int m = 0; m < 5; m++) free_packed(&o.packs[m]);
      for (int m = 0; m < 7; m++) free(o.vectors[m]);
    }
  }
}

/* Checks of matrices */

static void refused(const sc_matrix *m, const char *name, const char *damage) {
  report(sc_matrix_check(m) != NULL, "any", "damaged matrix", name, damage);
}

#define DAMAGED(condition, change) \
  if (condition) {                 \
    sc_matrix m = w.m;             \
    change;                        \
    refused(&m, name, #change);    \
  }
#define SPOILED(array, type, index, to)             \
  if (w.array) {                                    \
    const type was = w.array[index];                \
    w.array[index] = (type)(to);                    \
    refused(&w.m, name, #array " " #index " " #to); \
    w.array[index] = was;                           \
  }

static void test_matrix_checks(int format, int variant) {
  plain p = make_plain(32, 64, format == SC_FMT_lookup16 ? 100 : 30, 0);
  packed w;
  const char *name = format_names[format];
  if (pack(&w, &p, format, sc_ops_for("scalar"), variant) <= 0) abort();
  report(!sc_matrix_check(&w.m), "any", "sound matrix", name, "is refused");
  const int tiles = w.m.tile_rows != 0 && format != SC_FMT_tiled_csr;
  const int last_index = format == SC_FMT_columns16 ? 2 : 64;
  DAMAGED(1, m.rows = -1)
  DAMAGED(1, m.cols = INT32_MAX)
  DAMAGED(1, m.format = SC_N_FORMATS)
  DAMAGED(1, m.format = -1)
  DAMAGED(w.values, m.n_values--)
  DAMAGED(w.values, m.n_values++)
  DAMAGED(w.ptr, m.n_ptr--)
  DAMAGED(w.index32, m.n_index--)
  DAMAGED(w.index16, m.n_index--)
  DAMAGED(w.index8, m.n_index--)
  DAMAGED(w.base, m.n_base--)
  DAMAGED(tiles, m.tile_rows = 0)
  DAMAGED(tiles, m.tile_rows = 17)
  DAMAGED(tiles, m.tile_cols = 3)
  DAMAGED(tiles, m.tile_cols = 2 * SC_PAD8)
  DAMAGED(tiles, m.tile_step = 0)
  DAMAGED(tiles, m.tile_step = 2 * SC_PAD8)
  DAMAGED(tiles, m.tile_depth = 0)
  DAMAGED(tiles, m.tile_depth = SC_FLUSH + 1)
  DAMAGED(tiles, m.tile_depth++)
  DAMAGED(w.words, m.n_words--)
  DAMAGED(w.bytes, m.n_bytes--)
  DAMAGED(w.scale, m.n_scale--)
  DAMAGED(w.correction, m.n_correction--)
  DAMAGED(format == SC_FMT_block4x4 || format == SC_FMT_block8x4, m.cols = 62)
  DAMAGED(w.values, m.values = NULL)
  DAMAGED(w.ptr, m.ptr = NULL)
  DAMAGED(w.index32, m.index32 = NULL)
  DAMAGED(w.index8, m.index8 = NULL)
  DAMAGED(w.base, m.base = NULL)
  DAMAGED(w.words, m.words = NULL)
  DAMAGED(w.bytes, m.bytes = NULL)
  DAMAGED(w.scale, m.scale = NULL)
  DAMAGED(w.correction, m.correction = NULL)
  DAMAGED(format == SC_FMT_columns16, m.rows = 31)
  DAMAGED(w.index16, m.index16 = NULL)
  int32_t order[32] = {0};
  DAMAGED(!is_ordered(format), (m.order = order, m.n_order = 32))
  w.m.order = order; /* which row comes twice is for the caller to see */
  w.m.n_order = 32;
  report((sc_matrix_check(&w.m) == NULL) == is_ordered(format), "any", "ordered matrix", name, "is refused");
  DAMAGED(1, m.n_order--)
  DAMAGED(1, m.order = NULL)
  order[31] = 32;
  refused(&w.m, name, "an order beyond the last row");
  order[31] = -1;
  refused(&w.m, name, "an order before the first row");
  w.m.order = NULL;
  w.m.n_order = 0;
  SPOILED(ptr, int32_t, 0, 1)
  SPOILED(ptr, int32_t, 1, -1)
  SPOILED(ptr, int32_t, 1, INT32_MAX)
  SPOILED(ptr, int32_t, w.m.n_ptr - 1, 0)
  SPOILED(index32, int32_t, 0, -1)
  SPOILED(index32, int32_t, w.m.n_index - 1, last_index)
  SPOILED(index16, uint16_t, 0, 64)
  SPOILED(index16, uint16_t, w.m.n_index - 1, 65535)
  SPOILED(index8, uint8_t, 0, w.m.tile_cols)
  SPOILED(base, uint16_t, 0, UINT16_MAX)
  SPOILED(base, uint16_t, w.m.n_base - 1, w.m.tile_step ? SC_PAD8 / w.m.tile_step : 33)
  if (format == SC_FMT_block4x4 || format == SC_FMT_block8x4) SPOILED(index32, int32_t, 0, 61)
  SPOILED(correction, int32_t, 3, INT32_MIN)
  SPOILED(correction, int32_t, 31, w.correction[31] + 1)
  if (w.bytes) {
    w.correction[0] += 128 * (INT8_MIN - w.bytes[0]);
    w.bytes[0] = INT8_MIN;
    refused(&w.m, name, "a byte of -128");
  }
  if (w.words && !w.base) { /* so few words meet in one sum of a window that they cannot overflow it */
    for (int64_t i = 0; i < w.m.n_words; i++) w.words[i] = INT16_MIN;
    refused(&w.m, name, "sums that overflow");
  }
  free(p.w);
  free_packed(&w);
}

static void test_tiles_of_others(const sc_ops *ops) {
  static const int formats[] = {SC_FMT_lookup, SC_FMT_mantissa, SC_FMT_lookup_bf16, SC_FMT_lookup16, SC_FMT_lookup8};
  for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
    const int format = formats[k];
    plain p = make_plain(16, 16, 50, 0);
    packed w;
    pack(&w, &p, format, sc_ops_for("scalar"), 1);
    report((sc_matrix_supported(ops, &w.m) == NULL) == !ops->tile[format].rows, ops->isa, "tiles", format_names[format],
           "of another shape");
    free(p.w);
    free_packed(&w);
  }
}

/* Functions */

static void test_function(const sc_ops *ops, const char *name, void (*run)(int64_t, const float *, float *),
                          double (*exact)(double), double from, double to, double bound) {
  enum { N = 100003 };
  float *x = floats(N), *y = poisoned(N);
  double worst = 0;
  for (int64_t i = 0; i < N; i++) x[i] = (float)(from + (to - from) * (double)i / (N - 1));
  run(N, x, y);
  for (int64_t i = 0; i < N; i++) {
    const double want = exact((double)x[i]);
    const float size = fabsf((float)want);
    worst = fmax(worst, fabs((double)y[i] - want) / (double)(nextafterf(size, INFINITY) - size));
  }
  char detail[48];
  snprintf(detail, sizeof detail, "%.2f ulp, allowed %.1f", worst, bound);
  report(worst <= bound, ops->isa, "function", name, detail);
  free(x);
  free(y);
}

/* Whether a format was asked for: by name, or as those whose number leaves `k` on division by `n`, written k/n. */
static int wanted(int argc, char **argv, int format) {
  for (int i = 1; i < argc; i++) {
    int k, n;
    if (!strcmp(argv[i], format_names[format])) return 1;
    if (sscanf(argv[i], "%d/%d", &k, &n) == 2 && n > 0 && format % n == k) return 1;
  }
  return argc < 2;
}

static void test_isa(const sc_ops *ops, int argc, char **argv) {
  for (int format = 0; format < SC_N_FORMATS; format++) {
    if (!wanted(argc, argv, format)) continue;
    random_state = (uint32_t)format + 1; /* a format alone fails as it does among the others */
    test_products(ops, format);
    test_nan(ops, format);
    for (int cell = 0; cell < SC_N_CELLS; cell++) test_sequences(ops, cell, format);
  }
  test_wrong_kernel_is_seen(ops);
  test_tiles_of_others(ops);
  test_function(ops, "exp", ops->exp_n, exp, -87, 88, 1.2);
  test_function(ops, "tanh", ops->tanh_n, tanh, -9.5, 9.5, 1.5);
  test_function(ops, "sigmoid", ops->sigmoid_n, logistic, -80, 30, 2.5);
}

/* Exchanges */

/* A walk through random patterns, beside the same exchange of flags in a whole matrix. */
static void test_exchange(int64_t rows, int64_t cols, uint32_t percent) {
  const int64_t all = rows * cols;
  uint8_t *alive = exactly(all, 1), *leaves = exactly(all, 1);
  int32_t *ptr = exactly(rows + 1, sizeof(int32_t)), *index = exactly(all, sizeof(int32_t));
  int64_t *grow = exactly(all, sizeof(int64_t)), n = 0, nnz = 0, gone = 0, wrong = 0;
  ptr[0] = 0;
  for (int64_t k = 0; k < all; k++) {
    alive[k] = random_bits() % 100 < percent;
    if (alive[k]) index[nnz++] = (int32_t)(k % cols);
    if (k % cols == cols - 1) ptr[k / cols + 1] = (int32_t)nnz;
  }
  for (int64_t k = 0; k < all; k++)
    if (!alive[k] && n < nnz && random_bits() % 4 == 0) grow[n++] = k;
  for (int64_t k = 0; k < nnz; k++) {
    leaves[k] = gone < n && (nnz - k <= n - gone || random_bits() % 3 == 0);
    gone += leaves[k];
  }
  int32_t *new_ptr = exactly(rows + 1, sizeof(int32_t)), *new_index = exactly(nnz, sizeof(int32_t));
  int32_t *source = exactly(nnz, sizeof(int32_t));
  wrong += sc_exchange(rows, cols, ptr, index, leaves, grow, n, new_ptr, new_index, source) != -1;
  for (int64_t k = 0, at = 0, old = 0, g = 0; k < all; k++) {
    int32_t from = alive[k] ? leaves[old] ? -2 : (int32_t)old : -2;
    old += alive[k];
    if (g < n && grow[g] == k) {
      from = -1;
      g++;
    }
    if (from == -2) continue;
    wrong += new_index[at] != (int32_t)(k % cols) || source[at] != from || at < new_ptr[k / cols];
    at++;
    wrong += at > new_ptr[k / cols + 1];
  }
  report(!wrong, "any", "exchange", "pattern", percent > 40 ? "many" : "few");
  if (n) {
    const int64_t last = n - 1;
    grow[last] = all;
    report(sc_exchange(rows, cols, ptr, index, leaves, grow, n, new_ptr, new_index, source) == last, "any", "exchange",
           "pattern", "beyond the matrix");
  }
  free(alive), free(leaves), free(ptr), free(index), free(grow), free(new_ptr), free(new_index), free(source);
}

int main(int argc, char **argv) {
  int formats = 0;
  for (int format = 0; format < SC_N_FORMATS; format++) formats += wanted(argc, argv, format);
  if (!formats) {
    fprintf(stderr, "usage: sc_test [FORMAT ...] [k/n ...]: no format is called that\n");
    return 2;
  }
  for (size_t k = 0; k < sizeof isa_names / sizeof *isa_names; k++) {
    const sc_ops *ops = sc_ops_for(isa_names[k]);
    if (ops)
      test_isa(ops, argc, argv);
    else
      printf("skipped %s: this build or processor lacks it\n", isa_names[k]);
  }
  for (int format = 0; format < SC_N_FORMATS; format++)
    for (int variant = 0; variant < 2; variant++)
      if (wanted(argc, argv, format)) test_matrix_checks(format, variant);
  for (uint32_t percent = 0; percent <= 90; percent += 15)
    for (int64_t rows = 0; rows < 20; rows++) test_exchange(rows, rows % 3 * 7 + 1, percent);
  report(!sc_ops_for("sse9"), "any", "isa", "sse9", "is known");
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
