// bfloat16 and float16 in memory, and their conversion from and to float.

#pragma once

#include <string.h>

#include "abi/fermt.h"
#include "simd/vector.h"

namespace {

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

inline void from_float(float x, BFloat16* to) {  // to nearest, ties to even; NaN stays NaN
  const uint32_t bits = as_bits(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : rounded);
}

inline void from_float(float x, Float16* to) {  // to nearest, ties to even; from 65520 on it is infinite
  const uint32_t bits = as_bits(x), magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t denormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000;  // 0.5's last bit is worth 2^-24
  const uint32_t overflow = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t small = magnitude < 0x38800000 ? denormal : normal;
  to->bits = static_cast<uint16_t>(((bits >> 16) & 0x8000) | (magnitude >= 0x477ff000 ? overflow : small));
}

// Calls body with a value of the type that `dtype` names.
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

// A vector of values of any type; simd/bfloat16.h has faster ones for bfloat16 where the instruction set does.
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

}  // namespace
