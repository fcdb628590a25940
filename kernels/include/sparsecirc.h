/* sparsecirc native kernels: the one page that callers read.
 *
 * Nothing here allocates, keeps globals that change, or checks user input: the caller validates a matrix once with
 * sc_matrix_check and passes workspace. All numbers are f32. W has shape (rows, cols) = (out, in).
 */
#ifndef SPARSECIRC_H
#define SPARSECIRC_H

#include <stddef.h>
#include <stdint.h>

#include "../kernels.def"

#ifdef __cplusplus
extern "C" {
#endif

enum sc_format {
#define X(name, has_mm) SC_FMT_##name,
  SC_FORMATS(X)
#undef X
      SC_N_FORMATS
};

enum sc_cell {
#define X(name, gates, states, spiking) SC_CELL_##name,
  SC_CELLS(X)
#undef X
      SC_N_CELLS
};

enum sc_reset { SC_RESET_none, SC_RESET_subtract, SC_RESET_zero, SC_RESET_zero_update };

/* Most floats that a kernel reads past the end of x, rounded: x must be readable, and zero, up to this multiple. */
#define SC_PAD 64

/* Quantised bytes are readable up to this multiple. */
#define SC_PAD8 128

/* Largest magnitude of a quantised state: 12 bits beside 16-bit weights, 8 bits beside 8-bit ones. */
#define SC_STATE16 2047.0f
#define SC_STATE8 127.0f

/* Vectors of lookup16 that are summed in int32 before they are turned into floats: 2^15 * 2047 * 32 fits. */
#define SC_FLUSH 16

/* A packed matrix. What the arrays hold depends on the format; strips of rows one after another, columns ascending.
 *
 *   dense      values [strips][cols][16]: 16 rows of one column side by side, rows padded with zeros
 *   csr        ptr [rows + 1], index32 [nnz], values [nnz]
 *   blockRxC   ptr [strips + 1] in blocks, index32 [blocks] = first column, values [blocks][C columns][R rows]
 *   block_diagonal  base [strips + 1] = first row of each strip, at most 16 rows long; ptr [strips + 1] in columns,
 *              index32 [columns] = column, values [columns][16]
 *   lookup     ptr [strips + 1] in windows, base [windows] = first column / tile_step, values
 *              [windows][tile_depth][tile_rows], index8 [windows][tile_rows][tile_depth] = column in the window
 *   mantissa   as lookup, the column in the low bits of each value instead of index8
 *   lookup_bf16  as lookup, in bfloat16: words [windows][tile_depth / 2][tile_rows][2], vectors in pairs
 *   lookup16   as mantissa: words [windows][tile_depth][16 rows][2], the column in the low bits of each word
 *   lookup8    as lookup: bytes and index8 [windows][tile_depth][tile_rows][4]
 *   columns    ptr [cols + 1], index16 or index32 [nnz] = row, values [nnz]; or all null and values [cols][rows]
 *   columns16  ptr [cols + 1] in blocks, index32 [blocks] = strip of 16 rows, values [blocks][16]; 16 divides rows
 *   tiled_csr  ptr [blocks of rows][tiles of columns][tile_rows] + 1, index16 [nnz] = column in tile, values [nnz]
 *   dense16    words [strips][pairs of columns][16][2]; dense8: bytes [strips][fours of columns][16][4]
 *   the integer formats have scale [rows]; dense8 and lookup8 also correction [rows] = 128 * the row's sum. Where one
 *   entry of x is NaN they give NaN in every row
 *   order      [rows] or null: the row of y that each row of the matrix stands for, a permutation. Rows that pad little
 *              beside each other can then share a strip (formats of SC_ORDERED). bias, scale and correction are in the
 *              order of the matrix, x and y never change
 */
typedef struct sc_matrix {
  int format;
  int64_t rows, cols;
  int64_t tile_rows, tile_cols;  /* lookups: rows of a strip, inputs of a window; tiled_csr: of a tile */
  int64_t tile_step, tile_depth; /* lookups: where windows may begin, vectors of weights in each */
  int64_t n_values, n_index, n_ptr;
  const float *values;
  const int32_t *ptr;
  const int32_t *index32;
  const uint16_t *index16;
  const uint8_t *index8;
  int64_t n_base;
  const uint16_t *base;
  int64_t n_words, n_bytes, n_scale, n_correction;
  const int16_t *words;
  const int8_t *bytes;
  const float *scale;
  const int32_t *correction;
  int64_t n_order;
  const int32_t *order;
} sc_matrix;

/* y = bias + W x; bias may be null. scratch: room for cols int32, rounded up to a multiple of SC_PAD. */
typedef void (*sc_mv_fn)(const sc_matrix *w, const float *x, const float *bias, float *y, int32_t *scratch);
/* Rows first .. last of Y = bias + W X with X (cols, batch); y (last - first, batch) starts at row `first`. The batch
 * is a multiple of the vector length, and rows are in the order of y. */
typedef void (*sc_mm_rows_fn)(const sc_matrix *w, const float *x, const float *bias, float *y, int64_t batch,
                              int64_t first, int64_t last);
/* y[k] = bias + W x[k] for n vectors at stride ldx, results at stride ldy. */
typedef void (*sc_mvn_fn)(const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias, float *y,
                          int64_t ldy);

/* Arguments of one pointwise step over n = units * batch elements; blocks of a gate are n apart. */
typedef struct sc_point {
  int64_t n;
  const float *drive;     /* [gates][n] input product with its bias */
  const float *rec;       /* [gates][n] recurrent product with its bias */
  float *h;               /* [n] gated: hidden state, in and out; lstm: out only; li: membrane, in and out */
  float *c;               /* [n] lstm cell state, in and out */
  float *spk, *syn, *mem; /* syn: synaptic current, or the adaptation of an alif */
  const float *alpha, *beta, *theta, *strength; /* [n]; alpha: decay of syn */
  int reset, delay, adapted;
} sc_point;
typedef void (*sc_point_fn)(const sc_point *p);

/* Samples that one run of spikes takes together. */
#define SC_SPIKES 64

/* Products of up to SC_SPIKES samples whose inputs are spikes. Samples come in groups of 16 lanes: arrays are (groups,
 * n, 16), masks [n][SC_SPIKES / 16] have bit b of mask g where input n of sample 16 g + b is 1. Sums run over ascending
 * columns from the bias on, as those of single samples do.
 */
typedef struct sc_spike_ops {
  /* Masks of samples (batch, n): how many are not empty, or -1 where an input is neither 0 nor 1. */
  int64_t (*pack)(const float *x, int64_t ldx, int64_t batch, int64_t n, uint16_t *masks);
  /* Masks of (groups, n, 16): how many are not empty. */
  int64_t (*fired)(const float *spikes, int64_t n, int64_t groups, uint16_t *masks);
  /* y (groups, rows, 16) = bias + W x, W in compressed rows: the same time for any number of spikes. */
  void (*rows)(const sc_matrix *w, const uint16_t *masks, const float *bias, int64_t groups, float *y);
  /* The same for compressed columns: time falls with the masks that are not empty. */
  void (*columns)(const sc_matrix *w, const uint16_t *masks, const float *bias, int64_t groups, float *y);
  /* (batch, n) to (groups, n, 16), zeros beside the last sample, and back. */
  void (*to_lanes)(const float *x, int64_t ldx, int64_t batch, int64_t n, float *y);
  void (*to_samples)(const float *y, int64_t batch, int64_t n, float *x, int64_t ldx);
} sc_spike_ops;

/* The only windows that a lookup reads, and how to say so; zero where it reads any. depths: the sum of those it knows,
 * which are powers of two.
 */
typedef struct sc_tile {
  int64_t rows, cols, step, depths;
  const char *says;
} sc_tile;

/* One instruction set: every kernel built for it. mm_rows is null where a format has none. */
typedef struct sc_ops {
  const char *isa;
  int64_t vector; /* floats per vector, the batch multiple of mm_rows */
  sc_mv_fn mv[SC_N_FORMATS];
  sc_mm_rows_fn mm_rows[SC_N_FORMATS];
  sc_mvn_fn mvn_dense;
  sc_point_fn point[SC_N_CELLS];
  void (*exp_n)(int64_t n, const float *x, float *y);
  void (*tanh_n)(int64_t n, const float *x, float *y);
  void (*sigmoid_n)(int64_t n, const float *x, float *y);
  sc_tile tile[SC_N_FORMATS];
  const sc_spike_ops *spikes; /* null where there are none */
} sc_ops;

/* The kernels for an instruction set by name, or null where it is not built or this processor lacks it. */
const sc_ops *sc_ops_for(const char *isa);
/* The whole product of a batch. */
static inline void sc_mm(const sc_ops *ops, const sc_matrix *w, const float *x, const float *bias, float *y,
                         int64_t batch) {
  ops->mm_rows[w->format](w, x, bias, y, batch, 0, w->rows);
}
/* Null when the arrays of a matrix describe it and no index leaves it; else the reason. */
const char *sc_matrix_check(const sc_matrix *w);
/* Whether kernels read x past its end (see SC_PAD). */
int sc_reads_past_end(const sc_matrix *w);
/* Null when `ops` can multiply by `w`; else the reason. */
const char *sc_matrix_supported(const sc_ops *ops, const sc_matrix *w);

/* One layer of one cell. Null pointers where a part is absent; without ih the input is the drive itself. */
typedef struct sc_layer {
  int cell;
  int64_t units, width, in; /* width: of the fed-back state (differs from units with a projection) */
  int reset, delay, adapted, reverse;
  const sc_matrix *ih, *hh, *hr;
  const sc_matrix *ih_events, *hh_events; /* for batches of spikes: the weights of ih and hh as columns, or null */
  const float *bias_ih, *bias_hh, *hh_diag;
  const float *alpha, *beta, *theta, *strength; /* per unit; alpha: decay of the synapse, or of an adaptation */
} sc_layer;

/* Data of one run. States in cell order (gated: h, c; lif: spk, mem; synaptic: spk, syn, mem; alif: spk, adaptation,
 * mem; li: mem).
 */
typedef struct sc_io {
  int64_t steps, batch;
  int64_t stride;         /* samples from one step to the next in x and out: at least batch, which may be a part */
  const float *x;         /* [steps][stride][in] */
  const int64_t *lengths; /* [batch] or null */
  float *state[3];        /* [batch][features], in and out */
  float *out[3];          /* [steps][stride][features] or null where not wanted */
} sc_io;

/* One of the threads that run a sample together, 0 <= member < members. wait(at) returns once every member has called
 * it; what they wrote before is then visible to all.
 */
typedef struct sc_team {
  int64_t member, members;
  void (*wait)(void *at);
  void *at;
} sc_team;

/* Floats of workspace that sc_run needs, batched or sample by sample. */
size_t sc_workspace(const sc_ops *ops, const sc_layer *layer, const sc_io *io, int batched);
/* Whole sequences in one call. batched: the state is held as (units, batch), for gated cells with mm kernels and for
 * spiking ones with kernels of spikes, whose hh, if any, is csr; others run sample by sample. */
void sc_run(const sc_ops *ops, const sc_layer *layer, const sc_io *io, int batched, float *workspace);
/* The same, sample by sample, by every member of a team at once, on one workspace; results do not depend on `members`.
 * The recurrent matrix must be one that sc_can_part.
 */
void sc_run_in_team(const sc_ops *ops, const sc_layer *layer, const sc_io *io, float *workspace, const sc_team *team);
size_t sc_team_workspace(const sc_layer *layer, int64_t members);
/* Part `member` of `members` of the rows of a matrix that sc_can_part: whole strips, about as many weights in each; it
 * points into the arrays of w. Gives the row at which the part's bias begins, and its y unless it is ordered.
 */
int64_t sc_part(const sc_matrix *w, int64_t member, int64_t members, sc_matrix *part);
int sc_can_part(const sc_matrix *w);
/* y[k] = bias + W x[k] for n contiguous vectors. workspace: sc_product_workspace(w) floats. */
void sc_product(const sc_ops *ops, const sc_matrix *w, const float *x, int64_t ldx, int64_t n, const float *bias,
                float *y, int64_t ldy, float *workspace);
/* The same for one vector, with the loop and the order of sums of a recurrence. */
void sc_product_step(const sc_ops *ops, const sc_matrix *w, const float *x, const float *bias, float *y,
                     float *workspace);
size_t sc_product_workspace(const sc_matrix *w);
/* Puts rows that pad little beside each other into the same strip of `height` rows: order [rows] holds a
 * permutation and is improved in `turns` turns. count [rows][parts]: slots of a row in each part of its columns. Gives
 * the slots of the result, the sum over strips and parts of the longest row. The same input gives the same order.
 * workspace: sc_order_workspace bytes, aligned for int64_t.
 */
int64_t sc_order_rows(int64_t rows, int64_t height, int64_t parts, const uint8_t *count, int64_t turns, int32_t *order,
                      void *workspace);
size_t sc_order_workspace(int64_t rows, int64_t height, int64_t parts);
/* Windows of `width` columns that strips of `height` (at most 16) rows of a CSR matrix take, packed in an order, or as
 * given where it is null: each begins at the first column, down to a multiple of `step`, that any row still has to
 * store, and takes from each row the next `depth` weights in it.
 */
int64_t sc_count_windows(int64_t rows, int64_t cols, const int32_t *ptr, const int32_t *index, const int32_t *order,
                         int64_t height, int64_t width, int64_t step, int64_t depth);
/* The rows of a pattern after those of its connections that `leaves` [nnz] marks were exchanged for as many others:
 * grow [n] holds row * cols + column, ascending. source [nnz]: where each connection was, -1 where it grew. Gives -1,
 * or the first of grow that is alive, comes twice or lies outside.
 */
int64_t sc_exchange(int64_t rows, int64_t cols, const int32_t *ptr, const int32_t *index, const uint8_t *leaves,
                    const int64_t *grow, int64_t n, int32_t *new_ptr, int32_t *new_index, int32_t *source);
/* Reads n words `repeats` times, as fast as one core can, and gives the bitwise or of all of them. */
uint32_t sc_read(const uint32_t *x, int64_t n, int64_t repeats);

#ifdef __cplusplus
}
#endif
#endif
