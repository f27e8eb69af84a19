// Packing of operands: values of any dtype become floats, or pairs of bfloat16, which products take.

#pragma once

#include "abi/arena.h"
#include "gemm/product.h"
#include "simd/vector.h"

namespace {

// The packed type in which inputs of type T are multiplied.
template <class T>
struct PackedOf {
  typedef float type;
};
#if defined(__AVX512BF16__)
template <>
struct PackedOf<BFloat16> {
  typedef BFloat16Pair type;
};
#endif

// Values in a packed element, and packed elements of `count` values.
template <class Packed>
constexpr int64_t kPackFactor = 1;
template <>
constexpr int64_t kPackFactor<BFloat16Pair> = 2;
template <>
constexpr int64_t kPackFactor<Int16Pair> = 2;
template <>
constexpr int64_t kPackFactor<Int8Quad> = 4;
template <class Packed>
constexpr int64_t packed_count(int64_t count) {
  return (count + kPackFactor<Packed> - 1) / kPackFactor<Packed>;
}

// Loads up to a vector of `count` values, the rest 0; stores the first `count` of a vector.
template <class T>
inline Vec load_partial(const T* from, int64_t count) {
  if (count >= kLanes) return load_vector(from);
  float lanes[kLanes] = {};
  if (count > 0) row_to_float(from, count, lanes);
  return load(lanes);
}

template <class T>
inline void store_partial(Vec v, T* to, int64_t count) {
  if (count >= kLanes) return store_vector(v, to);
  float lanes[kLanes];
  store(lanes, v);
  row_from_float(lanes, count, to);
}

// Rows to prefetch: a head's rows lie further apart than a cache line, and processors do not foresee that.
constexpr int64_t kRowsAhead = 16;

// `count` rows of a tensor -> contiguous packed rows: pairs are of neighbors in a row.
template <class T>
inline void pack_rows(const T* from, int64_t stride, int64_t count, int64_t dim, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    __builtin_prefetch(from + (row + kRowsAhead) * stride);
    row_to_float(from + row * stride, dim, to + row * dim);
  }
}

// The same to rows of `width` >= dim, padded with 0: pairs are of neighboring rows.
template <class T>
inline void pack_row_pairs(const T* from, int64_t stride, int64_t count, int64_t dim, int64_t width, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    __builtin_prefetch(from + (row + kRowsAhead) * stride);
    row_to_float(from + row * stride, dim, to + row * width);
    for (int64_t d = dim; d < width; ++d) to[row * width + d] = 0.0f;
  }
}

#if defined(__AVX512BF16__)

inline void pack_rows(const BFloat16* from, int64_t stride, int64_t count, int64_t dim, BFloat16Pair* to) {
  const int64_t pairs = packed_count<BFloat16Pair>(dim);
  for (int64_t row = 0; row < count; ++row)
    for (int64_t i = 0; i < pairs; i += kLanes)
      store(to + row * pairs + i, load_bfloat16(from + row * stride + 2 * i, dim - 2 * i), pairs - i);
}

inline void pack_row_pairs(const BFloat16* from, int64_t stride, int64_t count, int64_t dim, int64_t width,
                           BFloat16Pair* to) {
  for (int64_t row = 0; row < count; row += 2, to += width) {
    const BFloat16 *first = from + row * stride, *second = first + stride;
    const bool unpaired = row + 1 == count;
    int64_t d = 0;
    for (; !unpaired && d + 2 * kLanes <= dim; d += 2 * kLanes)
      interleave(load_bfloat16(first + d, 2 * kLanes), load_bfloat16(second + d, 2 * kLanes), to + d);
    for (; d < width; d += kLanes) {
      const int64_t left = dim > d ? dim - d : 0;
      const VecInt even = load_bfloat16_wide(first + d, left),
                   odd = unpaired ? VecInt{} : load_bfloat16_wide(second + d, left);
      store(to + d, even | (odd << 16), width - d);
    }
  }
}

// The same from values of another type, which are rounded.
template <class T>
inline void pack_rows(const T* from, int64_t stride, int64_t count, int64_t dim, BFloat16Pair* to) {
  const int64_t pairs = packed_count<BFloat16Pair>(dim);
  for (int64_t row = 0; row < count; ++row, from += stride)
    for (int64_t i = 0; i < pairs; i += kLanes) {
      const int64_t left = dim - 2 * i;
      store(to + row * pairs + i,
            to_bfloat16(load_partial(from + 2 * i, left), load_partial(from + 2 * i + kLanes, left - kLanes)),
            pairs - i);
    }
}

template <class T>
inline void pack_row_pairs(const T* from, int64_t stride, int64_t count, int64_t dim, int64_t width, BFloat16Pair* to) {
  for (int64_t row = 0; row < count; row += 2)
    for (int64_t d = 0; d < width; d += kLanes) {
      const T* place = from + row * stride + d;
      const Vec even = load_partial(place, dim - d),
                odd = row + 1 < count ? load_partial(place + stride, dim - d) : Vec{};
      store(to + row / 2 * width + d, to_bfloat16_pairs(even, odd), width - d);
    }
}

// The transpose of kLanes x kLanes packed elements; rows from `count` on are 0.
template <class Packed>
inline void transpose_words(const Packed* from, int64_t from_stride, int64_t count, Packed* to, int64_t to_stride) {
  Vec square[kLanes];
  for (int64_t r = 0; r < kLanes; ++r) square[r] = r < count ? (Vec)load(from + r * from_stride) : Vec{};
  transpose(square);
  for (int64_t r = 0; r < kLanes; ++r) store(to + r * to_stride, (VecInt)square[r]);
}

#endif

template <class Packed>
inline Packed* allocate(Arena& arena, int64_t count) {
  static_assert(sizeof(Packed) == sizeof(float), "packed elements are as large as floats");
  return reinterpret_cast<Packed*>(arena.floats(count));
}

}  // namespace
