// Binding of the search for an order of rows.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>
#include <vector>

#include "../include/sparsecirc.h"

namespace nb = nanobind;

namespace {

using Counts = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int64_t order_rows(const Counts &count, int64_t height, int64_t turns, Rows order) {
  const auto rows = static_cast<int64_t>(count.shape(0)), parts = static_cast<int64_t>(count.shape(1));
  if (height < 1) throw std::invalid_argument("order_rows: a strip has at least one row");
  if (rows > INT32_MAX - 16 || parts > (1 << 24)) throw std::invalid_argument("order_rows: the matrix is too large");
  if (static_cast<int64_t>(order.shape(0)) != rows) throw std::invalid_argument("order_rows: one place per row");
  for (int64_t r = 0; r < rows; r++)
    if (order.data()[r] < 0 || order.data()[r] >= rows) throw std::invalid_argument("order_rows: a row is outside");
  const uint8_t *from = count.data();
  int32_t *to = order.data();
  nb::gil_scoped_release release;
  std::vector<int64_t> space(sc_order_workspace(rows, height, parts) / sizeof(int64_t) + 1);
  return sc_order_rows(rows, height, parts, from, turns, to, space.data());
}

}  // namespace

void bind_order(nb::module_ &m) {
  m.def("order_rows", &order_rows, nb::arg("count"), nb::arg("height"), nb::arg("turns"), nb::arg("order").noconvert());
}
