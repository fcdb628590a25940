/* Training kernels: whole sequences forward, and backward through time, with gradients on live connections only.
 *
 * Gated layers are (units, wide) inside: one row per unit, `wide` samples side by side, the batch rounded up to a
 * multiple of the vector length and filled with zeros. Spiking layers are (batch, units), as their data come; only
 * products over a whole batch turn them. As in sparsecirc.h nothing allocates or keeps globals; matrices are CSR and
 * checked by the caller. One thread, sums in a fixed order: the same input gives the same bits.
 */
#ifndef SPARSECIRC_TRAINING_H
#define SPARSECIRC_TRAINING_H

#include "sparsecirc.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sc_surrogate {
  SC_SURROGATE_fast_sigmoid,
  SC_SURROGATE_atan,
  SC_SURROGATE_sigmoid,
  SC_SURROGATE_triangular,
  SC_SURROGATE_straight_through,
  SC_N_SURROGATES
};

/* One step of a gated cell over n = units * wide elements; blocks of a gate are n apart. */
typedef struct sc_train_point {
  int64_t n;
  float *gates;     /* forward: input product in, activations out; backward: activations */
  const float *rec; /* forward: recurrent product with its bias */
  const float *before[2];
  float *after[2];    /* states h, c before and after the step */
  const float *g_out; /* backward: gradient of the step's output */
  const float *g_rec; /* backward: gradient of the fed-back state through the recurrent product of the next step */
  float *g_carry[2];  /* backward: gradients of the states, from the next step in, for the previous step out */
  float *da;          /* backward: gradients of the pre-activations; gru: r, z, n of the recurrence, n of the input */
} sc_train_point;

/* One step of n spiking neurons of one sample; every array is [n]. */
typedef struct sc_spike_row {
  int64_t n;
  int reset, delay;
  const float *alpha, *beta, *theta; /* alpha null: no synaptic current; theta null: no spikes */
  const float *x, *rec;              /* forward: drive and recurrent product; backward, rec: gradient of the spikes */
  float *spk, *syn, *mem;            /* forward: states in and out */
  float *fired;                      /* forward without delay: the membrane that was compared with the threshold */
  int surrogate;
  float scale;
  const float *syn_before, *mem_before, *compared; /* backward: states before the step, and as `fired` */
  const float *g_spk, *g_syn, *g_mem;
  float *carry_syn,
      *carry_mem; /* backward: gradients of the states, from the next step in, for the previous step out */
  float *slope;   /* backward: room */
  float *da;      /* backward: gradient of x */
  float *d_bias, *d_alpha, *d_beta, *d_theta; /* backward: added to */
} sc_spike_row;

/* Floats and int32 of workspace that a call needs. */
typedef struct sc_space {
  size_t floats, ints;
} sc_space;

/* y (rows, cols) = a (rows, inner) x (inner, cols), plus what y holds or a bias per row (null is zero); cols is a
 * multiple of the vector length.
 */
typedef struct sc_dense {
  int64_t rows, inner, cols;
  const float *a, *x, *bias;
  float *y;
  int64_t lda, ldx, ldy;
  int add;
} sc_dense;

/* What differs between instruction sets. */
typedef struct sc_train_ops {
  int64_t vector;
  /* (batch, n) -> (n, wide) with zeros after the batch, and back; `past`: past the caches, for what is not read soon.
   */
  void (*to_columns)(const float *x, int64_t batch, int64_t n, float *y, int64_t wide);
  void (*to_rows)(const float *y, int64_t wide, int64_t batch, int64_t n, float *x, int past);
  /* y (n, ldy) = the transpose of the m x n corner of x (m, ldx) */
  void (*turn)(const float *x, int64_t m, int64_t n, int64_t ldx, float *y, int64_t ldy);
  void (*dense_mm)(const sc_dense *p);
  /* dv[k] += sum over samples of a[row of k] * h[column of k]; rows of `a` from `split` on lie `skip` lower. */
  void (*sampled)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h, int64_t wide,
                  float *dv);
  /* sum[r] += sum of row r */
  void (*row_sums)(const float *a, int64_t rows, int64_t wide, float *sum);
  void (*forward[SC_N_CELLS])(const sc_train_point *p);
  void (*backward[SC_N_CELLS])(const sc_train_point *p);
  /* h = o * tanh(cell) */
  void (*lstm_out)(const float *o, const float *cell, int64_t n, float *h);
  void (*spike_forward)(const sc_spike_row *p);
  void (*spike_backward)(const sc_spike_row *p);
  /* The neurons whose membrane is above the threshold; returns how many. */
  int64_t (*list_fired)(const float *mem, const float *theta, int64_t n, int32_t *list);
  /* Copies a row; `past` as above, where both are on whole lines; put_done before anybody else reads it. */
  void (*put_row)(float *to, const float *from, int64_t n, int past);
  void (*put_done)(void);
} sc_train_ops;

