// Attention for every pattern: what forward and backward share.
//
// Vector lanes are queries. A tile's scores are kept transposed, a key a row, so that the soft-max runs down the rows
// without a horizontal step, and every matrix product broadcasts one number against vectors. Keys come in chunks whose
// scores stay in L1. Nothing is ever tokens x tokens.

#pragma once

#include <math.h>

#include "abi.h"
#include "parallel.h"
#include "simd.h"

namespace {

constexpr int kQueryVectors = 2;
constexpr int kQueryTile = kQueryVectors * kLanes;
constexpr int64_t kKeyChunk = 64;
constexpr int64_t kSegment = 512;  // keys or queries over which sums are kept apart
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// For Rows rows and Vectors vectors: sink(r, c, sum over i of rows[r][i] * columns[i][c]). The sum is made of Chains
// interleaved ones, of which two keep float32's error smaller than one does.
template <int Rows, int Vectors, int Chains, class Sink>
inline void product_tile(const float* rows, int64_t row_stride, int64_t inner_stride, const float* columns,
                         int64_t column_stride, int64_t inner, Sink&& sink) {
  Vec acc[Chains][Rows][Vectors] = {};
  const auto step = [&](int64_t i, int chain) {
    Vec column[Vectors];
    for (int c = 0; c < Vectors; ++c) column[c] = load(columns + i * column_stride + c * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec value = splat(rows[r * row_stride + i * inner_stride]);
      for (int c = 0; c < Vectors; ++c) acc[chain][r][c] += value * column[c];
    }
  };
  for (int64_t i = 0; i + Chains <= inner; i += Chains)
    for (int chain = 0; chain < Chains; ++chain) step(i + chain, chain);
  if (inner % Chains) step(inner - 1, 0);
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Vectors; ++c) sink(r, c, Chains == 2 ? acc[0][r][c] + acc[Chains - 1][r][c] : acc[0][r][c]);
}

// The same for `count` rows; sink's r counts from the first.
template <int Vectors, int Chains, class Sink>
inline void product(const float* rows, int64_t count, int64_t row_stride, int64_t inner_stride, const float* columns,
                    int64_t column_stride, int64_t inner, Sink&& sink) {
  constexpr int kRows = kAccumulators / (Vectors * Chains);
  int64_t first = 0;
  for (; first + kRows <= count; first += kRows)
    product_tile<kRows, Vectors, Chains>(rows + first * row_stride, row_stride, inner_stride, columns, column_stride,
                                         inner, [&](int64_t r, int c, Vec sum) { sink(first + r, c, sum); });
  for (; first < count; ++first)
    product_tile<1, Vectors, Chains>(rows + first * row_stride, row_stride, inner_stride, columns, column_stride, inner,
                                     [&](int64_t, int c, Vec sum) { sink(first, c, sum); });
}

// out[r] += rows[r] @ columns over a query tile. A sum starts from 0 and joins `out` at its end: short partial sums
// keep float32's error small.
inline void add_product_over_keys(const float* rows, int64_t count, int64_t row_stride, int64_t inner_stride,
                                  const float* scores, int64_t keys, float* out) {
  product<kQueryVectors, 2>(rows, count, row_stride, inner_stride, scores, kQueryTile, keys,
                            [=](int64_t r, int c, Vec sum) {
                              float* to = out + r * kQueryTile + c * kLanes;
                              store(to, load(to) + sum);
                            });
}

// scores[j] = rows[j] @ columns of `count` keys over the head dim, in sums of at most 32; last(j, c, score) sees each
// finished score vector. Dim > 0 is the head dim where the compiler may know it.
template <int Dim, class Last>
inline void product_over_dims(const float* rows, int64_t count, const float* columns, int64_t dim, float* scores,
                              Last&& last) {
  constexpr int64_t kStep = 32;
  if (Dim > 0 && Dim <= kStep) {
    product<kQueryVectors, 2>(rows, count, Dim, 1, columns, kQueryTile, Dim, [&](int64_t j, int c, Vec sum) {
      store(scores + j * kQueryTile + c * kLanes, sum);
      last(j, c, sum);
    });
    return;
  }
  for (int64_t start = 0; start < dim; start += kStep) {
    const int64_t step = dim - start < kStep ? dim - start : kStep;
    product<kQueryVectors, 2>(rows + start, count, dim, 1, columns + start * kQueryTile, kQueryTile, step,
                              [&](int64_t j, int c, Vec sum) {
                                float* to = scores + j * kQueryTile + c * kLanes;
                                if (start > 0) sum += load(to);
                                store(to, sum);
                                if (start + step == dim) last(j, c, sum);
                              });
  }
}

// `count` rows of a tensor -> contiguous float rows of `width` >= dim, the rest 0.
template <class T>
inline void pack_rows(const T* from, int64_t stride, int64_t count, int64_t dim, int64_t width, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    row_to_float(from + row * stride, dim, to + row * width);
    for (int64_t d = dim; d < width; ++d) to[row * width + d] = 0.0f;
  }
}

inline Vec load_vector(const float* p) { return load(p); }

inline Vec load_vector(const BFloat16* p) {
  float lanes[kLanes];
  row_to_float(p, kLanes, lanes);
  return load(lanes);
}

inline void store_vector(Vec v, float* p) { store(p, v); }

inline void store_vector(Vec v, BFloat16* p) {
  float lanes[kLanes];
  store(lanes, v);
  row_from_float(lanes, kLanes, p);
}

// `count` rows of a tensor -> columns of a query tile (dim x kQueryTile), times `factor`; missing queries are 0.
template <class T>
inline void pack_columns(const T* from, int64_t stride, int64_t count, int64_t dim, float factor, float* to) {
  for (int64_t i = 0; i < kQueryTile; i += kLanes) {
    int64_t d = 0;
    for (; i + kLanes <= count && d + kLanes <= dim; d += kLanes) {
      Vec square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = load_vector(from + (i + r) * stride + d) * factor;
      transpose(square);
      for (int r = 0; r < kLanes; ++r) store(to + (d + r) * kQueryTile + i, square[r]);
    }
    for (; d < dim; ++d)
      for (int64_t j = i; j < i + kLanes; ++j)
        to[d * kQueryTile + j] = j < count ? to_float(from[j * stride + d]) * factor : 0.0f;
  }
}

// Columns of a query tile -> `count` rows of a tensor.
template <class T>
inline void unpack_columns(const float* from, int64_t count, int64_t dim, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; i += kLanes) {
    int64_t d = 0;
    for (; i + kLanes <= count && d + kLanes <= dim; d += kLanes) {
      Vec square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = load(from + (d + r) * kQueryTile + i);
      transpose(square);
      for (int r = 0; r < kLanes; ++r) store_vector(square[r], to + (i + r) * stride + d);
    }
    for (; d < dim; ++d)
      for (int64_t j = i; j < i + kLanes && j < count; ++j) from_float(from[d * kQueryTile + j], to + j * stride + d);
  }
}

// The queries of one group, and the keys that they see.
struct QueryGroup {
  int64_t query_start, query_stop, key_start, key_stop;
};

inline QueryGroup query_group(const fermt_attention_shape& shape, bool is_template) {
  const int64_t* keys = is_template ? shape.template_keys : shape.search_keys;
  return {is_template ? 0 : shape.num_template, is_template ? shape.num_template : shape.tokens, keys[0], keys[1]};
}

}  // namespace
