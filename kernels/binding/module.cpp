// Python binding of the native kernels: plain buffers in and out, every array checked here, the GIL released while
// kernels run. sparsecirc/_kernels.pyi is its description for people and type checkers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../include/sparsecirc.h"
#include "parallel.h"
#include "team.h"

namespace nb = nanobind;

void bind_training(nb::module_ &m);  // training.cpp
void bind_spiking(nb::module_ &m);   // spiking.cpp
void bind_order(nb::module_ &m);     // order.cpp

namespace {

template <typename T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Maybe = std::optional<In<T>>;

struct Free {
  void operator()(void *p) const { std::free(p); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], Free>;

template <typename T>
Buffer<T> allocate(size_t n) {
  const size_t bytes = (n * sizeof(T) + 63) / 64 * 64 + 64;
  void *p = std::aligned_alloc(64, bytes);
  if (!p) throw std::bad_alloc();
  return Buffer<T>(static_cast<T *>(p));
}

template <typename T>
Buffer<T> copy(const Maybe<T> &from) {
  if (!from) return nullptr;
  Buffer<T> to = allocate<T>(from->size());
  if (from->size()) std::memcpy(to.get(), from->data(), from->size() * sizeof(T));
  return to;
}

struct Named {
  const char *name;
};
constexpr Named kFormats[] = {
#define X(name, has_mm) {#name},
    SC_FORMATS(X)
#undef X
};
struct CellFacts {
  const char *name;
  int gates, states, spiking;
};
constexpr CellFacts kCells[] = {
#define X(name, gates, states, spiking) {#name, gates, states, spiking},
    SC_CELLS(X)
#undef X
};
constexpr const char *kResets[] = {"none", "subtract", "zero", "zero_update"};

template <typename Table>
int find(const Table &table, const std::string &name, const char *what) {
  int i = 0;
  for (const auto &entry : table) {
    if constexpr (std::is_same_v<std::decay_t<decltype(entry)>, const char *>) {
      if (name == entry) return i;
    } else {
      if (name == entry.name) return i;
    }
    i++;
  }
  throw std::invalid_argument(std::string("unknown ") + what + " '" + name + "'");
}

const sc_ops *ops_for(const std::string &isa) {
  const sc_ops *ops = sc_ops_for(isa.c_str());
  if (!ops) throw std::invalid_argument("instruction set '" + isa + "' is not built or this processor lacks it");
  return ops;
}

// A packed matrix that owns aligned copies of its arrays; immutable, checked once.
class Matrix {
 public:
  Matrix(const std::string &format, int64_t rows, int64_t cols, const In<float> &values, const Maybe<int32_t> &ptr,
         const Maybe<int32_t> &index32, const Maybe<uint8_t> &index8, int64_t tile_rows, int64_t tile_cols,
         const Maybe<int16_t> &words, const Maybe<int8_t> &words8, const Maybe<float> &scale,
         const Maybe<int32_t> &correction, const Maybe<uint16_t> &base, int64_t tile_step,
         const Maybe<uint16_t> &index16, const Maybe<int32_t> &order, int64_t tile_depth)
      : values_(copy<float>(values)),
        ptr_(copy<int32_t>(ptr)),
        index32_(copy<int32_t>(index32)),
        index16_(copy<uint16_t>(index16)),
        index8_(copy<uint8_t>(index8)),
        words_(copy<int16_t>(words)),
        words8_(copy<int8_t>(words8)),
        scale_(copy<float>(scale)),
        correction_(copy<int32_t>(correction)),
        base_(copy<uint16_t>(base)),
        order_(copy<int32_t>(order)) {
    m_.format = find(kFormats, format, "format");
    m_.rows = rows;
    m_.cols = cols;
    m_.tile_rows = tile_rows;
    m_.tile_cols = tile_cols;
    m_.tile_step = tile_step;
    m_.tile_depth = tile_depth;
    m_.n_values = static_cast<int64_t>(values.size());
    /* Each format has one index. */
    m_.n_index = static_cast<int64_t>(index32   ? index32->size()
                                      : index16 ? index16->size()
                                      : index8  ? index8->size()
                                                : 0);
    m_.n_ptr = static_cast<int64_t>(ptr ? ptr->size() : 0);
    m_.values = values_.get();
    m_.ptr = ptr_.get();
    m_.index32 = index32_.get();
    m_.index16 = index16_.get();
    m_.index8 = index8_.get();
    m_.n_words = static_cast<int64_t>(words ? words->size() : 0);
    m_.n_bytes = static_cast<int64_t>(words8 ? words8->size() : 0);
    m_.n_scale = static_cast<int64_t>(scale ? scale->size() : 0);
    m_.n_correction = static_cast<int64_t>(correction ? correction->size() : 0);
    m_.words = words_.get();
    m_.bytes = words8_.get();
    m_.scale = scale_.get();
    m_.correction = correction_.get();
    m_.n_base = static_cast<int64_t>(base ? base->size() : 0);
    m_.base = base_.get();
    m_.n_order = static_cast<int64_t>(order ? order->size() : 0);
    m_.order = order_.get();
    if (const char *why = sc_matrix_check(&m_)) fail(why);
    std::vector<bool> seen(static_cast<size_t>(m_.n_order));
    for (int64_t r = 0; r < m_.n_order; r++) seen[static_cast<size_t>(m_.order[r])] = true;
    for (const bool once : seen)
      if (!once) fail("the order is not a permutation of its rows");
  }
  const sc_matrix *get() const { return &m_; }
  std::string format() const { return kFormats[m_.format].name; }
  int64_t rows() const { return m_.rows; }
  int64_t cols() const { return m_.cols; }
  // A bias of y in the order of the rows of this matrix.
  Buffer<float> arranged(const float *bias) const {
    if (!bias || !m_.order) return nullptr;
    Buffer<float> b = allocate<float>(static_cast<size_t>(m_.rows));
    for (int64_t r = 0; r < m_.rows; r++) b[static_cast<size_t>(r)] = bias[m_.order[r]];
    return b;
  }
  int64_t stored() const { return m_.n_values + m_.n_words + m_.n_bytes; }
  std::optional<std::string> unsupported(const std::string &isa) const {
    const char *why = sc_matrix_supported(ops_for(isa), &m_);
    return why ? std::optional<std::string>(why) : std::nullopt;
  }

