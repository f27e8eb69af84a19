// Quads of bytes in 4-byte elements: unsigned activations times signed weights, accumulated in int32.

#pragma once

#include "simd/dtypes.h"
#include "simd/math.h"
#include "simd/vector.h"

namespace {

using Int8Quad = PackedWord<struct QuadKind>;

// A type of its own beside VecInt, so that multiply_add knows activations from weights.
struct QuadVec {
  VecInt bytes;
};

inline QuadVec splat(Int8Quad quad) { return {static_cast<int32_t>(quad.bits) - VecInt{}}; }

// sum + the four products of a's bytes (0 to 255) and b's (-128 to 127), exactly.
inline VecInt multiply_add(VecInt sum, QuadVec a, VecInt b) {
#if defined(__AVX512VNNI__)
  return (VecInt)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a.bytes, (__m512i)b);
#else
  for (int shift = 0; shift < 32; shift += 8) sum += ((a.bytes >> shift) & 0xff) * ((b << (24 - shift)) >> 24);
  return sum;
#endif
}

// Accumulators of either type in a buffer of 4-byte elements.
inline void store(float* p, VecInt v) { memcpy(p, &v, sizeof v); }

template <class Sum>
inline Sum load_as(const float* p) {
  Sum v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline Vec to_floats(VecInt v) { return __builtin_convertvector(v, Vec); }

// Rounds to integers and clamps to [0, 255]; NaN becomes 0.
inline void store_bytes(Vec v, uint8_t* to) {
  const VecInt rounded = __builtin_convertvector(round_to_nearest(min(splat(255.0f), max(v, Vec{}))), VecInt);
#if FERMT_VECTOR_BYTES == 64
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)rounded);
  memcpy(to, &bytes, sizeof bytes);
#else
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<uint8_t>(rounded[i]);
#endif
}

// Asymmetric quantization: value = (byte - zero) * scale.
struct QuantParams {
  float scale, zero;
};

// Quantizes a row over its own range, extended to include 0.
template <class T>
inline QuantParams quantize_row(const T* from, int64_t count, uint8_t* to) {
  Vec minima = {}, maxima = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec v = load_vector(from + i);
    minima = min(v, minima);
    maxima = max(v, maxima);
  }
  float lowest = 0, highest = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    lowest = minima[lane] < lowest ? minima[lane] : lowest;
    highest = maxima[lane] > highest ? maxima[lane] : highest;
  }
  for (int64_t j = i; j < count; ++j) {
    const float v = to_float(from[j]);
    lowest = v < lowest ? v : lowest;
    highest = v > highest ? v : highest;
  }
  const float range = highest - lowest;
  const float factor = range > 0 ? 255.0f / range : 0.0f;
  const float zero = sum_of_lanes(round_to_nearest(splat(-lowest * factor))) / kLanes;
  for (i = 0; i + kLanes <= count; i += kLanes) store_bytes(load_vector(from + i) * factor + zero, to + i);
  if (i < count) {
    float rest[kLanes] = {};
    row_to_float(from + i, count - i, rest);
    uint8_t bytes[kLanes];
    store_bytes(load(rest) * factor + zero, bytes);
    memcpy(to + i, bytes, count - i);
  }
  return {range / 255.0f, zero};
}

}  // namespace
