/* Damaged matrices under sanitizers: what sc_matrix_check lets pass must run inside its arrays, on every instruction
 * set.
 *
 *   sc_fuzz [rounds [seed]]
 *
 * Each round packs a random matrix, changes a few numbers in it, shortens arrays or states another shape, and
 * multiplies by it if it passes. Arrays are allocated to the exact size they claim, so the address sanitizer sees the
 * first byte that is read beside them.
 */
#include "packing.h"

static int accepted, ran;

static uint32_t below(uint32_t n) { return n ? random_bits() % n : 0; }

/* A number that is likely to be just wrong: near 0, near `limit`, or anything. */
static int64_t odd_number(int64_t limit) {
  switch (below(5)) {
    case 0:
      return (int64_t)below(3) - 1;
    case 1:
      return limit + (int64_t)below(5) - 2;
    case 2:
      return below(2) ? INT32_MAX - (int64_t)below(3) : INT32_MIN + (int64_t)below(3);
    case 3:
      return (int64_t)(int32_t)random_bits();
    default:
      return (int64_t)below((uint32_t)(limit > 0 && limit < 1 << 20 ? limit : 64) + 1);
  }
}

/* The arrays of a matrix: where they are, where their length is, and the size of an entry. */
typedef struct array_of {
  void **data;
  int64_t *n;
  size_t size;
} array_of;

static int arrays_of(packed *p, array_of list[12]) {
  sc_matrix *m = &p->m;
  const array_of all[] = {
      {(void **)(void *)&p->values, &m->n_values, sizeof(float)},
      {(void **)(void *)&p->ptr, &m->n_ptr, sizeof(int32_t)},
      {(void **)(void *)&p->index32, &m->n_index, sizeof(int32_t)},
      {(void **)(void *)&p->index16, &m->n_index, sizeof(uint16_t)},
      {(void **)(void *)&p->index8, &m->n_index, 1},
      {(void **)(void *)&p->base, &m->n_base, sizeof(uint16_t)},
      {(void **)(void *)&p->words, &m->n_words, sizeof(int16_t)},
      {(void **)(void *)&p->bytes, &m->n_bytes, 1},
      {(void **)(void *)&p->scale, &m->n_scale, sizeof(float)},
      {(void **)(void *)&p->correction, &m->n_correction, sizeof(int32_t)},
      {(void **)(void *)&p->order, &m->n_order, sizeof(int32_t)},
  };
  int found = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (*all[i].data && *all[i].n > 0) list[found++] = all[i];
  return found;
}

/* Another length, in memory of exactly that length; new entries are zero. */
static void resize(array_of a, int64_t n) {
  void *to = exactly(n, a.size);
  const int64_t keep = n < *a.n ? n : *a.n;
  if (keep > 0) memcpy(to, *a.data, (size_t)keep * a.size);
  free(*a.data);
  *a.data = to;
  *a.n = n;
}

static void set_entry(array_of a, int64_t at, int64_t to) {
  switch (a.size) {
    case 1: {
      const uint8_t v = (uint8_t)to;
      memcpy((uint8_t *)*a.data + at, &v, 1);
      break;
    }
    case 2: {
      const uint16_t v = (uint16_t)to;
      memcpy((uint16_t *)*a.data + at, &v, 2);
      break;
    }
    default: {
      const uint32_t v = (uint32_t)to;
      memcpy((uint32_t *)*a.data + at, &v, 4);
    }
  }
}

