// Work over a range of samples or vectors, cut into one part per thread. Threads live for one call: a run long enough
// to gain from them takes many times what starting them does, and a short one stays where it is.
#ifndef SPARSECIRC_PARALLEL_H
#define SPARSECIRC_PARALLEL_H

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

// Multiplications that are worth a thread of their own: some 20 times what starting it takes.
constexpr int64_t kWorthOneThread = int64_t{1} << 21;

// A part [from, to) of a range.
struct Part {
  int64_t from, to;
};

// At most `threads` parts of [0, n), in whole multiples of `step` but for the end, as many as `work` is worth.
inline std::vector<Part> parts_of(int64_t n, int64_t step, int64_t threads, int64_t work) {
  const int64_t worth = work / kWorthOneThread, most = threads < worth ? threads : worth;
  const int64_t pieces = (n + step - 1) / step;
  const int64_t count = most < 1 ? 1 : most < pieces ? most : pieces < 1 ? 1 : pieces;
  std::vector<Part> parts;
  for (int64_t k = 0; k < count; k++) {
    const int64_t from = pieces * k / count * step, to = pieces * (k + 1) / count * step;
    parts.push_back({from, to < n ? to : n});
  }
  return parts;
}

// run(k) for k in [0, count), the last one here; `run` must not throw. Where the system grants no thread it runs here.
template <typename Run>
void in_parallel(size_t count, const Run &run) {
  std::vector<std::thread> started;
  started.reserve(count);
  for (size_t k = 0; k + 1 < count; k++) {
    try {
      started.emplace_back(run, k);
    } catch (const std::system_error &) {
      run(k);
    }
  }
  if (count) run(count - 1);
  for (std::thread &t : started) t.join();
}

#endif
