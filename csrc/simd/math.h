// Vectors of elementary functions: powers of two, logarithms, erfc and GELU.

#pragma once

#include "simd/vector.h"

namespace {

constexpr float kMagicBias = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits

// x rounded to the nearest integer, |x| < 2^22; and p times 2^n for an integer n.
#if FERMT_VECTOR_BYTES == 64
inline Vec round_to_nearest(Vec x) {
  return (Vec)_mm512_mask_roundscale_ps((__m512)x, 0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec times_power_of_two(Vec p, Vec n) {
  return (Vec)_mm512_mask_scalef_ps((__m512)p, 0xffff, (__m512)p, (__m512)n);
}
#else
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

// The polynomial with `coefficients`, highest power first.
template <int Count>
inline Vec polynomial(const float (&coefficients)[Count], Vec x) {
  Vec p = splat(coefficients[0]);
  for (int i = 1; i < Count; ++i) p = p * x + coefficients[i];
  return p;
}

// 2^(n + r).
template <int Count>
inline Vec exp2_of_parts(const float (&coefficients)[Count], Vec n, Vec r) {
  return times_power_of_two(polynomial(coefficients, r), n);
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

inline Vec absolute(Vec x) {
  VecInt bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffff;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^x for x in [-125, 127], by a sum of exponents; what it makes of NaN may be a number.
template <int Count>
inline Vec exp2_in_range(const float (&coefficients)[Count], Vec x) {
  const Vec shifted = x + kMagicBias;
  Vec p = polynomial(coefficients, x - (shifted - kMagicBias));
  VecInt exponent, bits;
  memcpy(&exponent, &shifted, sizeof exponent);
  memcpy(&bits, &p, sizeof bits);
  bits += exponent << 23;
  memcpy(&p, &bits, sizeof p);
  return p;
}

// GELU is max(x, 0) - t erfc(t / sqrt(2)) / 2 with t = |x|, which does not cancel. From t = 10 on the second term is
// clamped, to less than 3e-15, lest a large x make it large again. NaN is left to the first term.
constexpr float kGeluTail = 10.0f;
inline Vec gelu_tail(Vec x) { return min(splat(kGeluTail), absolute(x)); }

// max(x, 0), but NaN for -inf, as PyTorch's GELU is there.
inline Vec gelu_ramp(Vec x) { return x > 0.0f ? x : 0.0f * x; }

// erfc(t / sqrt(2)) / 2 for 0 <= t <= kGeluTail as 2^(-t q(t) - 1): with q of degree 8 GELU's error stays below 3e-8,
// with degree 3, for results that are rounded to bfloat16, below 3e-5.
constexpr float kErfcDegree8[] = {-3.24896392e-07f, 6.81495623e-06f, -5.85353143e-05f, 0.000232041561f, 8.08169284e-05f,
                                  -0.00703329836f,  0.0524957265f,   0.459203261f,     1.15110628f};
constexpr float kErfcDegree3[] = {-0.00416142f, 0.0457346f, 0.464931020f, 1.14956714f};
inline Vec half_erfc(Vec t) { return exp2_in_range(kExp2Degree6, -t * polynomial(kErfcDegree8, t) - 1.0f); }
inline Vec half_erfc_approx(Vec t) { return exp2_in_range(kExp2Degree3, -t * polynomial(kErfcDegree3, t) - 1.0f); }

inline Vec gelu(Vec x) {
  const Vec t = gelu_tail(x);
  return gelu_ramp(x) - t * half_erfc(t);
}

inline Vec gelu_approx(Vec x) {
  const Vec t = gelu_tail(x);
  return gelu_ramp(x) - t * half_erfc_approx(t);
}

// GELU's derivative, the normal distribution function plus x times its density, from erfc(t / sqrt(2)) / 2 and
// exp(-t^2 / 2). NaN where x is infinite, as PyTorch's is.
inline Vec gelu_slope(Vec x, Vec half, Vec bell) {
  const Vec clamped = max(splat(-kGeluTail), min(splat(kGeluTail), x));
  return (x > 0.0f ? 1.0f - half : half) + clamped * (0.398942280f * bell) + 0.0f * x;
}

constexpr float kBellFactor = -0.721347520f;  // exp(-t^2 / 2) is 2 to the power of this times t^2

// GELU and its derivative.
inline Vec gelu(Vec x, Vec* derivative) {
  const Vec t = gelu_tail(x), half = half_erfc(t);
  *derivative = gelu_slope(x, half, exp2_in_range(kExp2Degree6, t * t * kBellFactor));
  return gelu_ramp(x) - t * half;
}

// The same, and the derivative within 4e-5.
inline Vec gelu_approx(Vec x, Vec* derivative) {
  const Vec t = gelu_tail(x), half = half_erfc_approx(t);
  *derivative = gelu_slope(x, half, exp2_in_range(kExp2Degree3, t * t * kBellFactor));
  return gelu_ramp(x) - t * half;
}

}  // namespace
