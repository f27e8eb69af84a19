// The caller's threads, and a scratch buffer for each of them.

#pragma once

#include <cstddef>

#include "abi.h"

namespace fermt {

// At least `bytes` of 64-byte aligned memory that belongs to the calling thread until its next call of this
// function; null when there is none to be had. It grows and is kept, so that a steady state allocates nothing.
void* thread_scratch(size_t bytes);

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

}  // namespace fermt
