#include "parallel.h"

#include <cstdlib>

namespace fermt {
namespace {

struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
  ~Scratch() { std::free(data); }
};

thread_local Scratch t_scratch;

}  // namespace

void* thread_scratch(size_t bytes) {
  Scratch& scratch = t_scratch;
  if (scratch.bytes < bytes) {
    std::free(scratch.data);
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    scratch.data = std::aligned_alloc(64, rounded);
    scratch.bytes = scratch.data ? rounded : 0;
  }
  return scratch.data;
}

}  // namespace fermt
