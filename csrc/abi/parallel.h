// Parallel loops on the caller's threads, and scratch memory of each thread.

#pragma once

#include <cstddef>

#include "abi/fermt.h"

namespace fermt {

// A thread's two buffers: one for a whole call, which its work items read, and one for the current work item.
enum ScratchSlot { kCallScratch, kItemScratch };

// At least `bytes` of 64-byte aligned memory, valid until the calling thread next asks for the same slot; null if out
// of memory. A slot's buffer grows and is reused, so that a steady state allocates nothing.
void* thread_scratch(size_t bytes, ScratchSlot slot);

// Calls body(begin, end) over disjoint chunks of [0, count). Chunks depend on the number of threads, so an index's
// result must not depend on where its chunk begins.
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

// Calls item(index), which returns a status, for each index in [0, count); returns a failed status if there was one.
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
