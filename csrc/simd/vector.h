// Vec: a float vector as wide as the row's registers, in the compiler's own vector types, so that the bodies are
// written once for every instruction set.
//
// Everything here is in an anonymous namespace: each instruction set keeps its own copy, whatever the linker does.

#pragma once

#include <stdint.h>
#include <string.h>

#include "abi/fermt.h"

#if defined(__AVX512F__)
#define FERMT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FERMT_VECTOR_BYTES 32
#else
#define FERMT_VECTOR_BYTES 16
#endif
#if FERMT_VECTOR_BYTES >= 32
#include <immintrin.h>
#endif

// Before a loop over registers: left to itself GCC sometimes keeps an array of them in memory. And before one whose
// body is long: unrolled, it costs more to compile than it saves.
#if defined(__clang__)
#define FERMT_UNROLL _Pragma("clang loop unroll(full)")
#define FERMT_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define FERMT_UNROLL _Pragma("GCC unroll 16")
#define FERMT_ROLLED _Pragma("GCC unroll 1")
#endif

// Keeps the compiler from seeing where a pointer comes from: it would hold one for each of many loads.
#define FERMT_HIDE(pointer) __asm__("" : "+r"(pointer))

namespace {

constexpr int kLanes = FERMT_VECTOR_BYTES / 4;
constexpr int kAccumulators = FERMT_VECTOR_BYTES == 64 ? 16 : 8;  // that fit the registers beside their operands
typedef float Vec __attribute__((vector_size(FERMT_VECTOR_BYTES)));
typedef int32_t VecInt __attribute__((vector_size(FERMT_VECTOR_BYTES)));

inline Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

// A 4-byte word of several smaller values, in which their rows are read whatever they were stored as.
template <class Kind>
struct __attribute__((may_alias)) PackedWord {
  uint32_t bits;
};

template <class Kind>
inline VecInt load(const PackedWord<Kind>* p) {
  VecInt v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

inline Vec splat(float x) { return x - Vec{}; }

inline Vec multiply_add(Vec sum, Vec a, Vec b) { return sum + a * b; }

// The larger of each lane; where a lane of a or b is NaN the result is b's, as maxps has it. GCC makes a comparison and
// a blend of the plain form; the masks, with all lanes on, keep GCC 12 from warning of its own header.
#if FERMT_VECTOR_BYTES == 64
inline Vec max(Vec a, Vec b) { return (Vec)_mm512_mask_max_ps((__m512)a, 0xffff, (__m512)a, (__m512)b); }
inline Vec min(Vec a, Vec b) { return (Vec)_mm512_mask_min_ps((__m512)a, 0xffff, (__m512)a, (__m512)b); }
#elif FERMT_VECTOR_BYTES == 32
inline Vec max(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
inline Vec min(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif

// Slot i of an array of vectors += value.
inline void add_to(float* slots, int64_t i, Vec value) { store(slots + i * kLanes, load(slots + i * kLanes) + value); }

// v with each lane that of `Step` further on, around the end.
template <int Step>
inline Vec rotated(Vec v) {
  VecInt from{};
  for (int lane = 0; lane < kLanes; ++lane) from[lane] = (lane + Step) % kLanes;
#if defined(__clang__)
  Vec result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = v[from[lane]];
  return result;
#else
  return __builtin_shuffle(v, from);
#endif
}

// Halves first: lane i and i + kLanes / 2, then quarters, and so on.
template <int Step = kLanes / 2>
inline float sum_of_lanes(Vec v) {
  if constexpr (Step == 0)
    return v[0];
  else
    return sum_of_lanes<Step / 2>(v + rotated<Step>(v));
}

// Transposes kLanes rows of kLanes floats in registers: log2(kLanes) rounds, each swapping blocks twice the size.
template <int Step>
inline void transpose_round(Vec (&rows)[kLanes]) {
  if constexpr (Step < kLanes) {
    VecInt upper{}, lower{};
    for (int lane = 0; lane < kLanes; ++lane) {
      upper[lane] = lane & Step ? kLanes + lane - Step : lane;
      lower[lane] = lane & Step ? kLanes + lane : lane + Step;
    }
    for (int i = 0; i < kLanes; ++i) {
      if (i & Step) continue;
      const Vec a = rows[i], b = rows[i + Step];
#if defined(__clang__)
      for (int lane = 0; lane < kLanes; ++lane) {
        rows[i][lane] = lane & Step ? b[lane - Step] : a[lane];
        rows[i + Step][lane] = lane & Step ? b[lane] : a[lane + Step];
      }
#else
      rows[i] = __builtin_shuffle(a, b, upper);
      rows[i + Step] = __builtin_shuffle(a, b, lower);
#endif
    }
    transpose_round<2 * Step>(rows);
  }
}

inline void transpose(Vec (&rows)[kLanes]) { transpose_round<1>(rows); }

// The nearest whole number n to x, |x| < 2^22, and 2^n times p.
#if FERMT_VECTOR_BYTES == 64
inline Vec round_to_whole(Vec x) {
  return (Vec)_mm512_mask_roundscale_ps((__m512)x, 0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec times_power_of_two(Vec p, Vec n) {
  return (Vec)_mm512_mask_scalef_ps((__m512)p, 0xffff, (__m512)p, (__m512)n);
}
#else
constexpr float kShifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low mantissa bits
inline Vec round_to_whole(Vec x) { return (x + kShifter) - kShifter; }
inline Vec times_power_of_two(Vec p, Vec n) {
  const Vec shifted = n + kShifter;
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

// 2^x for x <= 0 or a little above; below -126 it gives 2^-126, and NaN stays NaN. x = n + r with n whole, |r| <= 1/2.
template <int Count>
inline Vec exp2_by(const float (&coefficients)[Count], Vec x) {
  x = max(splat(-126.0f), x);
  const Vec n = round_to_whole(x);
  const Vec r = x - n;
  Vec p = splat(coefficients[0]);
  for (int i = 1; i < Count; ++i) p = p * r + coefficients[i];
  return times_power_of_two(p, n);
}

inline Vec exp2_nonpositive(Vec x) { return exp2_by(kExp2Degree6, x); }  // within 8e-8 of the value
inline Vec exp2_of_score(Vec x) { return exp2_by(kExp2Degree5, x); }  // within 1.7e-7: a soft-max divides it by a sum

// log2 of x >= 1 in two parts, a whole number and a rest within [-0.42, 0.59]: exact sums of them keep the rest's
// digits. With z = (m - 1) / (m + 1) the rest is the series of atanh; NaN and infinity come out in the rest.
inline void log2_in_parts(Vec x, Vec* whole, Vec* rest) {
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
  *whole = __builtin_convertvector(exponent, Vec);
  *rest = x - x + z * p;
}

// erfc(t / sqrt(2)) for t = |x|: twice the normal distribution's tail. Through 2^(-t q(t)), q of degree 8 fitted so
// that GELU's error stays below 3e-8; past t = 10 it is below 1e-30 and held there.
inline Vec two_tails(Vec t) {
  t = min(splat(10.0f), t);
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

// x times the normal distribution function: max(x, 0) less half of |x| erfc(|x| / sqrt(2)), without cancellation.
inline Vec gelu(Vec x) {
  const Vec t = absolute(x);
  return max(x, Vec{}) - 0.5f * t * two_tails(t);
}

// two_tails(t) for what will be rounded to bfloat16, q of degree 3.
inline Vec two_tails_roughly(Vec t) {
  t = min(splat(10.0f), t);
  Vec q = splat(-0.00416142f);
  q = q * t + 0.0457346f;
  q = q * t + 0.464931020f;
  q = q * t + 1.14956714f;
  return exp2_by(kExp2Degree3, -t * q);
}

// gelu(x) within 3e-5, for what will be rounded to bfloat16.
inline Vec gelu_roughly(Vec x) {
  const Vec t = absolute(x);
  return max(x, Vec{}) - 0.5f * t * two_tails_roughly(t);
}

// The same as gelu_roughly(x), and its derivative within 4e-5.
inline Vec gelu_roughly(Vec x, Vec* derivative) {
  const Vec t = absolute(x);
  const Vec half = 0.5f * two_tails_roughly(t);
  *derivative = (x > 0.0f ? 1.0f - half : half) +
                x * (0.398942280f * exp2_by(kExp2Degree3, min(splat(100.0f), x * x) * -0.721347520f));
  return max(x, Vec{}) - t * half;
}

// The same as gelu(x), and its derivative: distribution function plus x times density.
inline Vec gelu(Vec x, Vec* derivative) {
  const Vec t = absolute(x), half = 0.5f * two_tails(t);
  const Vec below = x > 0.0f ? 1.0f - half : half;
  *derivative = below + x * (0.398942280f * exp2_nonpositive(max(splat(-126.0f), x * x * -0.721347520f)));
  return max(x, Vec{}) - t * half;
}

// Numbers as they lie in memory.
struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

inline float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float to_float(float x) { return x; }

inline float to_float(BFloat16 x) { return as_float(static_cast<uint32_t>(x.bits) << 16); }

inline float to_float(Float16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = (x.bits & 0x7fffu) << 13;
  const uint32_t finite = as_bits(as_float(magnitude) * as_float(0x77800000));  // times 2^112, denormals too
  return as_float(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite));
}

inline void from_float(float x, float* to) { *to = x; }

inline void from_float(float x, BFloat16* to) {  // to the nearest, ties to even; NaN stays NaN
  const uint32_t bits = as_bits(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : rounded);
}

inline void from_float(float x, Float16* to) {  // the same; past 65504 and a half it is infinite
  const uint32_t bits = as_bits(x), magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t denormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000;  // 0.5's last bit is worth 2^-24
  const uint32_t beyond = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t small = magnitude < 0x38800000 ? denormal : normal;
  to->bits = static_cast<uint16_t>(((bits >> 16) & 0x8000) | (magnitude >= 0x477ff000 ? beyond : small));
}

// body(a value of the type that `dtype` names): what a kernel is instantiated for.
template <class Body>
inline fermt_status for_dtype(int64_t dtype, Body&& body) {
  if (dtype == FERMT_FLOAT32) return body(float{});
  if (dtype == FERMT_BFLOAT16) return body(BFloat16{});
  return body(Float16{});
}

template <class T>
inline void row_to_float(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

template <class T>
inline void row_from_float(const float* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) from_float(from[i], to + i);
}

// A vector of values in any type; bfloat16_pair.h has faster ones for bfloat16 where the instruction set does.
inline Vec load_vector(const float* p) { return load(p); }

template <class T>
inline Vec load_vector(const T* p) {
  float lanes[kLanes];
  row_to_float(p, kLanes, lanes);
  return load(lanes);
}

inline void store_vector(Vec v, float* p) { store(p, v); }

template <class T>
inline void store_vector(Vec v, T* p) {
  float lanes[kLanes];
  store(lanes, v);
  row_from_float(lanes, kLanes, p);
}

template <class T>
inline T* at(const fermt_tensor& tensor, int64_t i, int64_t j, int64_t k) {
  return static_cast<T*>(tensor.data) + i * tensor.strides[0] + j * tensor.strides[1] + k * tensor.strides[2];
}

constexpr int64_t round_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

}  // namespace
