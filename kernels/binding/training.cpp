// Binding of the training kernels: every array is checked here, matrices on each call, since checkpoints bring them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "../include/sparsecirc_training.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace nb = nanobind;

namespace {

using In = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Index = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using MaybeIn = std::optional<In>;
using MaybeOut = std::optional<Out>;
using Sparse = std::optional<std::tuple<Index, Index, In>>;  // row pointers, columns, values

struct Free {
  void operator()(void *p) const { std::free(p); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], Free>;

template <typename T>
Buffer<T> allocate(size_t n) {
  void *p = std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64 + 64);
  if (!p) throw std::bad_alloc();
  return Buffer<T>(static_cast<T *>(p));
}

// Asks for huge pages under fresh memory that is about to be filled: a fault for every 4 KB of a sequence's states
// costs as much as their arithmetic.
void expect_much(void *p, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t{1} << 21;
  const auto from = (reinterpret_cast<uintptr_t>(p) + page - 1) / page * page;
  const auto to = (reinterpret_cast<uintptr_t>(p) + bytes) / page * page;
  if (p && from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_HUGEPAGE);
#else
  (void)p;
  (void)bytes;
#endif
}

template <typename Arrays>
void expect_much(const Arrays &arrays) {
  for (const auto &a : arrays)
    if (a) expect_much(a->data(), a->size() * sizeof(float));
}

Buffer<float> workspace(size_t n, bool poison) {
  Buffer<float> w = allocate<float>(n);
  expect_much(w.get(), n * sizeof(float));
  if (poison)
    for (size_t i = 0; i < n; i++) w[i] = std::numeric_limits<float>::quiet_NaN();
  return w;
}

void need(bool ok, const std::string &what) {
  if (!ok) throw std::invalid_argument(what);
}

int find(std::initializer_list<const char *> names, const std::string &name, const char *what) {
  int i = 0;
  for (const char *n : names) {
    if (name == n) return i;
    i++;
  }
  throw std::invalid_argument(std::string("unknown ") + what + " '" + name + "'");
}

const sc_ops *ops_for(const std::string &isa) {
  const sc_ops *ops = sc_ops_for(isa.c_str());
  need(ops != nullptr, "instruction set '" + isa + "' is not built or this processor lacks it");
  need(ops->vector == sc_train_ops_for(ops)->vector, "instruction set '" + isa + "' has no training kernels");
  return ops;
}

template <typename A>
auto of_size(A &array, int64_t n, const char *name) {
  need(static_cast<int64_t>(array.size()) == n,
       std::string(name) + " needs " + std::to_string(n) + " elements, got " + std::to_string(array.size()));
  return array.data();
}

template <typename A>
auto of_size(std::optional<A> &array, int64_t n, const char *name) -> decltype(array->data()) {
  return array ? of_size(*array, n, name) : nullptr;
}

sc_matrix matrix(const std::tuple<Index, Index, In> &from, int64_t rows, int64_t cols, const char *name) {
  const auto &[ptr, columns, values] = from;
  sc_matrix m{};
  m.format = SC_FMT_csr;
  m.rows = rows;
  m.cols = cols;
  m.n_ptr = static_cast<int64_t>(ptr.size());
  m.n_index = static_cast<int64_t>(columns.size());
  m.n_values = static_cast<int64_t>(values.size());
  m.ptr = ptr.data();
  m.index32 = columns.data();
  m.values = values.data();
  const char *why = sc_matrix_check(&m);
  need(!why, std::string(name) + ": " + (why ? why : ""));
  return m;
}

constexpr int kCells[] = {SC_CELL_rnn_tanh, SC_CELL_rnn_relu, SC_CELL_gru, SC_CELL_lstm, SC_CELL_lif};

// One layer with its matrices, as both directions of a training step need it.
class Job {
 public:
  Job(const std::string &cell, int64_t units, bool reverse, const std::string &reset, bool delay, In &x,
      const Sparse &ih, const Sparse &hh, MaybeIn &bias_ih, MaybeIn &bias_hh, MaybeIn &beta, MaybeIn &theta) {
    t.cell = kCells[find({"rnn_tanh", "rnn_relu", "gru", "lstm", "lif"}, cell, "cell")];
    t.reset = find({"none", "subtract", "zero", "zero_update"}, reset, "reset");
    gates = t.cell == SC_CELL_gru ? 3 : t.cell == SC_CELL_lstm ? 4 : 1;
    need(x.ndim() == 3 && units >= 0, "x must be (steps, batch, in)");
    t.units = units;
    t.steps = static_cast<int64_t>(x.shape(0));
    t.batch = static_cast<int64_t>(x.shape(1));
    t.in = static_cast<int64_t>(x.shape(2));
    t.reverse = reverse;
    t.delay = delay;
    t.x = x.data();
    const int64_t rows = gates * units;
    need(ih || t.in == rows, "without ih the input must have gates * units features");
    need(hh || t.cell == SC_CELL_lif, "this cell needs hh");
    need(t.cell != SC_CELL_lif || (beta && theta && !ih), "lif needs beta and threshold, and takes no ih");
    if (ih) t.ih = &(ih_ = matrix(*ih, rows, t.in, "ih"));
    if (hh) t.hh = &(hh_ = matrix(*hh, rows, units, "hh"));
    t.bias_ih = of_size(bias_ih, rows, "bias_ih");
    t.bias_hh = of_size(bias_hh, rows, "bias_hh");
    t.beta = of_size(beta, units, "beta");
    t.theta = of_size(theta, units, "threshold");
  }