/* The training kernels that go with `ops`. */
const sc_train_ops *sc_train_ops_for(const sc_ops *ops);

/* Gate blocks kept per step; 0 where nothing is kept. */
int64_t sc_train_gates(int cell);

/* One gated layer over one batch of sequences. Saved arrays run in the order of processing, beginning with the initial
 * states. Packed sequences: `offsets` says in which row of x each time step begins, and steps have ever fewer samples;
 * a sample keeps its state where it has no step. Else null, and time step k begins in row k * batch.
 */
typedef struct sc_train {
  int cell;
  int64_t units, width, in, steps, batch; /* width: of the fed-back state, units without a projection */
  int reverse;
  const int64_t *offsets;         /* [steps + 1] */
  const sc_matrix *ih, *hh, *hr;  /* hr: null without a projection */
  const float *bias_ih, *bias_hh; /* null where absent */
  const float *x;                 /* [rows][in] */
  const float *state[2];          /* [batch][width], [batch][units] */
  float *out;                     /* forward: [rows][width] */
  float *last[2];                 /* forward: as state */
  float *gates, *states[2];       /* forward out, backward in; [steps][gates][units][wide], [steps + 1][..][wide];
                                   * all null where no gradient is wanted */
  const float *g_out, *g_last[2]; /* backward: null is zero */
  float *dx, *d_state[2], *d_ih, *d_hh, *d_hr, *d_bias_ih, *d_bias_hh; /* backward: null where not wanted */
} sc_train;

sc_space sc_train_forward_space(const sc_ops *ops, const sc_train *t);
sc_space sc_train_backward_space(const sc_ops *ops, const sc_train *t);
void sc_train_forward(const sc_ops *ops, const sc_train *t, float *floats, int32_t *ints);
void sc_train_backward(const sc_ops *ops, const sc_train *t, float *floats, int32_t *ints);

/* One layer of spiking neurons: lif, or synaptic where it has alpha; without theta, integrators (li) that neither fire
 * nor have feedback. Null where a part is absent. Backward reads the outputs of forward: syn, mem, and `fired` where
 * resets act at once.
 */
typedef struct sc_spiking {
  int64_t units, steps, batch;
  int reset, delay, surrogate;
  float scale;
  const sc_matrix *hh;
  const float *bias, *alpha, *beta, *theta; /* [units] */
  const float *x;                           /* [steps][batch][units] */
  const float *spk0, *syn0, *mem0;          /* [batch][units] */
  float *spk, *syn, *mem, *fired;           /* [steps][batch][units] */
  const float *g_spk, *g_syn, *g_mem;
  float *dx, *d_spk0, *d_syn0, *d_mem0, *d_hh, *d_bias, *d_alpha, *d_beta, *d_theta; /* backward: null: not wanted */
} sc_spiking;

sc_space sc_spiking_forward_space(const sc_ops *ops, const sc_spiking *t);
sc_space sc_spiking_backward_space(const sc_ops *ops, const sc_spiking *t);
void sc_spiking_forward(const sc_ops *ops, const sc_spiking *t, float *floats, int32_t *ints);
void sc_spiking_backward(const sc_ops *ops, const sc_spiking *t, float *floats, int32_t *ints);

/* y = bias + W x for n vectors, and its gradients (null where not wanted; d_w and d_bias are overwritten). */
sc_space sc_train_linear_space(const sc_ops *ops, const sc_matrix *w, int64_t n);
void sc_train_linear(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *bias, float *y,
                     float *floats, int32_t *ints);
void sc_train_linear_backward(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *g,
                              float *dx, float *d_w, float *d_bias, float *floats, int32_t *ints);

#ifdef __cplusplus
}
#endif
#endif
