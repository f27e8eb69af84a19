// What the driver's cases share: threads, checks of statuses, the rows that a case runs on, tensors.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "abi/fermt.h"
#include "driver/agreement.h"

namespace {

// Two halves, one after the other, the second first: threads in miniature, and an order that nobody expects.
int32_t halves(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  const int64_t middle = begin + (end - begin) / 2;
  if (middle < end) body(middle, end, context);
  if (begin < middle) body(begin, middle, context);
  return 0;
}

// Three threads at once, as the frame's loops share their items among them.
int32_t three_threads(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 3; ++i)
    threads.emplace_back(body, begin + (end - begin) * i / 3, begin + (end - begin) * (i + 1) / 3, context);
  for (std::thread& thread : threads) thread.join();
  return 0;
}

int g_calls = 0;
Agreement g_agreement;
constexpr double kMostProducts = 1e6;  // of an op that is compared with float64

void expect(int32_t status, int32_t wanted, const char* what) {
  ++g_calls;
  if (status == wanted) return;
  std::printf("%s: %s, expected %s\n", what, fermt_status_text(status), fermt_status_text(wanted));
  std::exit(1);
}

// Runs a case on every instruction set that this CPU has: first on the last, `generic`, which gives the reference.
template <class Case>
void on_each_row(Case&& run) {
  std::vector<const char*> names;
  for (int32_t row = 0; fermt_isa_name(row); ++row)
    if (fermt_isa_supported(row)) names.push_back(fermt_isa_name(row));
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    expect(fermt_isa_select(*name), FERMT_OK, *name);
    g_agreement.start_row(*name, name == names.rbegin());
    run();
  }
}

// A tensor of exactly the bytes that its shape needs, filled with small numbers.
struct Buffer {
  std::vector<char> bytes;
  fermt_tensor tensor;

  int64_t count;
  int dtype;

  Buffer(int64_t a, int64_t b, int64_t c, int64_t d, int type)
      : bytes(a * b * c * d * (type ? 2 : 4)), count(a * b * c * d), dtype(type) {
    tensor = {bytes.data(), {b * c * d, c * d, d}};
    for (int64_t i = 0; i < a * b * c * d; ++i) {
      const float value = static_cast<float>((i * 37 % 101) - 50) / 40.0f;
      if (dtype)
        __builtin_memcpy(&bytes[2 * i], reinterpret_cast<const char*>(&value) + 2, 2);
      else
        __builtin_memcpy(&bytes[4 * i], &value, 4);
    }
  }
  double operator[](int64_t i) const { return number(bytes.data(), i, dtype); }
  void check(const char* what, double tolerance) const {
    g_agreement.check(what, bytes.data(), count, dtype, tolerance, 1.0);  // tensors hold numbers of about 1
  }
};

}  // namespace
