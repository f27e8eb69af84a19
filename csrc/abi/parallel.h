// The caller's threads, and a scratch buffer for each of them.

#pragma once

#include <cstddef>

#include "abi/fermt.h"

namespace fermt {

// A thread's two buffers: one for a whole call, which its items read, and one for the item that it is at.
enum ScratchSlot { kCallScratch, kItemScratch };

// At least `bytes` of 64-byte aligned memory that belongs to the calling thread until it next asks for that slot; null
// when there is none to be had. It grows and is kept, so that a steady state allocates nothing.
void* thread_scratch(size_t bytes, ScratchSlot slot);

// Hands out pieces of one allocation, each aligned to a cache line; without a base it counts what they need.
struct Carver {
  char* base = nullptr;
  size_t used = 0;

  char* bytes(size_t count) {
    char* piece = base ? base + used : nullptr;
    used += (count + 63) / 64 * 64;
    return piece;
  }
  float* floats(int64_t count) { return reinterpret_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }
  double* doubles(int64_t count) { return reinterpret_cast<double*>(floats(2 * count)); }
};

// Calls body(begin, end) over disjoint chunks of [0, count). The chunks depend on the threads, so a body must give
// each index the same result wherever its chunk begins.
template <class Body>
fermt_status parallel_for(fermt_parallel_for run, int64_t count, Body& body) {
  const fermt_parallel_body chunk = [](int64_t begin, int64_t end, void* context) {
    (*static_cast<Body*>(context))(begin, end);
  };
  if (count <= 0) return FERMT_OK;
  if (run && count > 1) return run(0, count, 1, chunk, &body) == 0 ? FERMT_OK : FERMT_THREADS_FAILED;
  chunk(0, count, &body);
  return FERMT_OK;
}

// Calls item(index), which returns a status, for every index in [0, count); the result is a failure if there was one.
template <class Item>
fermt_status run_items(fermt_parallel_for run, int64_t count, Item&& item) {
  int32_t failed = FERMT_OK;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index)
      if (const fermt_status status = item(index))
        __atomic_store_n(&failed, static_cast<int32_t>(status), __ATOMIC_RELAXED);
  };
  const fermt_status status = parallel_for(run, count, body);
  return status ? status : static_cast<fermt_status>(failed);
}

}  // namespace fermt