static void damage(packed *p) {
  sc_matrix *m = &p->m;
  array_of list[12];
  const int n = arrays_of(p, list);
  int64_t *const fields[] = {&m->rows, &m->cols, &m->tile_rows, &m->tile_cols, &m->tile_step, &m->tile_depth};
  const int64_t limits[] = {m->rows, m->cols, 16, 64, 16, 2};
  if (n && below(3)) {
    const array_of a = list[below((uint32_t)n)];
    if (below(3)) {
      const int64_t at = below(2) ? below((uint32_t)*a.n) : below(2) ? 0 : *a.n - 1;
      set_entry(a, at, odd_number(below(2) ? m->cols : *a.n));
    } else {
      resize(a, *a.n + (int64_t)below(5) - 2 > 0 ? *a.n + (int64_t)below(3) - 1 : 0);
    }
  } else if (below(8)) {
    const uint32_t k = below(6);
    *fields[k] = odd_number(limits[k]);
  } else {
    m->format = (int)below(SC_N_FORMATS + 1);
  }
}

/* Another format may read an array under another name: all of them are there, as long as they are. */
static void point_at_arrays(packed *p) {
  p->m.values = p->values;
  p->m.ptr = p->ptr;
  p->m.index32 = p->index32;
  p->m.index16 = p->index16;
  p->m.index8 = p->index8;
  p->m.base = p->base;
  p->m.words = p->words;
  p->m.bytes = p->bytes;
  p->m.scale = p->scale;
  p->m.correction = p->correction;
  p->m.order = p->order;
}

static void multiply(const sc_matrix *m) {
  static const char *isas[] = {
#define X(name) #name,
      SC_ISAS(X)
#undef X
  };
  if (sc_matrix_check(m)) return;
  accepted++;
  if (m->rows > 1 << 16 || m->cols > 1 << 16) return; /* nothing to read, and too much to write */
  for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
    const sc_ops *ops = sc_ops_for(isas[k]);
    if (!ops || sc_matrix_supported(ops, m)) continue;
    const int64_t n = 1 + (int64_t)below(3);
    float *x = floats(n * m->cols), *bias = floats(m->rows), *y = poisoned(n * m->rows);
    float *space = floats((int64_t)sc_product_workspace(m));
    const float size = is_integer(m->format) ? 1.0f : 1e30f;
    for (int64_t i = 0; i < n * m->cols; i++) x[i] = below(40) ? random_float() * size : below(2) ? INFINITY : NAN;
    sc_product(ops, m, x, m->cols, n, below(2) ? bias : NULL, y, m->rows, space);
    if (ops->mm_rows[m->format]) {
      float *wide = floats(m->cols * ops->vector), *to = floats(m->rows * ops->vector);
      sc_mm(ops, m, wide, bias, to, ops->vector);
      free(wide);
      free(to);
    }
    ran++;
    free(x);
    free(bias);
    free(y);
    free(space);
  }
}

static int round_of(const sc_ops *scalar) {
  static const int percents[] = {0, 3, 10, 40, 100};
  const char *isas[] = {"scalar", "neon", "avx2", "avx512"};
  const sc_ops *ops = sc_ops_for(isas[below(4)]);
  plain p = make_plain(below(70), below(140), percents[below(5)], 0);
  packed w;
  const int format = (int)below(SC_N_FORMATS), variant = (int)below(2);
  const sc_ops *packer = ops ? ops : scalar;
  const int moved = is_ordered(format) && !below(3);
  const int packs = moved ? pack_in_order(&w, &p, format, packer, variant) : pack(&w, &p, format, packer, variant);
  if (packs < 0) return 0;
  if (packs > 0) {
    for (uint32_t k = below(4); k > 0; k--) damage(&w);
    point_at_arrays(&w);
    multiply(&w.m);
  }
  free(p.w);
  free_packed(&w);
  return 1;
}

int main(int argc, char **argv) {
  const long rounds = argc > 1 ? atol(argv[1]) : 20000;
  random_state = argc > 2 ? (uint32_t)atol(argv[2]) : 1;
  if (!random_state) random_state = 1;
  for (long k = 0; k < rounds; k++)
    if (!round_of(sc_ops_for("scalar"))) {
      fprintf(stderr, "the tests cannot pack every format\n");
      return 1;
    }
  printf("%ld matrices, %d accepted, %d products\n", rounds, accepted, ran);
  return accepted > rounds / 10 && ran > 0 ? 0 : 1;
}