  template <typename A>
  void keep(std::array<std::optional<A>, 4> &saved, const sc_ops *ops) {
    const int64_t wide = (t.batch + ops->vector - 1) / ops->vector * ops->vector, n = units() * wide;
    t.gates = const_cast<float *>(of_size(saved[0], t.steps * sc_train_gates(t.cell) * n, "saved gates"));
    t.states[0] = const_cast<float *>(of_size(saved[1], (t.steps + 1) * n, "saved states"));
    t.states[1] = const_cast<float *>(of_size(saved[2], (t.steps + 1) * n, "saved states"));
    t.fired = const_cast<float *>(of_size(saved[3], t.steps * n, "saved membranes"));
    if (!t.states[0] && !t.states[1]) return;
    need((t.states[0] != nullptr) == (t.cell != SC_CELL_lif), "lif saves membranes, the other cells their output");
    need(t.states[1] || (t.cell != SC_CELL_lstm && t.cell != SC_CELL_lif), "this cell saves two states");
    need(t.gates || !sc_train_gates(t.cell) || !t.steps, "this cell saves gates");
    need(t.fired || t.cell != SC_CELL_lif || t.delay || !t.steps, "an immediate reset saves membranes");
  }

  int64_t units() const { return t.units; }
  int64_t sequence() const { return t.steps * t.batch * t.units; }
  int64_t single() const { return t.batch * t.units; }
  int64_t rows() const { return gates * t.units; }
  int64_t nnz(const sc_matrix *m) const { return m ? m->n_values : 0; }

  sc_train t{};
  int64_t gates = 1;

