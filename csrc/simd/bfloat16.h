// Pairs of bfloat16 in 4-byte elements, which vdpbf16ps multiplies and accumulates: sum + a0 b0 + a1 b1, in float.

#pragma once

#include "simd/dtypes.h"
#include "simd/vector.h"

namespace {

using BFloat16Pair = PackedWord<struct PairKind>;

#if defined(__AVX512BF16__)

inline VecInt splat(BFloat16Pair pair) { return static_cast<int32_t>(pair.bits) - VecInt{}; }

typedef uint16_t VecUint16 __attribute__((vector_size(64)));

inline void store(BFloat16Pair* p, VecInt v) { memcpy(p, &v, sizeof v); }

inline void store(BFloat16Pair* p, VecInt v, int64_t count) {  // the first `count`, or all
  _mm512_mask_storeu_epi32(p, count < kLanes ? (1u << count) - 1 : 0xffff, (__m512i)v);
}

inline Vec multiply_add(Vec sum, VecInt a, VecInt b) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// Two vectors rounded to bfloat16, concatenated.
inline VecInt to_bfloat16(Vec first, Vec second) { return (VecInt)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

inline void store_vector(Vec v, BFloat16* p) {
  const __m256bh halves = _mm512_cvtneps_pbh((__m512)v);
  memcpy(p, &halves, sizeof halves);
}

// Two vectors rounded to bfloat16, interleaved lane by lane.
inline VecInt to_bfloat16_pairs(Vec even, Vec odd) {
  constexpr VecUint16 kInterleaved = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (VecInt)_mm512_maskz_permutexvar_epi16(~0u, (__m512i)kInterleaved, (__m512i)to_bfloat16(even, odd));
}

// Two rows of 32 values, interleaved value by value.
inline void interleave(VecInt even, VecInt odd, BFloat16Pair* to) {
  constexpr VecUint16 kLower = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  store(to, (VecInt)_mm512_permutex2var_epi16((__m512i)even, (__m512i)kLower, (__m512i)odd));
  store(to + kLanes, (VecInt)_mm512_permutex2var_epi16((__m512i)even, (__m512i)(kLower + 16), (__m512i)odd));
}

// Up to 32 values of a row, the rest 0; and up to 16, each zero-extended to 4 bytes.
inline VecInt load_bfloat16(const BFloat16* from, int64_t count) {
  return (VecInt)_mm512_maskz_loadu_epi16(count < 2 * kLanes ? (1u << count) - 1 : ~0u, from);
}

inline VecInt load_bfloat16_wide(const BFloat16* from, int64_t count) {
  return (VecInt)_mm512_maskz_cvtepu16_epi32(
      0xffff, _mm256_maskz_loadu_epi16(count < kLanes ? (1u << count) - 1 : 0xffff, from));
}

inline Vec load_vector(const BFloat16* from) { return (Vec)(load_bfloat16_wide(from, kLanes) << 16); }

#endif

// The first and the second value of each of a vector of pairs.
struct Floats {
  Vec first, second;
};
inline Floats widened(const BFloat16Pair* pairs) {
  const VecInt bits = load(pairs);
  return {(Vec)(bits << 16), (Vec)(bits & static_cast<int32_t>(0xffff0000))};
}

}  // namespace