 private:
  [[noreturn]] void fail(const std::string &why) const {
    throw std::invalid_argument("packed " + format() + " matrix of " + std::to_string(m_.rows) + " x " +
                                std::to_string(m_.cols) + ": " + why);
  }
  Buffer<float> values_;
  Buffer<int32_t> ptr_, index32_;
  Buffer<uint16_t> index16_;
  Buffer<uint8_t> index8_;
  Buffer<int16_t> words_;
  Buffer<int8_t> words8_;
  Buffer<float> scale_;
  Buffer<int32_t> correction_;
  Buffer<uint16_t> base_;
  Buffer<int32_t> order_;
  sc_matrix m_{};
};

void need(bool ok, const std::string &what) {
  if (!ok) throw std::invalid_argument(what);
}

const float *vector_of(const Maybe<float> &v, int64_t n, const char *name) {
  if (!v) return nullptr;
  need(static_cast<int64_t>(v->size()) == n,
       std::string(name) + " needs " + std::to_string(n) + " entries, got " + std::to_string(v->size()));
  return v->data();
}

Buffer<float> workspace(size_t n, bool poison) {
  Buffer<float> w = allocate<float>(n);
  if (poison)
    for (size_t i = 0; i < n; i++) w[i] = std::numeric_limits<float>::quiet_NaN();
  return w;
}

void usable(const Matrix *m, const sc_ops *ops) {
  if (!m) return;
  const char *why = sc_matrix_supported(ops, m->get());
  need(!why, why ? std::string(why) : std::string());
}

void product(const Matrix &m, const std::string &isa, const In<float> &x, const Maybe<float> &bias, Out<float> y,
             int64_t repeats, int64_t threads, bool step) {
  const sc_ops *ops = ops_for(isa);
  usable(&m, ops);
  need(!step || threads == 1, "product: one step runs on one thread");
  need(repeats >= 1 && threads >= 1, "product: repeats and threads must be at least 1");
  need(x.ndim() == 2 && y.ndim() == 2 && x.shape(0) == y.shape(0) && static_cast<int64_t>(x.shape(1)) == m.cols() &&
           static_cast<int64_t>(y.shape(1)) == m.rows(),
       "product: x must be (n, cols) and y (n, rows)");
  const float *b = vector_of(bias, m.rows(), "bias");
  const Buffer<float> arranged = m.arranged(b);
  if (arranged) b = arranged.get();
  const float *from = x.data();
  float *to = y.data();
  const auto n = static_cast<int64_t>(x.shape(0));
  nb::gil_scoped_release release;
  const std::vector<Part> parts = parts_of(n, 64, threads, n * m.stored());
  std::vector<Buffer<float>> spaces;
  for (size_t k = 0; k < parts.size(); k++) spaces.push_back(workspace(sc_product_workspace(m.get()), false));
  if (step) {
    for (int64_t again = 0; again < repeats; again++)
      for (int64_t k = 0; k < n; k++)
        sc_product_step(ops, m.get(), from + k * m.cols(), b, to + k * m.rows(), spaces[0].get());
    return;
  }
  for (int64_t again = 0; again < repeats; again++)
    in_parallel(parts.size(), [&](size_t k) {
      const Part p = parts[k];
      sc_product(ops, m.get(), from + p.from * m.cols(), m.cols(), p.to - p.from, b, to + p.from * m.rows(), m.rows(),
                 spaces[k].get());
    });
}

void product_batched(const Matrix &m, const std::string &isa, const In<float> &x, const Maybe<float> &bias,
                     Out<float> y) {
  const sc_ops *ops = ops_for(isa);
  need(ops->mm_rows[m.get()->format] != nullptr, "format '" + m.format() + "' has no batched kernel");
  need(!m.get()->order, "batched kernels take rows as given, this matrix has them in another order");
  need(x.ndim() == 2 && y.ndim() == 2 && x.shape(1) == y.shape(1) && static_cast<int64_t>(x.shape(0)) == m.cols() &&
           static_cast<int64_t>(y.shape(0)) == m.rows() && static_cast<int64_t>(x.shape(1)) % ops->vector == 0,
       "product_batched: x must be (cols, batch) and y (rows, batch), batch a multiple of the vector length");
  const float *b = vector_of(bias, m.rows(), "bias");
  const float *from = x.data();
  float *to = y.data();
  const auto batch = static_cast<int64_t>(x.shape(1));
  nb::gil_scoped_release release;
  sc_mm(ops, m.get(), from, b, to, batch);
}

uint32_t read_words(const In<uint32_t> &x, int64_t repeats) {
  const auto n = static_cast<int64_t>(x.size());
  const uint32_t *from = x.data();
  nb::gil_scoped_release release;
  return sc_read(from, n, repeats);
}

void pointwise(const std::string &name, const std::string &isa, const In<float> &x, Out<float> y) {
  const sc_ops *ops = ops_for(isa);
  need(x.size() == y.size(), "pointwise: x and y differ in size");
  auto *fn = name == "exp" ? ops->exp_n : name == "tanh" ? ops->tanh_n : name == "sigmoid" ? ops->sigmoid_n : nullptr;
  need(fn != nullptr, "unknown function '" + name + "'");
  fn(static_cast<int64_t>(x.size()), x.data(), y.data());
}

// One layer; holds references to its matrices and copies of its vectors.
class Layer {
 public:
  Layer(const std::string &cell, int64_t units, int64_t in, std::shared_ptr<Matrix> ih, std::shared_ptr<Matrix> hh,
        std::shared_ptr<Matrix> hr, const Maybe<float> &bias_ih, const Maybe<float> &bias_hh,
        const Maybe<float> &hh_diag, const Maybe<float> &alpha, const Maybe<float> &beta, const Maybe<float> &theta,
        const Maybe<float> &strength, const std::string &reset, bool delay, bool adapted, bool reverse,
        std::shared_ptr<Matrix> ih_events, std::shared_ptr<Matrix> hh_events)
      : ih_(std::move(ih)),
        hh_(std::move(hh)),
        hr_(std::move(hr)),
        ih_events_(std::move(ih_events)),
        hh_events_(std::move(hh_events)) {
    const int kind = find(kCells, cell, "cell");
    facts_ = kCells[kind];
    const int64_t rows = units * facts_.gates;
    need(units >= 0 && in >= 0, "layer sizes must not be negative");
    l_.cell = kind;
    l_.units = units;
    l_.width = hr_ ? hr_->rows() : units;
    l_.in = in;
    l_.reset = find(kResets, reset, "reset");
    l_.delay = delay;
    l_.adapted = adapted;
    l_.reverse = reverse;
    need(!ih_ || (ih_->rows() == rows && ih_->cols() == in), "ih must be (gates * units, in)");
    need(ih_ || in == rows, "without ih the input must have gates * units features");
    need(!hh_ || (hh_->rows() == rows && hh_->cols() == l_.width), "hh must be (gates * units, width)");
    need(!hr_ || (hr_->cols() == units && kind == SC_CELL_lstm), "hr must be (width, units) of an lstm");
    need(!(hh_ && hh_diag), "a layer has hh or hh_diag, not both");
    need(hh_ || hh_diag || !bias_hh, "bias_hh needs hh or hh_diag");
    keep(bias_ih_, l_.bias_ih, bias_ih, rows, "bias_ih", ih_.get());
    keep(bias_hh_, l_.bias_hh, bias_hh, rows, "bias_hh", hh_.get());
    keep(diag_, l_.hh_diag, hh_diag, rows, "hh_diag");
    keep(alpha_, l_.alpha, alpha, units, "alpha");
    keep(beta_, l_.beta, beta, units, "beta");
    keep(theta_, l_.theta, theta, units, "theta");
    keep(strength_, l_.strength, strength, units, "strength");
    need(!facts_.spiking || (l_.beta && l_.theta), "a spiking cell needs beta and theta");
    need(kind != SC_CELL_li || l_.beta, "a leaky integrator needs beta");
    need(kind != SC_CELL_synaptic || l_.alpha, "a synaptic cell needs alpha");
    need(kind != SC_CELL_alif || (l_.alpha && l_.strength), "an adaptive cell needs alpha and strength");
    need(!(hh_diag && !l_.beta), "hh_diag is for cells with a decay per unit");
    l_.ih = ih_ ? ih_->get() : nullptr;
    l_.hh = hh_ ? hh_->get() : nullptr;
    l_.hr = hr_ ? hr_->get() : nullptr;
    l_.ih_events = events_of(ih_.get(), ih_events_.get(), "ih_events");
    l_.hh_events = events_of(hh_.get(), hh_events_.get(), "hh_events");
  }

