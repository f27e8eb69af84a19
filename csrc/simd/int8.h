// int8: unsigned bytes of activations times signed bytes of weights, accumulated in int32, exactly. Products take quads
// of bytes where the instruction set has them, else pairs of 16-bit integers, to which both are widened. Where it has
// those of signed bytes alone (FERMT_DOTPROD without FERMT_I8MM), activations are stored less kByteOffset.

#pragma once

#include "simd/dtypes.h"
#include "simd/math.h"
#include "simd/vector.h"

namespace {

using Int8Quad = PackedWord<struct QuadKind>;
using Int16Pair = PackedWord<struct Int16Kind>;

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(FERMT_DOTPROD)
using ByteOperand = Int8Quad;  // what products of int8 multiply
using Byte = uint8_t;          // a value of it
#else
using ByteOperand = Int16Pair;
using Byte = int16_t;
#endif
#if defined(FERMT_DOTPROD) && !defined(FERMT_I8MM)
constexpr int kByteOffset = 128;
#else
constexpr int kByteOffset = 0;
#endif

#if !defined(FERMT_NEON)  // simd/neon.h has its products

// A type of its own beside VecInt, so that multiply_add knows activations from weights.
struct ByteOperandVec {
  VecInt words;
};

inline ByteOperandVec splat(ByteOperand word) { return {static_cast<int32_t>(word.bits) - VecInt{}}; }

// sum + the four products of a's bytes (0 to 255) and b's (-128 to 127), or the two of 16-bit integers.
inline VecInt multiply_add(VecInt sum, ByteOperandVec a, VecInt b) {
#if defined(__AVX512VNNI__)
  return (VecInt)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a.words, (__m512i)b);
#elif defined(__AVXVNNI__)
  return (VecInt)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a.words, (__m256i)b);
#elif FERMT_VECTOR_BYTES == 64
  return sum + (VecInt)_mm512_madd_epi16((__m512i)a.words, (__m512i)b);
#elif FERMT_VECTOR_BYTES == 32
  return sum + (VecInt)_mm256_madd_epi16((__m256i)a.words, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (VecInt)_mm_madd_epi16((__m128i)a.words, (__m128i)b);
#else
  return sum + ((a.words << 16) >> 16) * ((b << 16) >> 16) + (a.words >> 16) * (b >> 16);
#endif
}

#endif

// The first two and the last two bytes of each of a vector of quads of weights, as 16-bit integers.
typedef int16_t VecShort __attribute__((vector_size(FERMT_VECTOR_BYTES)));
struct Shorts {
  VecShort first, second;
};
inline Shorts widened(const Int8Quad* quads) {
  constexpr int32_t kLow = 0xffff;
  const VecInt bits = load(quads);
  return {(VecShort)((((bits << 24) >> 24) & kLow) | (((bits << 16) >> 8) & ~kLow)),
          (VecShort)((((bits << 8) >> 24) & kLow) | ((bits >> 8) & ~kLow))};
}

inline void store(Int16Pair* p, VecShort v) { memcpy(p, &v, sizeof v); }

// Accumulators of either type in a buffer of 4-byte elements.
inline void store(float* p, VecInt v) { memcpy(p, &v, sizeof v); }

template <class Sum>
inline Sum load_as(const float* p) {
  Sum v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline Vec to_floats(VecInt v) { return __builtin_convertvector(v, Vec); }

// The sums of unsigned bytes' products, from those that products made and the sums of the weights.
inline VecInt of_unsigned(VecInt sum, const float* weight_sums) {
  if constexpr (kByteOffset == 0) return sum;
  return sum + kByteOffset * __builtin_convertvector(load(weight_sums), VecInt);
}

// Rounds to integers and clamps to [0, 255]; NaN becomes 0.
inline VecInt rounded_bytes(Vec v) {
  return __builtin_convertvector(round_to_nearest(min(splat(255.0f), max(v, Vec{}))), VecInt);
}

#if FERMT_VECTOR_BYTES == 32
inline __m128i to_words(VecInt v) {
  return _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
}
#endif

inline void store_bytes(Vec v, uint8_t* to) {
  const VecInt rounded = rounded_bytes(v);
#if FERMT_VECTOR_BYTES == 64
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)rounded);
  memcpy(to, &bytes, sizeof bytes);
#elif FERMT_VECTOR_BYTES == 32
  const __m128i words = to_words(rounded);
  const __m128i bytes = _mm_packus_epi16(words, words);
  memcpy(to, &bytes, kLanes);
#elif defined(FERMT_NEON)
  const uint16x4_t words = vmovn_u32((uint32x4_t)(rounded - kByteOffset));
  const uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
  memcpy(to, &bytes, kLanes);
#else
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<uint8_t>(rounded[i]);
#endif
}

inline void store_bytes(Vec v, int16_t* to) {
  const VecInt rounded = rounded_bytes(v);
#if FERMT_VECTOR_BYTES == 64
  const __m256i words = _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)rounded);
  memcpy(to, &words, sizeof words);
#elif FERMT_VECTOR_BYTES == 32
  const __m128i words = to_words(rounded);
  memcpy(to, &words, sizeof words);
#elif defined(FERMT_NEON)
  const int16x4_t words = vmovn_s32((int32x4_t)rounded);
  memcpy(to, &words, sizeof words);
#else
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int16_t>(rounded[i]);
#endif
}

// Asymmetric quantization: value = (byte - zero) * scale.
struct QuantParams {
  float scale, zero;
};

// Quantizes a row over its own range, extended to include 0.
template <class T>
inline QuantParams quantize_row(const T* from, int64_t count, Byte* to) {
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
    Byte bytes[kLanes];
    store_bytes(load(rest) * factor + zero, bytes);
    memcpy(to + i, bytes, (count - i) * sizeof(Byte));
  }
  return {range / 255.0f, zero};
}

}  // namespace
