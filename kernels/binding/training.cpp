// Binding of the training kernels of gated and linear layers.
#include "training.h"

namespace {

using Lengths = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;
using MaybeLengths = std::optional<Lengths>;

constexpr int kCells[] = {SC_CELL_rnn_tanh, SC_CELL_rnn_relu, SC_CELL_gru, SC_CELL_lstm};

// One layer with its matrices, as both directions of a training step need it.
class Job {
 public:
  Job(const std::string &cell, std::array<int64_t, 2> units_and_batch, bool reverse, In &x, MaybeLengths &offsets,
      const std::array<Sparse, 3> &weights, std::array<MaybeIn, 2> biases) {
    t.cell = kCells[find({"rnn_tanh", "rnn_relu", "gru", "lstm"}, cell, "cell")];
    gates = t.cell == SC_CELL_gru ? 3 : t.cell == SC_CELL_lstm ? 4 : 1;
    t.units = units_and_batch[0];
    t.batch = units_and_batch[1];
    t.reverse = reverse;
    t.x = x.data();
    take_rows(x, offsets);
    const auto &[ih, hh, hr] = weights;
    need(ih && hh, "a gated layer needs ih and hh");
    need(!hr || t.cell == SC_CELL_lstm, "only lstm has projections");
    t.width = hr ? static_cast<int64_t>(std::get<0>(*hr).size()) - 1 : t.units;
    need(t.units >= 0 && t.width >= 0, "sizes are not negative");
    t.ih = &(ih_ = matrix(*ih, rows(), t.in, "ih"));
    t.hh = &(hh_ = matrix(*hh, rows(), t.width, "hh"));
    if (hr) t.hr = &(hr_ = matrix(*hr, t.width, t.units, "hr"));
    t.bias_ih = of_size(biases[0], rows(), "bias_ih");
    t.bias_hh = of_size(biases[1], rows(), "bias_hh");
  }

  template <typename A>
  void keep(std::array<std::optional<A>, 3> &saved, const sc_ops *ops) {
    const int64_t wide = (t.batch + ops->vector - 1) / ops->vector * ops->vector;
    t.gates = const_cast<float *>(of_size(saved[0], t.steps * sc_train_gates(t.cell) * t.units * wide, "saved gates"));
    t.states[0] = const_cast<float *>(of_size(saved[1], (t.steps + 1) * t.width * wide, "saved states"));
    t.states[1] = const_cast<float *>(of_size(saved[2], (t.steps + 1) * t.units * wide, "saved states"));
    if (!t.states[0]) return;
    need(t.states[1] || t.cell != SC_CELL_lstm, "this cell saves two states");
    need(t.gates || !sc_train_gates(t.cell) || !t.steps, "this cell saves gates");
  }

  int64_t outputs() const { return total * t.width; }
  int64_t inputs() const { return total * t.in; }
  int64_t single(int state) const { return t.batch * (state ? t.units : t.width); }
  int64_t rows() const { return gates * t.units; }
  int64_t nnz(const sc_matrix *m) const { return m ? m->n_values : 0; }

  sc_train t{};
  int64_t gates = 1, total = 0;

 private:
  // x is (steps, batch, in), or (rows, in) with the row in which each step begins.
  void take_rows(const In &x, MaybeLengths &offsets) {
    need(x.ndim() == (offsets ? 2 : 3) && t.batch >= 0, "x must be (steps, batch, in), or (rows, in) with offsets");
    t.in = static_cast<int64_t>(x.shape(x.ndim() - 1));
    if (!offsets) {
      t.steps = static_cast<int64_t>(x.shape(0));
      need(static_cast<int64_t>(x.shape(1)) == t.batch, "x and the states must have one batch");
      total = t.steps * t.batch;
      return;
    }
    total = static_cast<int64_t>(x.shape(0));
    const int64_t *at = offsets->data();
    need(offsets->size() > 0 && at[0] == 0, "offsets must begin with 0");
    t.steps = static_cast<int64_t>(offsets->size()) - 1;
    int64_t most = t.batch;
    for (int64_t k = 0; k < t.steps; k++) {
      const int64_t count = at[k + 1] - at[k];
      need(at[k + 1] >= at[k] && at[k + 1] <= total && count <= most, "steps must have ever fewer samples");
      most = count;
    }
    need(at[t.steps] == total, "offsets must end with the number of rows");
    t.offsets = at;
  }

