// Binding of the training kernels of spiking layers.
#include "training.h"

namespace {

// One layer of spiking neurons, as both directions of a training step need it.
class Neurons {
 public:
  Neurons(int64_t batch, const std::string &reset, bool delay, In &x, const Sparse &hh, std::array<MaybeIn, 4> vectors,
          std::array<MaybeIn, 3> initial) {
    t.reset = find({"none", "subtract", "zero", "zero_update"}, reset, "reset");
    t.delay = delay;
    need(x.ndim() == 3 && static_cast<int64_t>(x.shape(1)) == batch, "x must be (steps, batch, units)");
    t.steps = static_cast<int64_t>(x.shape(0));
    t.batch = batch;
    t.units = static_cast<int64_t>(x.shape(2));
    t.x = x.data();
    if (hh) t.hh = &(hh_ = matrix(*hh, t.units, t.units, "hh"));
    t.bias = of_size(vectors[0], t.units, "bias");
    t.alpha = of_size(vectors[1], t.units, "alpha");
    t.beta = of_size(vectors[2], t.units, "beta");
    t.theta = of_size(vectors[3], t.units, "threshold");
    need(t.beta || !t.units, "neurons need beta");
    need(t.theta || !t.units || (!t.hh && !t.bias && !t.alpha), "neurons without threshold only integrate their input");
    t.spk0 = of_size(initial[0], single(), "initial spikes");
    t.syn0 = of_size(initial[1], single(), "initial currents");
    t.mem0 = of_size(initial[2], single(), "initial membranes");
    need((t.mem0 && (t.spk0 || !t.hh) && (t.syn0 || !t.alpha)) || !single(), "an initial state is missing");
  }

  // Outputs of forward: spk (not needed again), syn, mem, and the membranes that an immediate reset is decided by.
  template <typename A>
  void states(std::array<std::optional<A>, 4> &out) {
    t.spk = const_cast<float *>(of_size(out[0], sequence(), "spikes"));
    t.syn = const_cast<float *>(of_size(out[1], sequence(), "currents"));
    t.mem = const_cast<float *>(of_size(out[2], sequence(), "membranes"));
    t.fired = const_cast<float *>(of_size(out[3], sequence(), "compared membranes"));
    need(!t.fired || (!t.delay && t.theta), "only an immediate reset compares other membranes");
    need((t.mem && (t.syn || !t.alpha)) || !sequence(), "membranes or currents are missing");
  }

  int64_t sequence() const { return t.steps * single(); }
  int64_t single() const { return t.batch * t.units; }

  sc_spiking t{};

 private:
  sc_matrix hh_{};
};

void spiking_forward(const std::string &isa, const std::string &reset, bool delay, int64_t batch, In x,
                     const Sparse &hh, std::array<MaybeIn, 4> vectors, std::array<MaybeIn, 3> initial,
                     std::array<MaybeOut, 4> out, bool poison) {
  const sc_ops *ops = ops_for(isa);
  Neurons job(batch, reset, delay, x, hh, vectors, initial);
  job.states(out);
  need(job.t.spk || !job.t.theta || !job.sequence(), "spikes are missing");
  expect_much(out);
  nb::gil_scoped_release release;
  const Space space(sc_spiking_forward_space(ops, &job.t), poison);
  sc_spiking_forward(ops, &job.t, space.floats.get(), space.ints.get());
}

void spiking_backward(const std::string &isa, const std::string &reset, bool delay, const std::string &surrogate,
                      float scale, int64_t batch, In x, const Sparse &hh, std::array<MaybeIn, 4> vectors,
                      std::array<MaybeIn, 3> initial, std::array<MaybeIn, 4> out, std::array<MaybeIn, 3> g_out,
                      std::array<MaybeOut, 9> grads, bool poison) {
  const sc_ops *ops = ops_for(isa);
  Neurons job(batch, reset, delay, x, hh, vectors, initial);
  sc_spiking &t = job.t;
  job.states(out);
  need(t.fired || t.delay || !t.theta || !job.sequence(), "an immediate reset saves membranes");
  t.surrogate = find({"fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through"}, surrogate, "surrogate");
  t.scale = scale;
  t.g_spk = of_size(g_out[0], job.sequence(), "gradient of spikes");
  t.g_syn = of_size(g_out[1], job.sequence(), "gradient of currents");
  t.g_mem = of_size(g_out[2], job.sequence(), "gradient of membranes");
  expect_much(grads);
  t.dx = of_size(grads[0], job.sequence(), "gradient of x");
  t.d_spk0 = of_size(grads[1], job.single(), "gradient of initial spikes");
  t.d_syn0 = of_size(grads[2], job.single(), "gradient of initial currents");
  t.d_mem0 = of_size(grads[3], job.single(), "gradient of initial membranes");
  t.d_hh = of_size(grads[4], t.hh ? t.hh->n_values : 0, "gradient of hh");
  t.d_bias = of_size(grads[5], t.units, "gradient of bias");
  t.d_alpha = of_size(grads[6], t.units, "gradient of alpha");
  t.d_beta = of_size(grads[7], t.units, "gradient of beta");
  t.d_theta = of_size(grads[8], t.units, "gradient of threshold");
  need((t.hh || !t.d_hh) && (t.alpha || (!t.d_syn0 && !t.d_alpha)), "a gradient is asked for that has no input");
  nb::gil_scoped_release release;
  const Space space(sc_spiking_backward_space(ops, &t), poison);
  sc_spiking_backward(ops, &t, space.floats.get(), space.ints.get());
}

}  // namespace

void bind_spiking(nb::module_ &m) {
  m.def("spiking_forward", &spiking_forward, nb::arg("isa"), nb::arg("reset"), nb::arg("delay"), nb::arg("batch"),
        nb::arg("x"), nb::arg("hh").none(), nb::arg("vectors"), nb::arg("initial"), nb::arg("out").noconvert(),
        nb::arg("poison") = false);
  m.def("spiking_backward", &spiking_backward, nb::arg("isa"), nb::arg("reset"), nb::arg("delay"), nb::arg("surrogate"),
        nb::arg("scale"), nb::arg("batch"), nb::arg("x"), nb::arg("hh").none(), nb::arg("vectors"), nb::arg("initial"),
        nb::arg("out"), nb::arg("g_out"), nb::arg("grads").noconvert(), nb::arg("poison") = false);
}
