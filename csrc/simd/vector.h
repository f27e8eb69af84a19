// Vec: a float vector of the instruction set's width, in the compiler's own vector types, so that kernels are written
// once for every instruction set.
//
// Everything that kernels include is in an anonymous namespace: each instruction set keeps its own copy, whatever the
// linker does.

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
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(FERMT_NEON)
#include <arm_neon.h>
#endif

// FERMT_UNROLL before a loop over registers: left to itself GCC sometimes keeps an array of them in memory.
// FERMT_ROLLED before a loop whose body is long: unrolled, it costs more to compile than it saves.
#if defined(__clang__)
#define FERMT_UNROLL _Pragma("clang loop unroll(full)")
#define FERMT_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define FERMT_UNROLL _Pragma("GCC unroll 16")
#define FERMT_ROLLED _Pragma("GCC unroll 1")
#endif

// Hides from the compiler how a pointer was computed: it would keep a register for each of many offsets from it.
#define FERMT_HIDE(pointer) __asm__("" : "+r"(pointer))

namespace {

constexpr int kLanes = FERMT_VECTOR_BYTES / 4;
#if FERMT_VECTOR_BYTES == 64 || defined(FERMT_NEON)
constexpr bool kManyRegisters = true;  // 32 vector registers instead of 16
#else
constexpr bool kManyRegisters = false;
#endif
constexpr int kAccumulators = kManyRegisters ? 16 : 8;  // that fit the registers beside their operands
typedef float Vec __attribute__((vector_size(FERMT_VECTOR_BYTES)));
typedef int32_t VecInt __attribute__((vector_size(FERMT_VECTOR_BYTES)));

inline Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

// A vector loaded into a register. GCC would otherwise load it again for each of its uses, as an operand in memory.
inline Vec load_once(const float* p) {
  Vec v = load(p);
#if defined(__x86_64__)
  __asm__("" : "+v"(v));
#elif defined(FERMT_NEON)
  __asm__("" : "+w"(v));
#endif
  return v;
}

// A 4-byte element of several smaller values, which may alias what they were stored as.
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

// The larger of each lane; where a lane of a or b is NaN the result is b's, as in maxps. GCC makes a comparison and a
// blend of the plain form. The all-ones masks silence a warning of GCC 12 about its own header.
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

// Whether any lane of a is larger than `limit`; a NaN is not.
inline bool any_above(Vec a, float limit) {
#if FERMT_VECTOR_BYTES == 64
  return _mm512_cmp_ps_mask((__m512)a, (__m512)splat(limit), _CMP_GT_OQ) != 0;
#elif FERMT_VECTOR_BYTES == 32
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)splat(limit), _CMP_GT_OQ)) != 0;
#else
  bool any = false;
  for (int lane = 0; lane < kLanes; ++lane) any |= a[lane] > limit;
  return any;
#endif
}

// Slot i of an array of vectors += value.
inline void add_to(float* slots, int64_t i, Vec value) { store(slots + i * kLanes, load(slots + i * kLanes) + value); }

// v rotated by `Step` lanes: lane i of the result is lane (i + Step) % kLanes of v.
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

// Horizontal sum, in a tree: lanes i and i + kLanes / 2 first, then quarters, and so on.
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

// A number that a generic lambda can take as a template argument.
template <int Value>
struct Constant {
  static constexpr int value = Value;
};

// `count` rounded up to a multiple of `step`.
constexpr int64_t round_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

}  // namespace
