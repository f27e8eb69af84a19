// Peak throughput of multiply-adds, as a yardstick for kernels.

#include "abi/parallel.h"
#include "gemm/tiles.h"
#include "isa/kernel_table.h"
#include "simd/bfloat16.h"
#include "simd/vector.h"

namespace {

// Each sum is a factor of its next product and starts from its own value, so that the compiler cannot merge them.
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

// FLOP of an iteration on pairs of bfloat16: four products of full tiles by AMX, or as many vectors as of floats.
constexpr int64_t kPairFlop = kTiled<BFloat16Pair> ? 4 * 16 * 16 * 32 * 2 : kAccumulators * kLanes * 4;

inline void pair_rounds(int64_t iterations, Vec value, float* result) {
#if defined(__AMX_TILE__)
  (void)value;
  const TileScope tiles;
  alignas(64) float sums[2 * kTileSide * 2 * kTileSide] = {};
  TileBlock<2, 2>::clear();
  tile_load<4>(sums, 64);
  tile_load<5>(sums, 64);
  tile_load<6>(sums, 64);
  for (int64_t i = 0; i < iterations; ++i) {
    tile_multiply_add<0, 4, 6>(BFloat16Pair{});
    tile_multiply_add<1, 5, 6>(BFloat16Pair{});
    tile_multiply_add<2, 4, 6>(BFloat16Pair{});
    tile_multiply_add<3, 5, 6>(BFloat16Pair{});
  }
  TileBlock<2, 2>::store(sums);
  *result = sums[0];
#else
  multiply_add_rounds(iterations, (VecInt)value, result);
#endif
}

}  // namespace

fermt_status fermt::FERMT_ISA::fma_peak(fermt_fma_peak_args* args) {
  const bool pairs = args->dtype == FERMT_BFLOAT16;
  auto chunk = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      volatile float seed = 0.0f;  // hides the operands' values from the compiler
      float result;
      const Vec value = splat(seed);
      if (pairs)
        pair_rounds(args->iterations, value, &result);
      else
        multiply_add_rounds(args->iterations, value, &result);
      seed = result;
    }
  };
  args->operations = args->threads * args->iterations * (pairs ? kPairFlop : kAccumulators * kLanes * 2);
  return fermt::parallel_for(args->parallel_for, args->threads, chunk);
}