  void run(const std::string &isa, const In<float> &x, const Maybe<int64_t> &lengths,
           const std::vector<Out<float>> &state, const std::vector<std::optional<Out<float>>> &out, bool batched,
           bool poison, int64_t threads) const {
    const sc_ops *ops = ops_for(isa);
    for (const auto *m : {&ih_, &hh_, &hr_}) {
      usable(m->get(), ops);
      need(!batched || facts_.spiking || !*m || (ops->mm_rows[(*m)->get()->format] && !(*m)->get()->order),
           "a matrix has no batched kernel");
    }
    need(!batched || facts_.spiking || !l_.beta, "leaky integrators run sample by sample");
    need(x.ndim() == 3 && static_cast<int64_t>(x.shape(2)) == l_.in, "x must be (steps, batch, in)");
    sc_io io{};
    io.steps = static_cast<int64_t>(x.shape(0));
    io.batch = io.stride = static_cast<int64_t>(x.shape(1));
    io.x = x.data();
    const auto n = static_cast<size_t>(facts_.states);
    need(state.size() == n && out.size() == n, "one state and one output slot per state of the cell");
    for (size_t i = 0; i < n; i++) {
      const auto wide = static_cast<size_t>((i == 0 ? l_.width : l_.units) * io.batch);
      need(state[i].size() == wide, "a state must be (batch, features)");
      need(!out[i] || out[i]->size() == wide * static_cast<size_t>(io.steps),
           "an output must be (steps, batch, features)");
      io.state[i] = const_cast<float *>(state[i].data());
      io.out[i] = out[i] ? const_cast<float *>(out[i]->data()) : nullptr;
    }
    if (lengths) {
      need(static_cast<int64_t>(lengths->size()) == io.batch, "one length per sample");
      io.lengths = lengths->data();
      for (int64_t b = 0; b < io.batch; b++)
        need(io.lengths[b] >= 0 && io.lengths[b] <= io.steps, "lengths must be within 0 .. steps");
    }
    need(threads >= 1, "threads must be at least 1");
    nb::gil_scoped_release release;
    int64_t stored = 0;
    for (const auto *m : {&ih_, &hh_, &hr_}) stored += *m ? (*m)->stored() : 0;
    if (const int64_t team = members(io, threads); !batched && team > 1) {
      run_shared(ops, l_, io, team, workspace(sc_team_workspace(&l_, team), poison).get());
      return;
    }
    std::vector<sc_io> parts;
    std::vector<Buffer<float>> spaces;
    for (const Part p : parts_of(io.batch, batched ? ops->vector : 1, threads, io.steps * io.batch * stored)) {
      parts.push_back(samples(io, p));
      spaces.push_back(workspace(sc_workspace(ops, &l_, &parts.back(), batched), poison));
    }
    in_parallel(parts.size(), [&](size_t k) { sc_run(ops, &l_, &parts[k], batched, spaces[k].get()); });
  }

