// 512-bit vectors.

#define FERMT_VECTOR_BYTES 64

#include "attention_backward_kernel.h"
#include "attention_forward_kernel.h"
#include "cpu.h"
#include "dual_attention_unit_backward_kernel.h"
#include "dual_attention_unit_forward_kernel.h"
#include "frame_kernel.h"
#include "linear_kernel.h"
#include "peak_kernel.h"

namespace {

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

const fermt::KernelTable fermt::kAvx512Table = {"avx512",
                                                supported,
                                                attention_forward,
                                                attention_backward,
                                                dual_attention_unit_forward,
                                                dual_attention_unit_backward,
                                                linear_forward,
                                                linear_backward,
                                                frame_info,
                                                encode_template,
                                                track_frame,
                                                fma_peak};
