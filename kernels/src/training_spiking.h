/* Spiking neurons in training, one sample's row of units at a time; included by training.h.
 *
 * Rows are read and written where torch has them, [batch][units], so that nothing is transposed but what a product
 * over the batch needs. A row of spikes is also a list of its active units: at the rates of spiking networks, products
 * with spikes cost what the list is long.
 */
#ifndef SC_TRAINING_SPIKING_H
#define SC_TRAINING_SPIKING_H

#ifndef SC_STREAM_ROW
#define SC_STREAM_ROW(to, from, n) memcpy((to), (from), (size_t)(n) * sizeof(float))
#endif

#ifndef SC_ABOVE
/* Bit i: whether element i of a vector is above its limit. */
static inline uint32_t sc_above(const float *p, const float *limit) {
  uint32_t bits = 0;
  for (int i = 0; i < SC_VL; i++) bits |= (uint32_t)(p[i] > limit[i]) << i;
  return bits;
}
#define SC_ABOVE(p, limit) sc_above((p), (limit))
#endif

/* The neurons whose membrane is above the threshold. */
static int64_t SC_NAME(list_fired)(const float *mem, const float *theta, int64_t n, int32_t *list) {
  int64_t count = 0, i = 0;
  for (; i + SC_VL <= n; i += SC_VL)
    for (uint32_t bits = SC_ABOVE(mem + i, theta + i); bits; bits &= bits - 1)
      list[count++] = (int32_t)i + (int32_t)__builtin_ctz(bits);
  for (; i < n; i++)
    if (mem[i] > theta[i]) list[count++] = (int32_t)i;
  return count;
}

/* `past`: past the caches, for what is not read soon; both places on whole lines. */
static void SC_NAME(put_row)(float *to, const float *from, int64_t n, int past) {
  if (past)
    SC_STREAM_ROW(to, from, n);
  else
    memcpy(to, from, (size_t)n * sizeof *to);
}

static void SC_NAME(put_done)(void) { SC_STREAM_END(); }

/* The order of the sums is that of point_lif and point_synaptic, so that a membrane is the same float in training and
 * at run time.
 */
SC_INLINE void SC_NAME(spike_step)(const sc_spike_row *p, const int synaptic, const int reset, const int delay) {
  const float *restrict a = p->x, *restrict b = p->rec, *restrict alpha = p->alpha, *restrict beta = p->beta;
  const float *restrict theta = p->theta;
  float *restrict spk = p->spk, *restrict syn = p->syn, *restrict mem = p->mem, *restrict fired = p->fired;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    float m = mem[i], due = m > theta[i] ? 1.0f : 0.0f;
    if (reset == SC_RESET_zero) m = (1.0f - due) * m;
    if (synaptic) {
      float current = alpha[i] * syn[i] + a[i] + b[i];
      syn[i] = current;
      m = beta[i] * m + current;
    } else {
      m = beta[i] * m + a[i] + b[i];
    }
    if (reset == SC_RESET_subtract) m = m - due * theta[i];
    if (reset == SC_RESET_zero_update) m = m - due * m;
    float s = m > theta[i] ? 1.0f : 0.0f;
    spk[i] = s;
    if (!delay) {
      float now = s - due;
      fired[i] = m;
      if (reset == SC_RESET_subtract) m = m - now * theta[i];
      if (reset == SC_RESET_zero || reset == SC_RESET_zero_update) m = m - now * m;
    }
    mem[i] = m;
  }
}

/* Derivatives that stand in for the one of the step function, as snntorch.surrogate has them. */
SC_INLINE float sc_surrogate_slope(const int kind, float v, float k) {
  const float half_pi = 1.57079633f;
  float q = 1.0f;
  if (kind == SC_SURROGATE_fast_sigmoid) {
    q = k * __builtin_fabsf(v) + 1.0f;
    return 1.0f / (q * q);
  }
  if (kind == SC_SURROGATE_atan) {
    q = half_pi * k * v;
    return 0.5f * k / (1.0f + q * q);
  }
  if (kind == SC_SURROGATE_sigmoid) {
    float e = sc_exp(-k * __builtin_fabsf(v)); /* even in v: no overflow */
    return k * e / ((e + 1.0f) * (e + 1.0f));
  }
  if (kind == SC_SURROGATE_triangular) return v >= 0.0f ? -k : k;
  return 1.0f;
}

#define SC_SLOPES(kind)                                                                                 \
  case kind:                                                                                            \
    SC_NO_OVERLAP                                                                                       \
    for (int64_t i = 0; i < n; i++) slope[i] = sc_surrogate_slope(kind, fired[i] - theta[i], p->scale); \
    break;

