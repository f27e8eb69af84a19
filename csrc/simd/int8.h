// Four bytes in a 32-bit word: activations without a sign times weights with one, summed into a 32-bit integer.

#pragma once

#include "simd/vector.h"

namespace {

using Int8Quad = PackedWord<struct QuadKind>;

// A word of its own beside VecInt, so that multiply_add knows it.
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

// Sums of either kind in a row of 4-byte places.
inline void store(float* p, VecInt v) { memcpy(p, &v, sizeof v); }

template <class Sum>
inline Sum load_as(const float* p) {
  Sum v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline Vec as_floats(VecInt v) { return __builtin_convertvector(v, Vec); }

// Rounded to whole numbers from 0 to 255; NaN becomes 0.
inline void store_bytes(Vec v, uint8_t* to) {
  const VecInt whole = __builtin_convertvector(round_to_whole(min(splat(255.0f), max(v, Vec{}))), VecInt);
#if FERMT_VECTOR_BYTES == 64
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)whole);
  memcpy(to, &bytes, sizeof bytes);
#else
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<uint8_t>(whole[i]);
#endif
}

// value = (byte - zero) * scale.
struct ByteScale {
  float scale, zero;
};

// A row of values to bytes over the range that it has, 0 included.
template <class T>
inline ByteScale quantise_row(const T* from, int64_t count, uint8_t* to) {
  Vec low = {}, high = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec v = load_vector(from + i);
    low = min(v, low);
    high = max(v, high);
  }
  float least = 0, most = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    least = low[lane] < least ? low[lane] : least;
    most = high[lane] > most ? high[lane] : most;
  }
  for (int64_t j = i; j < count; ++j) {
    const float v = to_float(from[j]);
    least = v < least ? v : least;
    most = v > most ? v : most;
  }
  const float range = most - least;
  const float factor = range > 0 ? 255.0f / range : 0.0f;
  const float zero = sum_of_lanes(round_to_whole(splat(-least * factor))) / kLanes;
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
