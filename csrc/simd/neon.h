// NEON's products: multiply-adds take one element of a register as a factor, so a broadcast needs no instruction.

#pragma once

#include "simd/int8.h"
#include "simd/vector.h"

#if defined(FERMT_NEON)

namespace {

// The register's first element is *p. Left to itself, GCC loads all rows' values first and spills a sum, and Clang
// broadcasts each by ld1r, which takes a multiply-add's place on most cores.
template <class Packed>
inline float32x4_t load_element(const Packed* p) {
  static_assert(sizeof(Packed) == 4, "one element");
  float32x4_t element;
  __asm__("ldr %s0, %1" : "=w"(element) : "m"(*p));
  return element;
}

template <int Vectors>
inline void add_products(const float* value, const Vec (&columns)[Vectors], Vec (&sums)[Vectors]) {
  const float32x4_t element = load_element(value);
  FERMT_UNROLL
  for (int c = 0; c < Vectors; ++c)
    sums[c] = (Vec)vfmaq_laneq_f32((float32x4_t)sums[c], (float32x4_t)columns[c], element, 0);
}

template <int Vectors>
inline void add_products(const ByteOperand* value, const VecInt (&columns)[Vectors], VecInt (&sums)[Vectors]) {
  const float32x4_t element = load_element(value);
#if defined(FERMT_DOTPROD)
  FERMT_UNROLL
  for (int c = 0; c < Vectors; ++c)
#if defined(FERMT_I8MM)  // signed bytes of weights by unsigned ones
    sums[c] = (VecInt)vsudotq_laneq_s32((int32x4_t)sums[c], (int8x16_t)columns[c], (uint8x16_t)element, 0);
#else
    sums[c] = (VecInt)vdotq_laneq_s32((int32x4_t)sums[c], (int8x16_t)columns[c], (int8x16_t)element, 0);
#endif
#else
  static_assert(Vectors % 2 == 0, "two vectors of pairs become one of first values and one of second values");
  const int16x8_t pair = (int16x8_t)element;
  FERMT_UNROLL
  for (int c = 0; c < Vectors; c += 2) {
    const int16x8_t a = (int16x8_t)columns[c], b = (int16x8_t)columns[c + 1];
    const int16x8_t first = vuzp1q_s16(a, b), second = vuzp2q_s16(a, b);
    int32x4_t low = (int32x4_t)sums[c], high = (int32x4_t)sums[c + 1];
    low = vmlal_laneq_s16(low, vget_low_s16(first), pair, 0);
    high = vmlal_high_laneq_s16(high, first, pair, 0);
    sums[c] = (VecInt)vmlal_laneq_s16(low, vget_low_s16(second), pair, 1);
    sums[c + 1] = (VecInt)vmlal_high_laneq_s16(high, second, pair, 1);
  }
#endif
}

}  // namespace

#endif
