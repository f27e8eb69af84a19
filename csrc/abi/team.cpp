#include "abi/team.h"

#include <chrono>
#include <ctime>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fermt {
namespace {

constexpr int kSpins = 4000;  // about 0.1 ms: longer than threads of equal work differ, much shorter than a time slice

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

// Sleeps until woken, or returns at once if `value` is not `expected`; may return for no reason.
void sleep_while(const std::atomic<int32_t>& value, int32_t expected) {
#if defined(__linux__)
  syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
#else
  if (value.load() == expected) std::this_thread::sleep_for(std::chrono::microseconds(50));
#endif
}

}  // namespace

std::atomic<fermt_loop_trace> g_loop_trace{nullptr};

int64_t nanoseconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0) return int64_t{1000000000} * now.tv_sec + now.tv_nsec;
#endif
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void wait_for_items(TeamLoop& loop, int32_t count) {
  for (int i = 0; i < kSpins; ++i) {
    if (loop.done.load(std::memory_order_acquire) == count) return;
    pause();
  }
  loop.sleepers.fetch_add(1);
  for (int32_t done; (done = loop.done.load()) != count;) sleep_while(loop.done, done);
  loop.sleepers.fetch_sub(1);
}

void wake_sleepers(TeamLoop& loop) {
#if defined(__linux__)
  syscall(SYS_futex, &loop.done, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
  (void)loop;
#endif
}

}  // namespace fermt