 private:
  // Threads that are worth a part each of one sample.
  int64_t members(const sc_io &io, int64_t threads) const {
    if (io.batch != 1 || io.lengths || !l_.hh || !sc_can_part(l_.hh)) return 1;
    return std::min({threads, io.steps * hh_->stored() / kWorthOneThread, hh_->stored() / kWorthOneMember});
  }
  // The run of some samples of a batch.
  sc_io samples(sc_io io, Part p) const {
    io.batch = p.to - p.from;
    io.x += p.from * l_.in;
    if (io.lengths) io.lengths += p.from;
    for (int i = 0; i < facts_.states; i++) {
      const int64_t features = i == 0 ? l_.width : l_.units;
      io.state[i] += p.from * features;
      if (io.out[i]) io.out[i] += p.from * features;
    }
    return io;
  }
  // The columns of a matrix, for batches of spikes.
  static const sc_matrix *events_of(const Matrix *whole, const Matrix *events, const char *name) {
    if (!events) return nullptr;
    const sc_matrix *m = events->get();
    need(m->format == SC_FMT_columns && m->ptr, std::string(name) + " must be compressed columns");
    need(whole && m->rows == whole->rows() && m->cols == whole->cols(),
         std::string(name) + " must have the shape of the matrix that it stands for");
    return m;
  }
  // Of a bias: `matrix` is what it is added to.
  static void keep(Buffer<float> &to, const float *&slot, const Maybe<float> &from, int64_t n, const char *name,
                   const Matrix *matrix = nullptr) {
    const float *given = vector_of(from, n, name);
    to = matrix ? matrix->arranged(given) : nullptr;
    if (!to) to = copy<float>(from);
    slot = to.get();
  }
  std::shared_ptr<Matrix> ih_, hh_, hr_, ih_events_, hh_events_;
  Buffer<float> bias_ih_, bias_hh_, diag_, alpha_, beta_, theta_, strength_;
  CellFacts facts_{};
  sc_layer l_{};
};

std::vector<std::string> isas() {
  std::vector<std::string> names;
#define X(name) \
  if (sc_ops_for(#name)) names.emplace_back(#name);
  SC_ISAS(X)
#undef X
  return names;
}

std::vector<std::string> formats() {
  std::vector<std::string> names;
  for (const auto &f : kFormats) names.emplace_back(f.name);
  return names;
}

}  // namespace

// What is written to is never converted: the result would go to a copy that nobody sees.
NB_MODULE(_kernels, m) {
  m.doc() = "Native kernels of sparsecirc; see kernels/include/sparsecirc.h.";
  nb::set_leak_warnings(false);  // a program that a module keeps until the interpreter ends is no leak
  m.def("isas", &isas, "Instruction sets that this build and this processor have, least capable first.");
  m.def("formats", &formats, "Storage formats, by name.");
  m.def("vector", [](const std::string &isa) { return ops_for(isa)->vector; }, nb::arg("isa"));
  m.def(
      "has_batched",
      [](const std::string &isa, const std::string &format) {
        return ops_for(isa)->mm_rows[find(kFormats, format, "format")] != nullptr;
      },
      nb::arg("isa"), nb::arg("format"));
  m.def(
      "has_spikes", [](const std::string &isa) { return ops_for(isa)->spikes != nullptr; }, nb::arg("isa"),
      "Whether there are kernels for batches of spikes.");
  nb::class_<Matrix>(m, "Matrix")
      .def(nb::init<const std::string &, int64_t, int64_t, const In<float> &, const Maybe<int32_t> &,
                    const Maybe<int32_t> &, const Maybe<uint8_t> &, int64_t, int64_t, const Maybe<int16_t> &,
                    const Maybe<int8_t> &, const Maybe<float> &, const Maybe<int32_t> &, const Maybe<uint16_t> &,
                    int64_t, const Maybe<uint16_t> &, const Maybe<int32_t> &, int64_t>(),
           nb::arg("format"), nb::arg("rows"), nb::arg("cols"), nb::arg("values"), nb::arg("ptr").none() = nb::none(),
           nb::arg("index32").none() = nb::none(), nb::arg("index8").none() = nb::none(), nb::arg("tile_rows") = 0,
           nb::arg("tile_cols") = 0, nb::arg("words").none() = nb::none(), nb::arg("words8").none() = nb::none(),
           nb::arg("scale").none() = nb::none(), nb::arg("correction").none() = nb::none(),
           nb::arg("base").none() = nb::none(), nb::arg("tile_step") = 0, nb::arg("index16").none() = nb::none(),
           nb::arg("order").none() = nb::none(), nb::arg("tile_depth") = 0)
      .def_prop_ro("format", &Matrix::format)
      .def_prop_ro("rows", &Matrix::rows)
      .def_prop_ro("cols", &Matrix::cols)
      .def("unsupported", &Matrix::unsupported, nb::arg("isa"));
  nb::class_<Layer>(m, "Layer")
      .def(nb::init<const std::string &, int64_t, int64_t, std::shared_ptr<Matrix>, std::shared_ptr<Matrix>,
                    std::shared_ptr<Matrix>, const Maybe<float> &, const Maybe<float> &, const Maybe<float> &,
                    const Maybe<float> &, const Maybe<float> &, const Maybe<float> &, const Maybe<float> &,
                    const std::string &, bool, bool, bool, std::shared_ptr<Matrix>, std::shared_ptr<Matrix>>(),
           nb::arg("cell"), nb::arg("units"), nb::arg("in_features"), nb::arg("ih").none() = nb::none(),
           nb::arg("hh").none() = nb::none(), nb::arg("hr").none() = nb::none(), nb::arg("bias_ih").none() = nb::none(),
           nb::arg("bias_hh").none() = nb::none(), nb::arg("hh_diag").none() = nb::none(),
           nb::arg("alpha").none() = nb::none(), nb::arg("beta").none() = nb::none(),
           nb::arg("theta").none() = nb::none(), nb::arg("strength").none() = nb::none(), nb::arg("reset") = "none",
           nb::arg("delay") = true, nb::arg("adapted") = false, nb::arg("reverse") = false,
           nb::arg("ih_events").none() = nb::none(), nb::arg("hh_events").none() = nb::none())
      .def("run", &Layer::run, nb::arg("isa"), nb::arg("x"), nb::arg("lengths").none(), nb::arg("state").noconvert(),
           nb::arg("out").noconvert(), nb::arg("batched") = false, nb::arg("poison") = false, nb::arg("threads") = 1);
  m.def("product", &product, nb::arg("matrix"), nb::arg("isa"), nb::arg("x"), nb::arg("bias").none(),
        nb::arg("y").noconvert(), nb::arg("repeats") = 1, nb::arg("threads") = 1, nb::arg("step") = false);
  m.def("product_batched", &product_batched, nb::arg("matrix"), nb::arg("isa"), nb::arg("x"), nb::arg("bias").none(),
        nb::arg("y").noconvert());
  m.def("pointwise", &pointwise, nb::arg("name"), nb::arg("isa"), nb::arg("x"), nb::arg("y").noconvert());
  m.def("read_words", &read_words, nb::arg("x"), nb::arg("repeats"));
  bind_training(m);
  bind_spiking(m);
  bind_order(m);
}
