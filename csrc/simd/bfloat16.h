// Two bfloat16 in a 32-bit word, which vdpbf16ps multiplies and adds in one go: sum + a0 b0 + a1 b1, in float.

#pragma once

#include "simd/vector.h"

namespace {

using BFloat16Pair = PackedWord<struct PairKind>;

inline VecInt splat(BFloat16Pair pair) { return static_cast<int32_t>(pair.bits) - VecInt{}; }

#if defined(__AVX512BF16__)

typedef uint16_t Halves __attribute__((vector_size(64)));

inline void store(BFloat16Pair* p, VecInt v) { memcpy(p, &v, sizeof v); }

inline void store(BFloat16Pair* p, VecInt v, int64_t count) {  // the first `count` of them, or all
  _mm512_mask_storeu_epi32(p, count < kLanes ? (1u << count) - 1 : 0xffff, (__m512i)v);
}

inline Vec multiply_add(Vec sum, VecInt a, VecInt b) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// Two vectors rounded to bfloat16, one after the other.
inline VecInt narrow(Vec first, Vec second) { return (VecInt)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

inline void store_vector(Vec v, BFloat16* p) {
  const __m256bh halves = _mm512_cvtneps_pbh((__m512)v);
  memcpy(p, &halves, sizeof halves);
}

// Two vectors rounded, lane by lane in pairs.
inline VecInt narrow_in_pairs(Vec even, Vec odd) {
  constexpr Halves kLaneByLane = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (VecInt)_mm512_maskz_permutexvar_epi16(~0u, (__m512i)kLaneByLane, (__m512i)narrow(even, odd));
}

// Two rows' 32 values each, value by value in pairs.
inline void interleave(VecInt even, VecInt odd, BFloat16Pair* to) {
  constexpr Halves kLower = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                             8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  store(to, (VecInt)_mm512_permutex2var_epi16((__m512i)even, (__m512i)kLower, (__m512i)odd));
  store(to + kLanes, (VecInt)_mm512_permutex2var_epi16((__m512i)even, (__m512i)(kLower + 16), (__m512i)odd));
}

// Up to 32 values of a row, the rest 0; and up to 16, each in a word of its own.
inline VecInt load_values(const BFloat16* from, int64_t count) {
  return (VecInt)_mm512_maskz_loadu_epi16(count < 2 * kLanes ? (1u << count) - 1 : ~0u, from);
}

inline VecInt load_wide(const BFloat16* from, int64_t count) {
  return (VecInt)_mm512_maskz_cvtepu16_epi32(
      0xffff, _mm256_maskz_loadu_epi16(count < kLanes ? (1u << count) - 1 : 0xffff, from));
}

inline Vec load_vector(const BFloat16* from) { return (Vec)(load_wide(from, kLanes) << 16); }

#else

// The same from two products of floats.
inline Vec multiply_add(Vec sum, VecInt a, VecInt b) {
  const VecInt even_a = a << 16, even_b = b << 16, odd_a = a & static_cast<int32_t>(0xffff0000),
               odd_b = b & static_cast<int32_t>(0xffff0000);
  return sum + (Vec)even_a * (Vec)even_b + (Vec)odd_a * (Vec)odd_b;
}

#endif

}  // namespace
