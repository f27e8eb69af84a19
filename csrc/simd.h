// Vec: a float vector as wide as the row's registers, in the compiler's own vector types, so that the bodies are
// written once for every instruction set. The including file sets FERMT_VECTOR_BYTES.
//
// Everything here is in an anonymous namespace: each instruction set keeps its own copy, whatever the linker does.

#pragma once

#include <stdint.h>
#include <string.h>

namespace {

constexpr int kLanes = FERMT_VECTOR_BYTES / 4;
typedef float Vec __attribute__((vector_size(FERMT_VECTOR_BYTES)));
typedef int32_t VecInt __attribute__((vector_size(FERMT_VECTOR_BYTES)));

inline Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

inline Vec splat(float x) { return x - Vec{}; }

inline VecInt splat_int(int32_t x) { return x - VecInt{}; }

// The larger of each lane; where a lane of a or b is NaN the result is b's, as maxps has it.
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// 2^x for x <= 0, within 1e-7 of the value; below -126 it gives 2^-126, and NaN stays NaN.
// x = n + r with n whole and |r| <= 1/2; the polynomial is the degree-6 minimax fit of 2^r.
inline Vec exp2_nonpositive(Vec x) {
  x = max(splat(-126.0f), x);
  const Vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number in the low mantissa bits
  const Vec shifted = x + shifter;
  const Vec r = x - (shifted - shifter);
  Vec p = splat(0.000153533621f);
  p = p * r + splat(0.00133988746f);
  p = p * r + splat(0.00961843736f);
  p = p * r + splat(0.0555033247f);
  p = p * r + splat(0.240226479f);
  p = p * r + splat(0.693147203f);
  p = p * r + splat(1.0f);
  VecInt bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + splat_int(0x3f800000);
  Vec power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

}  // namespace
