// A team: the caller's threads, through all the loops of a call in one parallel region.
//
// A thread takes a loop's items from a shared counter, as many at once as are its share, and goes on to the next loop
// when all items are done. So a thread that the system does not schedule holds up only the items that it has taken, and
// one that comes late finds less to do. Threads that wait spin for a moment, then sleep.

#pragma once

#include <atomic>
#include <new>

#include "abi/parallel.h"

namespace fermt {

// The state of one loop.
struct alignas(64) TeamLoop {
  std::atomic<int64_t> next;  // the first item that nobody has taken
  std::atomic<int32_t> done;  // items
  std::atomic<int32_t> sleepers;
};

// Returns when `loop` has `count` items done: spins for a moment, then sleeps.
void wait_for_items(TeamLoop& loop, int32_t count);
void wake_sleepers(TeamLoop& loop);

// Where loops report what they did, or null (fermt_trace_loops).
extern std::atomic<fermt_loop_trace> g_loop_trace;
int64_t nanoseconds();  // of the thread's time, where there is such a clock

constexpr int64_t kMaxTeam = 64;  // more threads stay away

// A thread in a team: its number, below kMaxTeam, the loop that it is at, and how many threads there are.
class Team {
 public:
  Team(TeamLoop* first, int64_t thread, int64_t threads)
      : first_(first), at_(first), thread_(thread), threads_(threads) {}
  Team(const Team&) = delete;

  int64_t thread() const { return thread_; }
  int64_t threads() const { return threads_; }

  // An equal share of `count` items for each thread.
  int64_t share(int64_t count) const { return (count + threads_ - 1) / threads_; }

  // body(begin, end) over pieces of [0, count), at most `at_once` items each; returns when all items are done. An
  // item's result must not depend on the pieces.
  template <class Body>
  void loop(int64_t count, int64_t at_once, Body&& body) {
    TeamLoop& loop = *at_++;
    for (int64_t begin; (begin = loop.next.fetch_add(at_once, std::memory_order_relaxed)) < count;) {
      const int64_t end = begin + at_once < count ? begin + at_once : count;
      const fermt_loop_trace trace = g_loop_trace.load(std::memory_order_relaxed);
      const int64_t start = trace ? nanoseconds() : 0;
      body(begin, end);
      if (trace) trace(at_ - first_ - 1, count, begin, end, nanoseconds() - start);
      if (loop.done.fetch_add(static_cast<int32_t>(end - begin)) + (end - begin) == count && loop.sleepers.load())
        wake_sleepers(loop);
    }
    wait_for_items(loop, static_cast<int32_t>(count));
  }

 private:
  TeamLoop *first_, *at_;
  int64_t thread_, threads_;
};

// program(team) on each of the caller's threads, with `loop_count` loops in their memory at `loops`. Every thread goes
// through the same loops; a caller that runs its threads one after the other gets all of the work in the first.
template <class Program>
fermt_status run_team(fermt_parallel_for run, TeamLoop* loops, int64_t loop_count, Program&& program) {
  constexpr int64_t kShares = 256;  // divided among the threads, which tells each how many there are
  for (int64_t i = 0; i < loop_count; ++i) new (loops + i) TeamLoop{};
  std::atomic<int64_t> arrived{0};
  auto body = [&](int64_t begin, int64_t end) {
    const int64_t thread = arrived.fetch_add(1), threads = (kShares + end - begin - 1) / (end - begin);
    if (thread >= kMaxTeam) return;
    Team team(loops, thread, threads < kMaxTeam ? threads : kMaxTeam);
    program(team);
  };
  return parallel_for(run, kShares, body);
}

}  // namespace fermt