static void SC_NAME(slopes)(const sc_spike_row *p) {
  const int64_t n = p->n;
  const float *restrict fired = p->compared, *restrict theta = p->theta;
  float *restrict slope = p->slope;
  switch (p->surrogate) {
    SC_SLOPES(SC_SURROGATE_fast_sigmoid)
    SC_SLOPES(SC_SURROGATE_atan)
    SC_SLOPES(SC_SURROGATE_sigmoid)
    SC_SLOPES(SC_SURROGATE_triangular)
    default:
      SC_SLOPES(SC_SURROGATE_straight_through)
  }
}
#undef SC_SLOPES

/* The reset signal of the previous spike is detached; the one of the step's own spike (no delay) is not: snntorch. */
SC_INLINE void SC_NAME(spike_back)(const sc_spike_row *p, const int synaptic, const int reset, const int delay) {
  const float *restrict mem = p->mem_before, *restrict fired = p->compared, *restrict slope = p->slope;
  const float *restrict alpha = p->alpha, *restrict beta = p->beta, *restrict theta = p->theta;
  const float *restrict g_spk = p->g_spk, *restrict g_syn = p->g_syn, *restrict g_mem = p->g_mem;
  const float *restrict rec = p->rec, *restrict syn = p->syn_before;
  float *restrict c_syn = p->carry_syn, *restrict c_mem = p->carry_mem, *restrict da = p->da;
  float *restrict d_bias = p->d_bias, *restrict d_alpha = p->d_alpha, *restrict d_beta = p->d_beta;
  float *restrict d_theta = p->d_theta;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    float before = mem[i], limit = theta[i], due = before > limit ? 1.0f : 0.0f, m = fired[i];
    float gs = g_spk[i] + rec[i], gm = g_mem[i] + c_mem[i], gt = 0.0f;
    if (!delay) {
      float now = (m > limit ? 1.0f : 0.0f) - due;
      if (reset == SC_RESET_subtract) {
        gs -= limit * gm;
        gt -= now * gm;
      }
      if (reset == SC_RESET_zero || reset == SC_RESET_zero_update) {
        gs -= m * gm;
        gm = gm * (1.0f - now);
      }
    }
    float fire = gs * slope[i];
    gm += fire;
    gt -= fire;
    if (reset == SC_RESET_subtract) gt -= due * gm;
    if (reset == SC_RESET_zero_update) gm = (1.0f - due) * gm;
    float kept = reset == SC_RESET_zero ? (1.0f - due) * gm : gm, g = gm;
    if (synaptic) {
      g += g_syn[i] + c_syn[i];
      c_syn[i] = alpha[i] * g;
      d_alpha[i] += syn[i] * g;
    }
    da[i] = g;
    c_mem[i] = beta[i] * kept;
    d_bias[i] += g;
    d_beta[i] += before * kept;
    d_theta[i] += gt;
  }
}

/* Integrators that never fire: cell li. */
static void SC_NAME(integrate)(const sc_spike_row *p) {
  const float *restrict a = p->x, *restrict beta = p->beta;
  float *restrict mem = p->mem;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) mem[i] = beta[i] * mem[i] + a[i];
}

static void SC_NAME(integrate_back)(const sc_spike_row *p) {
  const float *restrict mem = p->mem_before, *restrict beta = p->beta, *restrict g_mem = p->g_mem;
  float *restrict c_mem = p->carry_mem, *restrict da = p->da, *restrict d_beta = p->d_beta;
  SC_NO_OVERLAP
  for (int64_t i = 0; i < p->n; i++) {
    float g = g_mem[i] + c_mem[i];
    da[i] = g;
    c_mem[i] = beta[i] * g;
    d_beta[i] += mem[i] * g;
  }
}

#define SC_RESET_CASE(body, synaptic, reset) \
  case 2 * (reset):                          \
    body(p, synaptic, reset, 0);             \
    break;                                   \
  case 2 * (reset) + 1:                      \
    body(p, synaptic, reset, 1);             \
    break;
#define SC_EACH_RESET(body, synaptic)                   \
  switch (2 * p->reset + (p->delay != 0)) {             \
    SC_RESET_CASE(body, synaptic, SC_RESET_subtract)    \
    SC_RESET_CASE(body, synaptic, SC_RESET_zero)        \
    SC_RESET_CASE(body, synaptic, SC_RESET_zero_update) \
    SC_RESET_CASE(body, synaptic, SC_RESET_none)        \
  }
static void SC_NAME(spike_forward)(const sc_spike_row *p) {
  if (!p->theta) {
    SC_NAME(integrate)(p);
  } else if (p->alpha) {
    SC_EACH_RESET(SC_NAME(spike_step), 1)
  } else {
    SC_EACH_RESET(SC_NAME(spike_step), 0)
  }
}

static void SC_NAME(spike_backward)(const sc_spike_row *p) {
  if (!p->theta) {
    SC_NAME(integrate_back)(p);
    return;
  }
  SC_NAME(slopes)(p);
  if (p->alpha) {
    SC_EACH_RESET(SC_NAME(spike_back), 1)
  } else {
    SC_EACH_RESET(SC_NAME(spike_back), 0)
  }
}
#undef SC_EACH_RESET
#undef SC_RESET_CASE

#endif
