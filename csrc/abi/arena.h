// Layout of scratch memory and workspaces.

#pragma once

#include <stddef.h>
#include <stdint.h>

namespace {

// Bump allocator over one block of memory, aligned to cache lines; without a base it only counts the bytes needed.
struct Arena {
  char* base = nullptr;
  size_t used = 0;

  char* bytes(size_t count) {
    char* allocated = base ? base + used : nullptr;
    used += (count + 63) / 64 * 64;
    return allocated;
  }
  float* floats(int64_t count) { return reinterpret_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }
  double* doubles(int64_t count) { return reinterpret_cast<double*>(floats(2 * count)); }
};

}  // namespace
