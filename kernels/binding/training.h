// What the bindings of training share: every array is checked, matrices on each call, since checkpoints bring them.
#pragma once

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
inline void expect_much(void *p, size_t bytes) {
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
inline void expect_much(const Arrays &arrays) {
  for (const auto &a : arrays)
    if (a) expect_much(a->data(), a->size() * sizeof(float));
}

// Workspace of one call.
struct Space {
  Space(const sc_space &size, bool poison) : floats(allocate<float>(size.floats)), ints(allocate<int32_t>(size.ints)) {
    expect_much(floats.get(), size.floats * sizeof(float));
    if (poison)
      for (size_t i = 0; i < size.floats; i++) floats[i] = std::numeric_limits<float>::quiet_NaN();
  }
  Buffer<float> floats;
  Buffer<int32_t> ints;
};

inline void need(bool ok, const std::string &what) {
  if (!ok) throw std::invalid_argument(what);
}

inline int find(std::initializer_list<const char *> names, const std::string &name, const char *what) {
  int i = 0;
  for (const char *n : names) {
    if (name == n) return i;
    i++;
  }
  throw std::invalid_argument(std::string("unknown ") + what + " '" + name + "'");
}

inline const sc_ops *ops_for(const std::string &isa) {
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

inline sc_matrix matrix(const std::tuple<Index, Index, In> &from, int64_t rows, int64_t cols, const char *name) {
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
