// Multiply-adds that wait for nothing: the peak that a frame's speed is a fraction of.

#include "abi/parallel.h"
#include "isa/kernel_table.h"
#include "simd/bfloat16.h"
#include "simd/vector.h"

namespace {

// Each sum is a factor of its next product and starts from its own number, lest a compiler see that some are the same.
template <class Operand>
inline void multiply_add_rounds(int64_t iterations, Operand factor, float* result) {
  Vec sums[kAccumulators];
  const Vec zero = (Vec)factor;
  for (int j = 0; j < kAccumulators; ++j) sums[j] = zero * static_cast<float>(j);
  for (int64_t i = 0; i < iterations; ++i) {
    FERMT_UNROLL
    for (int j = 0; j < kAccumulators; ++j) sums[j] = multiply_add(zero, factor, (Operand)sums[j]);
  }
  Vec total = {};
  for (int j = 0; j < kAccumulators; ++j) total += sums[j];
  *result = sum_of_lanes(total);
}

}  // namespace

fermt_status fermt::FERMT_ISA::fma_peak(fermt_fma_peak_args* args) {
  const bool pairs = args->dtype == FERMT_BFLOAT16;
  auto chunk = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      volatile float seed = 0.0f;  // so that nothing is known of the operands
      float result;
      const Vec value = splat(seed);
      if (pairs)
        multiply_add_rounds(args->iterations, (VecInt)value, &result);
      else
        multiply_add_rounds(args->iterations, value, &result);
      seed = result;
    }
  };
  args->operations = args->threads * args->iterations * kAccumulators * kLanes * (pairs ? 4 : 2);
  return fermt::parallel_for(args->parallel_for, args->threads, chunk);
}
