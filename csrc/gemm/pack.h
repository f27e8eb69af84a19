// How values of any type become the Numbers that products take: floats, or pairs of bfloat16.

#pragma once

#include "abi/parallel.h"
#include "gemm/product.h"
#include "simd/vector.h"

namespace {

// What products are made of for inputs of type T.
template <class T>
struct NumberOf {
  typedef float type;
};
#if defined(__AVX512BF16__)
template <>
struct NumberOf<BFloat16> {
  typedef BFloat16Pair type;
};
#endif

// The values in a Number, and how many Numbers it takes for `count` values.
template <class Number>
constexpr int64_t kValues = 1;
template <>
constexpr int64_t kValues<BFloat16Pair> = 2;
template <>
constexpr int64_t kValues<Int8Quad> = 4;
template <class Number>
constexpr int64_t numbers(int64_t count) {
  return (count + kValues<Number> - 1) / kValues<Number>;
}

// Up to a vector of values, the rest 0; and into an array, as many as there is room for.
template <class T>
inline Vec load_some(const T* from, int64_t count) {
  if (count >= kLanes) return load_vector(from);
  float lanes[kLanes] = {};
  if (count > 0) row_to_float(from, count, lanes);
  return load(lanes);
}

template <class T>
inline void store_some(Vec v, T* to, int64_t count) {
  if (count >= kLanes) return store_vector(v, to);
  float lanes[kLanes];
  store(lanes, v);
  row_from_float(lanes, count, to);
}

// `count` rows of a tensor -> contiguous rows of Numbers: pairs are of neighbours in a row.
template <class T>
inline void pack_rows(const T* from, int64_t stride, int64_t count, int64_t dim, float* to) {
  for (int64_t row = 0; row < count; ++row) row_to_float(from + row * stride, dim, to + row * dim);
}

// The same to rows of `width` >= dim, the rest 0: pairs are of neighbouring rows.
template <class T>
inline void pack_row_pairs(const T* from, int64_t stride, int64_t count, int64_t dim, int64_t width, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    row_to_float(from + row * stride, dim, to + row * width);
    for (int64_t d = dim; d < width; ++d) to[row * width + d] = 0.0f;
  }
}

#if defined(__AVX512BF16__)

inline void pack_rows(const BFloat16* from, int64_t stride, int64_t count, int64_t dim, BFloat16Pair* to) {
  const int64_t pairs = numbers<BFloat16Pair>(dim);
  for (int64_t row = 0; row < count; ++row)
    for (int64_t i = 0; i < pairs; i += kLanes)
      store(to + row * pairs + i, load_values(from + row * stride + 2 * i, dim - 2 * i), pairs - i);
}

inline void pack_row_pairs(const BFloat16* from, int64_t stride, int64_t count, int64_t dim, int64_t width,
                           BFloat16Pair* to) {
  for (int64_t row = 0; row < count; row += 2, to += width) {
    const BFloat16 *first = from + row * stride, *second = first + stride;
    const bool alone = row + 1 == count;
    int64_t d = 0;
    for (; !alone && d + 2 * kLanes <= dim; d += 2 * kLanes)
      interleave(load_values(first + d, 2 * kLanes), load_values(second + d, 2 * kLanes), to + d);
    for (; d < width; d += kLanes) {
      const int64_t left = dim > d ? dim - d : 0;
      const VecInt even = load_wide(first + d, left), odd = alone ? VecInt{} : load_wide(second + d, left);
      store(to + d, even | (odd << 16), width - d);
    }
  }
}

// The same from values of another type, which are rounded.
template <class T>
inline void pack_rows(const T* from, int64_t stride, int64_t count, int64_t dim, BFloat16Pair* to) {
  const int64_t pairs = numbers<BFloat16Pair>(dim);
  for (int64_t row = 0; row < count; ++row, from += stride)
    for (int64_t i = 0; i < pairs; i += kLanes) {
      const int64_t left = dim - 2 * i;
      store(to + row * pairs + i,
            narrow(load_some(from + 2 * i, left), load_some(from + 2 * i + kLanes, left - kLanes)), pairs - i);
    }
}

template <class T>
inline void pack_row_pairs(const T* from, int64_t stride, int64_t count, int64_t dim, int64_t width, BFloat16Pair* to) {
  for (int64_t row = 0; row < count; row += 2)
    for (int64_t d = 0; d < width; d += kLanes) {
      const T* place = from + row * stride + d;
      const Vec even = load_some(place, dim - d), odd = row + 1 < count ? load_some(place + stride, dim - d) : Vec{};
      store(to + row / 2 * width + d, narrow_in_pairs(even, odd), width - d);
    }
}

#endif

template <class Number>
inline Number* carve(fermt::Carver& carver, int64_t count) {
  static_assert(sizeof(Number) == sizeof(float), "numbers are as large as floats");
  return reinterpret_cast<Number*>(carver.floats(count));
}

}  // namespace