  sc_matrix ih_{}, hh_{}, hr_{};
};

void train_forward(const std::string &isa, const std::string &cell, std::array<int64_t, 2> units_and_batch,
                   bool reverse, In x, MaybeLengths offsets, const std::array<Sparse, 3> &weights,
                   std::array<MaybeIn, 2> biases, std::array<MaybeIn, 2> state, MaybeOut out,
                   std::array<MaybeOut, 2> last, std::array<MaybeOut, 3> saved, bool poison) {
  const sc_ops *ops = ops_for(isa);
  Job job(cell, units_and_batch, reverse, x, offsets, weights, biases);
  sc_train &t = job.t;
  job.keep(saved, ops);
  t.out = of_size(out, job.outputs(), "out");
  for (int i = 0; i < 2; i++) {
    t.state[i] = of_size(state[i], job.single(i), "state");
    t.last[i] = of_size(last[i], job.single(i), "last");
    const bool used = job.single(i) && (i == 0 || t.cell == SC_CELL_lstm);
    need(!used || (t.state[i] && t.last[i]), "a state or a last state is missing");
  }
  need(t.out || !job.outputs(), "out is missing");
  if (out) expect_much(out->data(), out->size() * sizeof(float));
  expect_much(saved);
  nb::gil_scoped_release release;
  const Space space(sc_train_forward_space(ops, &t), poison);
  sc_train_forward(ops, &t, space.floats.get(), space.ints.get());
}

void train_backward(const std::string &isa, const std::string &cell, std::array<int64_t, 2> units_and_batch,
                    bool reverse, In x, MaybeLengths offsets, const std::array<Sparse, 3> &weights,
                    std::array<MaybeIn, 3> saved, MaybeIn g_out, std::array<MaybeIn, 2> g_last,
                    std::array<MaybeOut, 8> grads, bool poison) {
  const sc_ops *ops = ops_for(isa);
  Job job(cell, units_and_batch, reverse, x, offsets, weights, {});
  sc_train &t = job.t;
  job.keep(saved, ops);
  need(t.states[0], "backward needs what forward saved");
  t.g_out = of_size(g_out, job.outputs(), "gradient of out");
  for (int i = 0; i < 2; i++) {
    t.g_last[i] = of_size(g_last[i], job.single(i), "gradient of last");
    t.d_state[i] = of_size(grads[1 + i], job.single(i), "gradient of state");
  }
  need(!t.d_state[1] || t.cell == SC_CELL_lstm, "a gradient is asked for that has no state");
  expect_much(grads);
  t.dx = of_size(grads[0], job.inputs(), "gradient of x");
  t.d_ih = of_size(grads[3], job.nnz(t.ih), "gradient of ih");
  t.d_hh = of_size(grads[4], job.nnz(t.hh), "gradient of hh");
  t.d_hr = of_size(grads[5], job.nnz(t.hr), "gradient of hr");
  need(t.hr || !t.d_hr, "a gradient is asked for that has no weight");
  t.d_bias_ih = of_size(grads[6], job.rows(), "gradient of bias_ih");
  t.d_bias_hh = of_size(grads[7], job.rows(), "gradient of bias_hh");
  nb::gil_scoped_release release;
  const Space space(sc_train_backward_space(ops, &t), poison);
  sc_train_backward(ops, &t, space.floats.get(), space.ints.get());
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
  const Space space(sc_train_linear_space(ops, &w, n), poison);
  sc_train_linear(ops, &w, from, n, b, to, space.floats.get(), space.ints.get());
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
  const Space space(sc_train_linear_space(ops, &w, n), poison);
  sc_train_linear_backward(ops, &w, from, n, back, to_x, to_w, to_b, space.floats.get(), space.ints.get());
}

}  // namespace

// What is written to is never converted: the result would go to a copy that nobody sees.
void bind_training(nb::module_ &m) {
  m.def(
      "expect_much", [](Out array) { expect_much(array.data(), array.size() * sizeof(float)); },
      nb::arg("array").noconvert(), "Ask for huge pages under an array that is about to be filled.");
  m.def("train_forward", &train_forward, nb::arg("isa"), nb::arg("cell"), nb::arg("units_and_batch"),
        nb::arg("reverse"), nb::arg("x"), nb::arg("offsets").none(), nb::arg("weights"), nb::arg("biases"),
        nb::arg("state"), nb::arg("out").none().noconvert(), nb::arg("last").noconvert(), nb::arg("saved").noconvert(),
        nb::arg("poison") = false);
  m.def("train_backward", &train_backward, nb::arg("isa"), nb::arg("cell"), nb::arg("units_and_batch"),
        nb::arg("reverse"), nb::arg("x"), nb::arg("offsets").none(), nb::arg("weights"), nb::arg("saved"),
        nb::arg("g_out").none(), nb::arg("g_last"), nb::arg("grads").noconvert(), nb::arg("poison") = false);
  m.def("train_linear", &train_linear, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(),
        nb::arg("y").noconvert(), nb::arg("poison") = false);
  m.def("train_linear_backward", &train_linear_backward, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("g"),
        nb::arg("dx").none().noconvert(), nb::arg("d_values").none().noconvert(), nb::arg("d_bias").none().noconvert(),
        nb::arg("poison") = false);
}
