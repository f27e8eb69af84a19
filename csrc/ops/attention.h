// Attention for every pattern: what forward and backward share.
//
// A product's operands are Numbers: floats, which any input is converted to, or, where the instruction set multiplies
// bfloat16 by pairs, the pairs of attention_bfloat16_pairs.h. Sums and scores are floats either way.
//
// Vector lanes are queries. A tile's scores are kept transposed, a key a row, so that the soft-max runs down the rows
// without a horizontal step, and every matrix product broadcasts one number against vectors. Keys come in chunks whose
// scores stay in L1. Nothing is ever tokens x tokens.

#pragma once

#include <math.h>

#include "abi/fermt.h"
#include "abi/parallel.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "simd/vector.h"

namespace {

constexpr int kQueryVectors = 2;
constexpr int kQueryTile = kQueryVectors * kLanes;
constexpr int64_t kKeyChunk = 128;
constexpr int64_t kSegment = 512;   // keys or queries over which sums are kept apart
constexpr int64_t kScoreStep = 32;  // dimensions summed before a score joins what it was
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// product_tile for `count` rows; sink's r counts from the first.
template <int Vectors, int Chains, class Number, class Sink>
inline void product(const Number* rows, int64_t count, int64_t row_stride, int64_t inner_stride, const Number* columns,
                    int64_t column_stride, int64_t inner, Sink&& sink) {
  constexpr int kRows = kAccumulators / (Vectors * Chains);
  int64_t first = 0;
  for (; first + kRows <= count; first += kRows)
    product_tile<kRows, Vectors, Chains>(
        rows + first * row_stride, row_stride, inner_stride, columns, column_stride, inner,
        [&](int64_t r, int c, Vec sum) { sink(first + r, c, sum); }, [](int64_t) {});
  for (; first < count; ++first)
    product_tile<1, Vectors, Chains>(
        rows + first * row_stride, row_stride, inner_stride, columns, column_stride, inner,
        [&](int64_t, int c, Vec sum) { sink(first, c, sum); }, [](int64_t) {});
}

// Sums that a product is made of: pairs add two products at a time already.
template <class Number>
constexpr int kChains = kValues<Number> == 1 ? 2 : 1;

// out[d] += values[:, d] @ scores over the keys of a chunk, `keys` of them in Numbers. A sum starts from 0 and joins
// `out` at its end: short partial sums keep float32's error small.
template <class Number>
inline void add_product_over_keys(const Number* values, int64_t dim, const Number* scores, int64_t keys, float* out) {
  product<kQueryVectors, kChains<Number>>(values, dim, 1, dim, scores, kQueryTile, keys,
                                          [=](int64_t d, int c, Vec sum) {
                                            float* to = out + d * kQueryTile + c * kLanes;
                                            store(to, load(to) + sum);
                                          });
}

// scores[j] = rows[j] @ columns of `count` keys over the head dim, `dim` Numbers of it, in sums of at most 32;
// last(j, c, score) sees each finished score vector. Dim > 0 is the head dim where the compiler may know it.
template <int Dim, class Number, class Last>
inline void product_over_dims(const Number* rows, int64_t count, const Number* columns, int64_t dim, float* scores,
                              Last&& last) {
  if constexpr (Dim > 0 && Dim <= kScoreStep) {
    constexpr int64_t kNumbers = numbers<Number>(Dim);
    product<kQueryVectors, kChains<Number>>(rows, count, kNumbers, 1, columns, kQueryTile, kNumbers,
                                            [&](int64_t j, int c, Vec sum) {
                                              store(scores + j * kQueryTile + c * kLanes, sum);
                                              last(j, c, sum);
                                            });
  } else {
    for (int64_t start = 0; start < dim; start += kScoreStep) {
      const int64_t step = dim - start < kScoreStep ? dim - start : kScoreStep;
      product<kQueryVectors, kChains<Number>>(rows + start, count, dim, 1, columns + start * kQueryTile, kQueryTile,
                                              step, [&](int64_t j, int c, Vec sum) {
                                                float* to = scores + j * kQueryTile + c * kLanes;
                                                if (start > 0) sum += load(to);
                                                store(to, sum);
                                                if (start + step == dim) last(j, c, sum);
                                              });
    }
  }
}

// The sum of term(j) over `count` keys, in four sums that do not wait for each other.
template <class Term>
inline Vec sum_over_keys(int64_t count, Term&& term) {
  Vec sums[4] = {};
  int64_t j = 0;
  for (; j + 4 <= count; j += 4)
    for (int i = 0; i < 4; ++i) sums[i] += term(j + i);
  for (; j < count; ++j) sums[0] += term(j);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The probabilities of `keys` keys for both vectors of queries, one of which term(j, c) computes; their sums over keys
// are added to `sums`. Where Numbers are pairs, these are of neighbouring keys.
template <class Term>
inline void store_probabilities(int64_t keys, Term&& term, float* to, Vec (&sums)[kQueryVectors]) {
  for (int c = 0; c < kQueryVectors; ++c)
    sums[c] += sum_over_keys(keys, [&](int64_t j) {
      const Vec p = term(j, c);
      store(to + j * kQueryTile + c * kLanes, p);
      return p;
    });
}

// P and dS of a chunk of keys as the products take them: a key a row, and once more dS in pairs of keys.
template <class Number>
struct ScoreGradients {
  Number *p, *ds, *ds_over_keys;
};

// `count` rows of a tensor -> columns of a query tile (dim x kQueryTile), negated or not; missing queries are 0.
// Not inlined: it is long.
template <class T>
__attribute__((noinline)) void pack_columns(const T* from, int64_t stride, int64_t count, int64_t dim, bool negated,
                                            float* to) {
  const float factor = negated ? -1.0f : 1.0f;
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
__attribute__((noinline)) void unpack_columns(const float* from, int64_t count, int64_t dim, T* to, int64_t stride) {
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

#if defined(__AVX512BF16__)
#include "ops/attention_bfloat16.h"
#endif