 private:
  sc_matrix ih_{}, hh_{};
};

void train_forward(const std::string &isa, const std::string &cell, int64_t units, bool reverse,
                   const std::string &reset, bool delay, In x, const Sparse &ih, const Sparse &hh, MaybeIn bias_ih,
                   MaybeIn bias_hh, MaybeIn beta, MaybeIn theta, std::array<MaybeIn, 2> state,
                   std::array<MaybeOut, 2> out, std::array<MaybeOut, 2> last, std::array<MaybeOut, 4> saved,
                   bool poison) {
  const sc_ops *ops = ops_for(isa);
  Job job(cell, units, reverse, reset, delay, x, ih, hh, bias_ih, bias_hh, beta, theta);
  sc_train &t = job.t;
  job.keep(saved, ops);
  for (int i = 0; i < 2; i++) {
    t.state[i] = of_size(state[i], job.single(), "state");
    t.out[i] = of_size(out[i], job.sequence(), "out");
    t.last[i] = of_size(last[i], job.single(), "last");
  }
  expect_much(out);
  expect_much(saved);
  need(t.state[0] && (t.state[1] || (t.cell != SC_CELL_lstm && t.cell != SC_CELL_lif)), "an initial state is missing");
  nb::gil_scoped_release release;
  Buffer<float> work = workspace(sc_train_forward_workspace(ops, &t), poison);
  sc_train_forward(ops, &t, work.get());
}

void train_backward(const std::string &isa, const std::string &cell, int64_t units, bool reverse,
                    const std::string &reset, bool delay, const std::string &surrogate, float scale, In x,
                    const Sparse &ih, const Sparse &hh, MaybeIn beta, MaybeIn theta, MaybeIn spk,
                    std::array<MaybeIn, 4> saved, std::array<MaybeIn, 2> g_out, std::array<MaybeIn, 2> g_last,
                    std::array<MaybeOut, 9> grads, bool poison) {
  const sc_ops *ops = ops_for(isa);
  MaybeIn none;
  Job job(cell, units, reverse, reset, delay, x, ih, hh, none, none, beta, theta);
  sc_train &t = job.t;
  job.keep(saved, ops);
  t.state[0] = of_size(spk, job.single(), "initial spikes");
  need(t.state[0] || t.cell != SC_CELL_lif, "lif needs its initial spikes");
  need(t.states[0] || t.states[1], "backward needs what forward saved");
  t.surrogate = find({"fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through"}, surrogate, "surrogate");
  t.scale = scale;
  for (int i = 0; i < 2; i++) {
    t.g_out[i] = of_size(g_out[i], job.sequence(), "gradient of out");
    t.g_last[i] = of_size(g_last[i], job.single(), "gradient of last");
    t.d_state[i] = of_size(grads[1 + i], job.single(), "gradient of state");
  }
  expect_much(grads);
  t.dx = of_size(grads[0], t.steps * t.batch * t.in, "gradient of x");
  t.d_ih = of_size(grads[3], job.nnz(t.ih), "gradient of ih");
  t.d_hh = of_size(grads[4], job.nnz(t.hh), "gradient of hh");
  need((t.ih || !t.d_ih) && (t.hh || !t.d_hh), "a gradient is asked for that has no weight");
  t.d_bias_ih = of_size(grads[5], job.rows(), "gradient of bias_ih");
  t.d_bias_hh = of_size(grads[6], job.rows(), "gradient of bias_hh");
  t.d_beta = of_size(grads[7], units, "gradient of beta");
  t.d_theta = of_size(grads[8], units, "gradient of threshold");
  nb::gil_scoped_release release;
  Buffer<float> work = workspace(sc_train_backward_workspace(ops, &t), poison);
  Buffer<int32_t> index = allocate<int32_t>(sc_train_index(&t));
  sc_train_backward(ops, &t, work.get(), index.get());
}

void train_linear(const std::string &isa, const std::tuple<Index, Index, In> &weight, In x, MaybeIn bias, Out y,
                  bool poison) {
  const sc_ops *ops = ops_for(isa);
  need(x.ndim() == 2 && y.ndim() == 2 && x.shape(0) == y.shape(0), "x must be (n, in) and y (n, out)");
  const auto n = static_cast<int64_t>(x.shape(0)), rows = static_cast<int64_t>(y.shape(1));
  const sc_matrix w = matrix(weight, rows, static_cast<int64_t>(x.shape(1)), "weight");
  const float *b = of_size(bias, rows, "bias"), *from = x.data();
  float *to = y.data();
  nb::gil_scoped_release release;
  Buffer<float> work = workspace(sc_train_linear_workspace(ops, &w, n), poison);
  sc_train_linear(ops, &w, from, n, b, to, work.get());
}

void train_linear_backward(const std::string &isa, const std::tuple<Index, Index, In> &weight, In x, In g, MaybeOut dx,
                           MaybeOut d_values, MaybeOut d_bias, bool poison) {
  const sc_ops *ops = ops_for(isa);
  need(x.ndim() == 2 && g.ndim() == 2 && x.shape(0) == g.shape(0), "x must be (n, in) and g (n, out)");
  const auto n = static_cast<int64_t>(x.shape(0)), rows = static_cast<int64_t>(g.shape(1));
  const sc_matrix w = matrix(weight, rows, static_cast<int64_t>(x.shape(1)), "weight");
  const float *from = x.data(), *back = g.data();
  float *to_x = of_size(dx, n * w.cols, "gradient of x"), *to_w = of_size(d_values, w.n_values, "gradient of values");
  float *to_b = of_size(d_bias, rows, "gradient of bias");
  nb::gil_scoped_release release;
  Buffer<float> work = workspace(sc_train_linear_workspace(ops, &w, n), poison);
  Buffer<int32_t> index = allocate<int32_t>(sc_train_linear_index(&w));
  sc_train_linear_backward(ops, &w, from, n, back, to_x, to_w, to_b, work.get(), index.get());
}

}  // namespace

// What is written to is never converted: the result would go to a copy that nobody sees.
void bind_training(nb::module_ &m) {
  m.def(
      "expect_much", [](Out array) { expect_much(array.data(), array.size() * sizeof(float)); },
      nb::arg("array").noconvert(), "Ask for huge pages under an array that is about to be filled.");
  m.def("train_forward", &train_forward, nb::arg("isa"), nb::arg("cell"), nb::arg("units"), nb::arg("reverse"),
        nb::arg("reset"), nb::arg("delay"), nb::arg("x"), nb::arg("ih").none(), nb::arg("hh").none(),
        nb::arg("bias_ih").none(), nb::arg("bias_hh").none(), nb::arg("beta").none(), nb::arg("theta").none(),
        nb::arg("state"), nb::arg("out").noconvert(), nb::arg("last").noconvert(), nb::arg("saved").noconvert(),
        nb::arg("poison") = false);
  m.def("train_backward", &train_backward, nb::arg("isa"), nb::arg("cell"), nb::arg("units"), nb::arg("reverse"),
        nb::arg("reset"), nb::arg("delay"), nb::arg("surrogate"), nb::arg("scale"), nb::arg("x"), nb::arg("ih").none(),
        nb::arg("hh").none(), nb::arg("beta").none(), nb::arg("theta").none(), nb::arg("spk").none(), nb::arg("saved"),
        nb::arg("g_out"), nb::arg("g_last"), nb::arg("grads").noconvert(), nb::arg("poison") = false);
  m.def("train_linear", &train_linear, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(),
        nb::arg("y").noconvert(), nb::arg("poison") = false);
  m.def("train_linear_backward", &train_linear_backward, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("g"),
        nb::arg("dx").none().noconvert(), nb::arg("d_values").none().noconvert(), nb::arg("d_bias").none().noconvert(),
        nb::arg("poison") = false);
}
