// Vectors of elementary functions: powers of two, logarithms, erfc and GELU.

#pragma once

#include "simd/vector.h"

namespace {

// x rounded to the nearest integer, |x| < 2^22; and p times 2^n for an integer n.
#if FERMT_VECTOR_BYTES == 64
inline Vec round_to_nearest(Vec x) {
  return (Vec)_mm512_mask_roundscale_ps((__m512)x, 0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec times_power_of_two(Vec p, Vec n) {
  return (Vec)_mm512_mask_scalef_ps((__m512)p, 0xffff, (__m512)p, (__m512)n);
}
#else
constexpr float kMagicBias = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
inline Vec round_to_nearest(Vec x) { return (x + kMagicBias) - kMagicBias; }
inline Vec times_power_of_two(Vec p, Vec n) {
  const Vec shifted = n + kMagicBias;
  VecInt bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000;
  Vec power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}
#endif

// Minimax fits of 2^r with 2^0 = 1, |r| <= 1/2, highest power first; their relative errors are 1e-4, 9e-8 and 2e-9.
constexpr float kExp2Degree3[] = {0.0550090578f, 0.242210975f, 0.693282898f, 1.0f};
constexpr float kExp2Degree5[] = {0.00132647238f, 0.00967151299f, 0.0555073358f, 0.240222424f, 0.693147004f, 1.0f};
constexpr float kExp2Degree6[] = {
    0.000153531961f, 0.00133988727f, 0.00961843785f, 0.0555033237f, 0.240226477f, 0.693147182f, 1.0f};

// 2^(n + r).
template <int Count>
inline Vec exp2_of_parts(const float (&coefficients)[Count], Vec n, Vec r) {
  Vec p = splat(coefficients[0]);
  for (int i = 1; i < Count; ++i) p = p * r + coefficients[i];
  return times_power_of_two(p, n);
}

// 2^x for x <= 0 or a little above; below -126 it gives 2^-126, and NaN stays NaN. x = n + r, n an integer, |r| <= 1/2.
template <int Count>
inline Vec exp2_poly(const float (&coefficients)[Count], Vec x) {
  x = max(splat(-126.0f), x);
  const Vec n = round_to_nearest(x);
  return exp2_of_parts(coefficients, n, x - n);
}

inline Vec exp2_nonpositive(Vec x) { return exp2_poly(kExp2Degree6, x); }  // within 8e-8 of the value
inline Vec exp2_of_score(Vec x) { return exp2_poly(kExp2Degree5, x); }  // within 1.7e-7: a soft-max divides it by a sum

// exp2_of_score of x times `factor`, which lies in [-126, 127] and needs no clamp.
inline Vec exp2_of_bounded_score(Vec x, Vec factor) {
  const Vec n = round_to_nearest(x * factor);
  return exp2_of_parts(kExp2Degree5, n, x * factor - n);
}

// log2 of x >= 1 in two parts, an integer and a fraction within [-0.42, 0.59], whose sum in double keeps the fraction's
// digits. With z = (m - 1) / (m + 1) the fraction is the series of atanh; NaN and infinity come out in it.
inline void log2_in_parts(Vec x, Vec* integer, Vec* fraction) {
  VecInt bits;
  memcpy(&bits, &x, sizeof bits);
  const VecInt exponent = (bits - 0x3f400000) >> 23;  // so that the mantissa m lies in [3/4, 3/2)
  const VecInt mantissa_bits = bits - (exponent << 23);
  Vec m;
  memcpy(&m, &mantissa_bits, sizeof m);
  const Vec z = (m - 1.0f) / (m + 1.0f), square = z * z;
  Vec p = splat(0.320598898f);
  p = p * square + 0.412198583f;
  p = p * square + 0.577078016f;
  p = p * square + 0.961796694f;
  p = p * square + 2.88539008f;
  *integer = __builtin_convertvector(exponent, Vec);
  *fraction = x - x + z * p;
}

// erfc(t / sqrt(2)) for 0 <= t <= kGeluTail, as 2^(-t q(t)) with q of degree 8, fitted so that GELU's error stays below
// 3e-8.
inline Vec erfc_over_sqrt2(Vec t) {
  Vec q = splat(-3.24896392e-07f);
  q = q * t + 6.81495623e-06f;
  q = q * t - 5.85353143e-05f;
  q = q * t + 0.000232041561f;
  q = q * t + 8.08169284e-05f;
  q = q * t - 0.00703329836f;
  q = q * t + 0.0524957265f;
  q = q * t + 0.459203261f;
  q = q * t + 1.15110628f;
  return exp2_nonpositive(-t * q);
}

inline Vec absolute(Vec x) {
  VecInt bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffff;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// GELU is max(x, 0) - t erfc(t / sqrt(2)) / 2 with t = |x|, which does not cancel. From t = 10 on the second term is
// clamped, to less than 3e-15, lest a large x make it large again.
constexpr float kGeluTail = 10.0f;
inline Vec gelu_tail(Vec x) { return min(splat(kGeluTail), absolute(x)); }

// max(x, 0), but NaN for -inf, as PyTorch's GELU is there.
inline Vec gelu_ramp(Vec x) { return x > 0.0f ? x : 0.0f * x; }

// The exact GELU.
inline Vec gelu(Vec x) {
  const Vec t = gelu_tail(x);
  return gelu_ramp(x) - 0.5f * t * erfc_over_sqrt2(t);
}

// erfc(t / sqrt(2)) for results that are rounded to bfloat16; q is of degree 3.
inline Vec erfc_over_sqrt2_approx(Vec t) {
  Vec q = splat(-0.00416142f);
  q = q * t + 0.0457346f;
  q = q * t + 0.464931020f;
  q = q * t + 1.14956714f;
  return exp2_poly(kExp2Degree3, -t * q);
}

// GELU within 3e-5, for results that are rounded to bfloat16.
inline Vec gelu_approx(Vec x) {
  const Vec t = gelu_tail(x);
  return gelu_ramp(x) - 0.5f * t * erfc_over_sqrt2_approx(t);
}

// GELU's derivative, the normal distribution function plus x times its density, from erfc(t / sqrt(2)) / 2 and
// exp(-t^2 / 2). NaN where x is infinite, as PyTorch's is.
inline Vec gelu_slope(Vec x, Vec half, Vec bell) {
  const Vec clamped = max(splat(-kGeluTail), min(splat(kGeluTail), x));
  return (x > 0.0f ? 1.0f - half : half) + clamped * (0.398942280f * bell) + 0.0f * x;
}

// The same, and its derivative within 4e-5.
inline Vec gelu_approx(Vec x, Vec* derivative) {
  const Vec t = gelu_tail(x), half = 0.5f * erfc_over_sqrt2_approx(t);
  *derivative = gelu_slope(x, half, exp2_poly(kExp2Degree3, t * t * -0.721347520f));
  return gelu_ramp(x) - t * half;
}

// The exact GELU and its derivative.
inline Vec gelu(Vec x, Vec* derivative) {
  const Vec t = gelu_tail(x), half = 0.5f * erfc_over_sqrt2(t);
  *derivative = gelu_slope(x, half, exp2_nonpositive(t * t * -0.721347520f));
  return gelu_ramp(x) - t * half;
}

}  // namespace
