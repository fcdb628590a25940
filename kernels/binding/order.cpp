// Binding of what works on the rows of patterns: orders, windows, exchanges; every array is checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../include/sparsecirc.h"

namespace nb = nanobind;

namespace {

using Counts = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Keys = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void need(bool ok, const char *what) {
  if (!ok) throw std::invalid_argument(what);
}

void inside(const int32_t *rows, int64_t n) {
  for (int64_t r = 0; r < n; r++) need(rows[r] >= 0 && rows[r] < n, "an order leaves the rows");
}

int64_t order_rows(const Counts &count, int64_t height, int64_t turns, Rows order) {
  const auto rows = static_cast<int64_t>(count.shape(0)), parts = static_cast<int64_t>(count.shape(1));
  need(height >= 1, "order_rows: a strip has at least one row");
  need(rows <= INT32_MAX - 16 && parts <= (1 << 24), "order_rows: the matrix is too large");
  need(static_cast<int64_t>(order.shape(0)) == rows, "order_rows: one place per row");
  inside(order.data(), rows);
  const uint8_t *from = count.data();
  int32_t *to = order.data();
  nb::gil_scoped_release release;
  std::vector<int64_t> space(sc_order_workspace(rows, height, parts) / sizeof(int64_t) + 1);
  return sc_order_rows(rows, height, parts, from, turns, to, space.data());
}

// Row pointers that cover the columns, and columns within the matrix; `who` begins the message.
void check_rows(const char *who, const Ints &ptr, const Ints &index, int64_t cols) {
  const auto check = [who](bool ok, const char *what) {
    if (!ok) throw std::invalid_argument(std::string(who) + ": " + what);
  };
  const auto rows = static_cast<int64_t>(ptr.shape(0)) - 1, n = static_cast<int64_t>(index.shape(0));
  check(rows >= 0 && cols >= 0, "sizes are out of range");
  const int32_t *p = ptr.data(), *ix = index.data();
  check(p[0] == 0 && p[rows] == n, "row pointers do not cover the columns");
  for (int64_t r = 0; r < rows; r++) check(p[r] <= p[r + 1], "row pointers decrease");
  for (int64_t k = 0; k < n; k++) check(ix[k] >= 0 && ix[k] < cols, "a column is outside");
}

int64_t count_windows(int64_t cols, const Ints &ptr, const Ints &index, const std::optional<Ints> &order,
                      int64_t height, int64_t width, int64_t step, int64_t depth) {
  const auto rows = static_cast<int64_t>(ptr.shape(0)) - 1;
  need(height >= 1 && height <= 16 && width >= 1 && step >= 1 && step <= width && depth >= 1,
       "count_windows: sizes are out of range");
  check_rows("count_windows", ptr, index, cols);
  const int32_t *p = ptr.data(), *ix = index.data();
  need(!order || static_cast<int64_t>(order->shape(0)) == rows, "count_windows: one place per row");
  const int32_t *places = order ? order->data() : nullptr;
  if (places) inside(places, rows);
  nb::gil_scoped_release release;
  return sc_count_windows(rows, cols, p, ix, places, height, width, step, depth);
}

int64_t exchange(int64_t cols, const Ints &ptr, const Ints &index, const Flags &leaves, const Keys &grow, Rows new_ptr,
                 Rows new_index, Rows source) {
  const size_t n = index.shape(0);
  check_rows("exchange", ptr, index, cols);
  need(leaves.shape(0) == n && new_index.shape(0) == n && source.shape(0) == n && new_ptr.shape(0) == ptr.shape(0),
       "exchange: an array has another length");
  size_t gone = 0;
  for (size_t k = 0; k < n; k++) gone += leaves.data()[k] != 0;
  need(gone == grow.shape(0), "exchange: as many connections grow as leave");
  const auto rows = static_cast<int64_t>(ptr.shape(0)) - 1;
  for (size_t k = 1; k < grow.shape(0); k++) need(grow.data()[k - 1] <= grow.data()[k], "exchange: grow must ascend");
  return sc_exchange(rows, cols, ptr.data(), index.data(), leaves.data(), grow.data(),
                     static_cast<int64_t>(grow.shape(0)), new_ptr.data(), new_index.data(), source.data());
}

}  // namespace

void bind_order(nb::module_ &m) {
  m.def("order_rows", &order_rows, nb::arg("count"), nb::arg("height"), nb::arg("turns"), nb::arg("order").noconvert());
  m.def("exchange", &exchange, nb::arg("cols"), nb::arg("ptr"), nb::arg("index"), nb::arg("leaves"), nb::arg("grow"),
        nb::arg("new_ptr").noconvert(), nb::arg("new_index").noconvert(), nb::arg("source").noconvert());
  m.def("count_windows", &count_windows, nb::arg("cols"), nb::arg("ptr"), nb::arg("index"), nb::arg("order").none(),
        nb::arg("height"), nb::arg("width"), nb::arg("step"), nb::arg("depth"));
}
