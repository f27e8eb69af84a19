#include "abi/parallel.h"

#include <cstdlib>

namespace fermt {
namespace {

struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
  ~Scratch() { std::free(data); }
};

thread_local Scratch t_scratch[2];

}  // namespace

void* thread_scratch(size_t bytes, ScratchSlot slot) {
  Scratch& scratch = t_scratch[slot];
#if defined(__SANITIZE_ADDRESS__)
  const size_t rounded = (bytes / 64 + 1) * 64;  // a new one each time, with nothing to spare
  const bool grow = true;
#else
  const size_t rounded = (bytes / 4096 + 1) * 4096;
  const bool grow = scratch.bytes < rounded;
#endif
  if (grow) {
    std::free(scratch.data);
    scratch.data = std::aligned_alloc(64, rounded);
    scratch.bytes = scratch.data ? rounded : 0;
  }
  return scratch.data;
}

}  // namespace fermt
