// Binding of the search for an order of rows; every array is checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "../include/sparsecirc.h"

namespace nb = nanobind;

namespace {

using Counts = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
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

int64_t count_windows(int64_t cols, const Ints &ptr, const Ints &index, const std::optional<Ints> &order,
                      int64_t height, int64_t width, int64_t step, int64_t depth) {
  const auto rows = static_cast<int64_t>(ptr.shape(0)) - 1, n = static_cast<int64_t>(index.shape(0));
  need(rows >= 0 && cols >= 0 && height >= 1 && height <= 16 && width >= 1 && step >= 1 && step <= width && depth >= 1,
       "count_windows: sizes are out of range");
  const int32_t *p = ptr.data(), *ix = index.data();
  need(p[0] == 0 && p[rows] == n, "count_windows: row pointers do not cover the columns");
  for (int64_t r = 0; r < rows; r++) need(p[r] <= p[r + 1], "count_windows: row pointers decrease");
  for (int64_t k = 0; k < n; k++) need(ix[k] >= 0 && ix[k] < cols, "count_windows: a column is outside");
  need(!order || static_cast<int64_t>(order->shape(0)) == rows, "count_windows: one place per row");
  const int32_t *places = order ? order->data() : nullptr;
  if (places) inside(places, rows);
  nb::gil_scoped_release release;
  return sc_count_windows(rows, cols, p, ix, places, height, width, step, depth);
}

}  // namespace

void bind_order(nb::module_ &m) {
  m.def("order_rows", &order_rows, nb::arg("count"), nb::arg("height"), nb::arg("turns"), nb::arg("order").noconvert());
  m.def("count_windows", &count_windows, nb::arg("cols"), nb::arg("ptr"), nb::arg("index"), nb::arg("order").none(),
        nb::arg("height"), nb::arg("width"), nb::arg("step"), nb::arg("depth"));
}
