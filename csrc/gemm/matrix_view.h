// Arrays whose dtype is known when they are read: how they become what a product takes, with a GELU or without.

#pragma once

#include "gemm/gemm.h"
#include "gemm/pack.h"

namespace {

// An array whose dtype is known when it is read.
struct Values {
  const void* data;
  int64_t dtype, stride;

  Values from(int64_t row, int64_t column) const {
    const int64_t size = dtype == FERMT_FLOAT32 ? 4 : 2;
    return {static_cast<const char*>(data) + (row * stride + column) * size, dtype, stride};
  }
};

// Up to a vector of an array's values, the rest 0; and into an array, as many as there is room for.
inline Vec load_some(const Values& values, int64_t at, int64_t count) {
  Vec v;
  for_dtype(values.dtype, [&](auto value) {
    v = load_some(static_cast<const decltype(value)*>(values.data) + at, count);
    return FERMT_OK;
  });
  return v;
}

inline void store_some(Vec v, void* to, int64_t dtype, int64_t at, int64_t count) {
  for_dtype(dtype, [&](auto value) {
    store_some(v, static_cast<decltype(value)*>(to) + at, count);
    return FERMT_OK;
  });
}

// GELU as exact as a dtype is; and its derivative.
inline Vec gelu_of(Vec x, int64_t dtype) { return dtype == FERMT_BFLOAT16 ? gelu_roughly(x) : gelu(x); }
inline Vec gelu_of(Vec x, Vec* derivative, int64_t dtype) {
  return dtype == FERMT_BFLOAT16 ? gelu_roughly(x, derivative) : gelu(x, derivative);
}

// A row of GELU(x) in `dtype`; with room for it, its derivative, too.
inline void gelu_row(const Values& x, int64_t count, int64_t dtype, void* to, float* derivative) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec slope;
    const Vec value = load_some(x, i, count - i);
    store_some(derivative ? gelu_of(value, &slope, dtype) : gelu_of(value, dtype), to, dtype, i, count - i);
    if (derivative) store(derivative + i, slope);
  }
}

// The same as a product takes it.
inline void pack_gelu_row(const Values& x, int64_t count, float* to) { gelu_row(x, count, FERMT_FLOAT32, to, nullptr); }

inline void pack_gelu_row(const Values& x, int64_t count, BFloat16Pair* to) {
  if (count % 2) to[count / 2] = {};
  gelu_row(x, count, FERMT_BFLOAT16, to, nullptr);
}

// Rows as a product takes them: where they lie, if that is how.
template <class Number>
inline Operand<Number> operand_rows(const Values& values, int64_t rows, int64_t inner, Number* packed) {
  constexpr int64_t kPer = kValues<Number>;
  const bool same = values.dtype == (kPer == 2 ? FERMT_BFLOAT16 : FERMT_FLOAT32);
  if (same && inner % kPer == 0 && values.stride % kPer == 0 &&
      reinterpret_cast<uintptr_t>(values.data) % sizeof(Number) == 0)
    return {static_cast<const Number*>(values.data), values.stride / kPer, nullptr};
  for_dtype(values.dtype, [&](auto value) {
    pack_rows(static_cast<const decltype(value)*>(values.data), values.stride, rows, inner, packed);
    return FERMT_OK;
  });
  return {packed, numbers<Number>(inner), nullptr};
}

template <class Number>
inline void pack_columns_of(const Values& values, int64_t rows, int64_t columns, int64_t width, Number* to) {
  for_dtype(values.dtype, [&](auto value) {
    pack_row_pairs(static_cast<const decltype(value)*>(values.data), values.stride, rows, columns, width, to);
    return FERMT_OK;
  });
}

// Rows of a matrix -> a panel, whose columns they become.
template <class Number>
inline void pack_rows_as_columns(const Values& values, int64_t rows, int64_t inner, int64_t width, Number* to) {
  const int64_t words = numbers<Number>(inner), most = kLanes * kValues<Number>;
  Number line[kLanes];
  Vec square[kLanes];
  for (int64_t i = 0; i < width; i += kLanes)
    for (int64_t first = 0; first < words; first += kLanes) {
      const int64_t begin = first * kValues<Number>, count = inner - begin < most ? inner - begin : most;
      for (int64_t r = 0; r < kLanes; ++r) {
        memset(line, 0, sizeof line);
        if (i + r < rows)
          for_dtype(values.dtype, [&](auto value) {
            pack_rows(static_cast<const decltype(value)*>(values.from(i + r, begin).data), 0, 1, count, line);
            return FERMT_OK;
          });
        memcpy(&square[r], line, sizeof line);
      }
      transpose(square);
      for (int64_t r = 0; r < kLanes && first + r < words; ++r)
        memcpy(to + (first + r) * width + i, &square[r], sizeof(Vec));
    }
}

}  // namespace
