// One sample on several threads: each sums its part of the rows of every recurrent product. They meet twice a step,
// which pays on cores that are free and costs many times the step where they are not: so it is tried, timed, and given
// up.
#ifndef SPARSECIRC_TEAM_H
#define SPARSECIRC_TEAM_H

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "../include/sparsecirc.h"

// Multiplications of one step that are worth a member of a team: some 10 times what a meeting takes.
constexpr int64_t kWorthOneMember = int64_t{1} << 16;

// run(k) for k in [0, count), all at the same time, the first one here. False, and nothing has run, where the system
// grants fewer threads.
template <typename Run>
bool in_team(int64_t count, const Run &run) {
  enum { kWait, kGo, kStop };
  std::atomic<int> sign{kWait};
  std::vector<std::thread> started;
  started.reserve(static_cast<size_t>(count));
  try {
    for (int64_t k = 1; k < count; k++)
      started.emplace_back([&sign, &run, k] {
        while (sign.load(std::memory_order_acquire) == kWait) std::this_thread::yield();
        if (sign.load(std::memory_order_relaxed) == kGo) run(k);
      });
    sign.store(kGo, std::memory_order_release);
  } catch (const std::system_error &) {
    sign.store(kStop, std::memory_order_release);
  }
  const bool all = sign.load(std::memory_order_relaxed) == kGo;
  if (all) run(0);
  for (std::thread &t : started) t.join();
  return all;
}

// Where threads that share a sample meet, twice a step. They spin: a step takes microseconds, and to sleep and wake
// takes longer. Who waits longer than any step should gives its processor away.
class Meeting {
 public:
  explicit Meeting(int64_t members) : members_(members) {}
  void wait() {
    const int64_t turn = turn_.load(std::memory_order_acquire);
    if (came_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
      came_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int64_t spins = 0; turn_.load(std::memory_order_acquire) == turn; spins++)
      if (spins < kSpins)
        pause();
      else
        std::this_thread::yield();
  }

 private:
  static constexpr int64_t kSpins = 1 << 9;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
  const int64_t members_;
  alignas(64) std::atomic<int64_t> came_{0};
  alignas(64) std::atomic<int64_t> turn_{0};
};

// Steps from .. from + n of a run, in the order in which it takes them.
inline sc_io steps_of(const sc_layer &l, sc_io io, int64_t from, int64_t n) {
  const int64_t first = l.reverse ? io.steps - from - n : from;
  io.steps = n;
  io.x += first * io.stride * l.in;
  for (int i = 0; i < 3; i++)
    if (io.out[i]) io.out[i] += first * io.stride * (i == 0 ? l.width : l.units);
  return io;
}

// Runs one sample, without lengths, by as many members as pay; `space`: sc_team_workspace floats. The first steps are
// timed alone, after some that fetch the weights, and later ones in the team, piece by piece, until it is slower.
inline void run_shared(const sc_ops *ops, const sc_layer &l, const sc_io &io, int64_t members, float *space) {
  constexpr int64_t kFetch = 32, kTrial = 64, kPiece = 512;
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  int64_t done = 0;
  const auto alone = [&](int64_t n) {
    const sc_io part = steps_of(l, io, done, n < io.steps - done ? n : io.steps - done);
    const Clock::time_point begin = Clock::now();
    sc_run(ops, &l, &part, 0, space);
    done += part.steps;
    return since(begin) / static_cast<double>(kTrial);
  };
  alone(kFetch);
  const double limit = alone(kTrial);
  if (done < io.steps) {
    Meeting meeting(members);
    std::atomic<bool> pays{true};
    in_team(members, [&](int64_t member) {
      const sc_team team = {member, members, [](void *at) { static_cast<Meeting *>(at)->wait(); }, &meeting};
      for (int64_t from = done, n = kTrial; from < io.steps && pays.load(std::memory_order_relaxed);
           from += n, n = kPiece) {
        if (n > io.steps - from) n = io.steps - from;
        const sc_io part = steps_of(l, io, from, n);
        const Clock::time_point begin = Clock::now();
        sc_run_in_team(ops, &l, &part, space, &team);
        if (member == 0) {
          done = from + n;
          pays.store(since(begin) < limit * static_cast<double>(n), std::memory_order_relaxed);
        }
        meeting.wait();
      }
    });
  }
  if (done < io.steps) alone(io.steps);
}

#endif
