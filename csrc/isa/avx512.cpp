// 512-bit vectors.

#define FERMT_VECTOR_BYTES 64

#include "attention_kernel.h"
#include "cpu.h"

namespace {

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

}  // namespace

const fermt::KernelTable fermt::kAvx512Table = {"avx512", supported, attention_forward};
