/* Training kernels: whole sequences forward, and backward through time, with gradients on live connections only.
 *
 * Inside, everything is (units, wide): one row per unit, `wide` samples side by side, the batch rounded up to a
 * multiple of the vector length and filled with zeros. As in sparsecirc.h nothing allocates or keeps globals; matrices
 * are CSR and checked by the caller. One thread, sums in a fixed order: the same input gives the same bits.
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

/* One step of one cell over n = units * wide elements; blocks of a gate are n apart. */
typedef struct sc_train_point {
  int64_t n, units, wide;
  float *gates;     /* forward: input product in, activations out; backward: activations */
  const float *rec; /* forward: recurrent product with its bias */
  const float *before[2];
  float *after[2];           /* states before and after the step; gated: h, c; lif: spk, mem */
  float *fired;              /* lif without delay: the membrane that was compared with the threshold */
  const float *beta, *theta; /* [units] */
  int reset, delay, surrogate;
  float scale;
  const float *g_out[2]; /* backward: gradients of the step's outputs; null is zero */
  const float *g_rec;    /* backward: gradient of the fed-back state through the recurrent product of the next step */
  float *g_carry[2];     /* backward: gradients of the states, from the next step in, for the previous step out */
  float *da;    /* backward: gradients of the pre-activations; gru: r, z, n of the recurrence, n of the input */
  float *slope; /* backward, lif: room for wide floats */
  float *d_beta, *d_theta; /* backward, lif: [n], added to */
} sc_train_point;

/* What differs between instruction sets. */
typedef struct sc_train_ops {
  int64_t vector;
  /* (batch, n) -> (n, wide) with zeros after the batch, and back; `past`: past the caches, for what is not read soon.
   */
  void (*to_columns)(const float *x, int64_t batch, int64_t n, float *y, int64_t wide);
  void (*to_rows)(const float *y, int64_t wide, int64_t batch, int64_t n, float *x, int past);
  /* dv[k] += sum over samples of a[row of k] * h[column of k]; rows of `a` from `split` on lie `skip` lower. */
  void (*sampled)(const sc_matrix *w, const float *a, int64_t split, int64_t skip, const float *h, int64_t wide,
                  float *dv);
  /* sum[r] += sum of row r */
  void (*row_sums)(const float *a, int64_t rows, int64_t wide, float *sum);
  /* spk = 1 where mem > theta of the unit, else 0 */
  void (*fire)(const float *mem, const float *theta, int64_t units, int64_t wide, float *spk);
  void (*forward[SC_N_CELLS])(const sc_train_point *p);
  void (*backward[SC_N_CELLS])(const sc_train_point *p);
} sc_train_ops;

/* The training kernels that go with `ops`. */
const sc_train_ops *sc_train_ops_for(const sc_ops *ops);

/* Gate blocks kept per step and gradient blocks per step; 0 where nothing is kept. */
int64_t sc_train_gates(int cell);
int64_t sc_train_blocks(int cell);

/* One layer over one batch of sequences. Null where a part is absent; without ih the input is the drive itself.
 * Saved arrays run in the order of processing: states [steps + 1][units][wide] beginning with the initial state. The
 * spikes of lif are not saved: they follow from the membranes.
 */
typedef struct sc_train {
  int cell;
  int64_t units, in, steps, batch;
  int reverse, reset, delay, surrogate;
  float scale;
  const sc_matrix *ih, *hh;
  const float *bias_ih, *bias_hh, *beta, *theta;
  const float *x;                   /* [steps][batch][in] */
  const float *state[2];            /* [batch][units] */
  float *out[2];                    /* forward: [steps][batch][units] */
  float *last[2];                   /* forward: [batch][units] */
  float *gates, *states[2], *fired; /* forward out, backward in; all null where no gradient is wanted */
  const float *g_out[2], *g_last[2];
  float *dx, *d_state[2], *d_ih, *d_hh, *d_bias_ih, *d_bias_hh, *d_beta, *d_theta; /* backward: null where not wanted */
} sc_train;

/* Floats of workspace; backward also needs sc_train_index int32. */
size_t sc_train_forward_workspace(const sc_ops *ops, const sc_train *t);
size_t sc_train_backward_workspace(const sc_ops *ops, const sc_train *t);
size_t sc_train_index(const sc_train *t);
void sc_train_forward(const sc_ops *ops, const sc_train *t, float *workspace);
void sc_train_backward(const sc_ops *ops, const sc_train *t, float *workspace, int32_t *index);

/* y = bias + W x for n vectors, and its gradients (null where not wanted; d_w and d_bias are overwritten). */
size_t sc_train_linear_workspace(const sc_ops *ops, const sc_matrix *w, int64_t n);
size_t sc_train_linear_index(const sc_matrix *w);
void sc_train_linear(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *bias, float *y,
                     float *workspace);
void sc_train_linear_backward(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t n, const float *g,
                              float *dx, float *d_w, float *d_bias, float *workspace, int32_t *index);

#ifdef __cplusplus
}
#endif
#endif
