// Matrices whose dtype is known at run time, and how they are packed as a product takes them, with a GELU or without.

#pragma once

#include "gemm/gemm.h"
#include "gemm/pack.h"

namespace {

// A row-major matrix of a dtype known at run time; the last dimension is contiguous.
struct MatrixView {
  const void* data;
  int64_t dtype, stride;

  MatrixView block(int64_t row, int64_t column) const {
    const int64_t size = dtype == FERMT_FLOAT32 ? 4 : 2;
    return {static_cast<const char*>(data) + (row * stride + column) * size, dtype, stride};
  }
};

// Loads up to a vector of `count` values from offset `at`, the rest 0; stores the first `count` of a vector.
inline Vec load_partial(const MatrixView& values, int64_t at, int64_t count) {
  Vec v;
  for_dtype(values.dtype, [&](auto value) {
    v = load_partial(static_cast<const decltype(value)*>(values.data) + at, count);
    return FERMT_OK;
  });
  return v;
}

inline void store_partial(Vec v, void* to, int64_t dtype, int64_t at, int64_t count) {
  for_dtype(dtype, [&](auto value) {
    store_partial(v, static_cast<decltype(value)*>(to) + at, count);
    return FERMT_OK;
  });
}

// GELU, accurate for its output dtype; and its derivative.
inline Vec gelu_of(Vec x, int64_t dtype) { return dtype == FERMT_BFLOAT16 ? gelu_approx(x) : gelu(x); }
inline Vec gelu_of(Vec x, Vec* derivative, int64_t dtype) {
  return dtype == FERMT_BFLOAT16 ? gelu_approx(x, derivative) : gelu(x, derivative);
}

// A row of GELU(x) in `dtype`; and its derivative unless `derivative` is null.
inline void gelu_row(const MatrixView& x, int64_t count, int64_t dtype, void* to, float* derivative) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec slope;
    const Vec value = load_partial(x, i, count - i);
    store_partial(derivative ? gelu_of(value, &slope, dtype) : gelu_of(value, dtype), to, dtype, i, count - i);
    if (derivative) store(derivative + i, slope);
  }
}

// The same, packed.
inline void pack_gelu_row(const MatrixView& x, int64_t count, float* to) {
  gelu_row(x, count, FERMT_FLOAT32, to, nullptr);
}

inline void pack_gelu_row(const MatrixView& x, int64_t count, BFloat16Pair* to) {
  if (count % 2) to[count / 2] = {};
  gelu_row(x, count, FERMT_BFLOAT16, to, nullptr);
}

// Packed rows of a matrix: a view of it where its layout is that already, else packed into `packed`.
template <class Packed>
inline PackedRows<Packed> packed_rows(const MatrixView& values, int64_t rows, int64_t inner, Packed* packed) {
  constexpr int64_t kFactor = kPackFactor<Packed>;
  const bool same = values.dtype == (kFactor == 2 ? FERMT_BFLOAT16 : FERMT_FLOAT32);
  if (same && inner % kFactor == 0 && values.stride % kFactor == 0 &&
      reinterpret_cast<uintptr_t>(values.data) % sizeof(Packed) == 0)
    return {static_cast<const Packed*>(values.data), values.stride / kFactor, nullptr};
  for_dtype(values.dtype, [&](auto value) {
    pack_rows(static_cast<const decltype(value)*>(values.data), values.stride, rows, inner, packed);
    return FERMT_OK;
  });
  return {packed, packed_count<Packed>(inner), nullptr};
}

template <class Packed>
inline void pack_columns_of(const MatrixView& values, int64_t rows, int64_t columns, int64_t width, Packed* to) {
  for_dtype(values.dtype, [&](auto value) {
    pack_row_pairs(static_cast<const decltype(value)*>(values.data), values.stride, rows, columns, width, to);
    return FERMT_OK;
  });
}

// A vector of packed elements: the first `count` values of a row, the rest 0.
template <class Packed>
inline Vec packed_vector(const MatrixView& row, int64_t count) {
  Packed line[kLanes] = {};
  for_dtype(row.dtype, [&](auto value) {
    pack_rows(static_cast<const decltype(value)*>(row.data), 0, 1, count, line);
    return FERMT_OK;
  });
  Vec v;
  memcpy(&v, line, sizeof v);
  return v;
}
template <>
inline Vec packed_vector<float>(const MatrixView& row, int64_t count) {
  return load_partial(row, 0, count);
}

// Rows of a matrix -> columns of a panel of `width`.
template <class Packed>
inline void pack_rows_as_columns(const MatrixView& values, int64_t rows, int64_t inner, int64_t width, Packed* to) {
  const int64_t packed_k = packed_count<Packed>(inner), max_count = kLanes * kPackFactor<Packed>;
  Vec square[kLanes];
  for (int64_t i = 0; i < width; i += kLanes)
    for (int64_t first = 0; first < packed_k; first += kLanes) {
      const int64_t begin = first * kPackFactor<Packed>, count = inner - begin < max_count ? inner - begin : max_count;
      for (int64_t r = 0; r < kLanes; ++r)
        square[r] = i + r < rows ? packed_vector<Packed>(values.block(i + r, begin), count) : Vec{};
      transpose(square);
      for (int64_t r = 0; r < kLanes && first + r < packed_k; ++r)
        memcpy(to + (first + r) * width + i, &square[r], sizeof(Vec));
    }
}

}  // namespace
