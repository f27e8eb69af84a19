// What attention forward and backward share.
//
// Operands are packed as floats or, where the instruction set has bfloat16 dot products, as the pairs of bfloat16 of
// attention_bfloat16.h. Sums and scores are floats either way.
//
// Vector lanes are queries. Scores of a query tile are stored transposed, one row for each key, so that the soft-max
// needs no horizontal step and each product broadcasts one value against vectors. Keys are taken in chunks whose scores
// stay in L1. There is no tokens x tokens buffer.

#pragma once

#include <float.h>
#include <math.h>

#include "abi/fermt.h"
#include "abi/parallel.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "gemm/tiles.h"
#include "simd/dtypes.h"
#include "simd/math.h"
#include "simd/vector.h"

namespace {

constexpr int kQueryVectors = 2;
constexpr int kQueryTile = kQueryVectors * kLanes;
constexpr int64_t kKeyChunk = kManyRegisters ? 128 : 126;  // whole tiles of keys
constexpr int64_t kSegment = 512;                          // keys or queries whose sums are accumulated separately
constexpr int64_t kScoreStep = 32;                         // dimensions of a partial score
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// Whether attention with a head dim is made by AMX: its products are whole tiles, or half as deep.
template <class Packed>
inline bool attends_by_tiles(int64_t dim) {
  return kTiled<Packed> && (dim == kLanes || dim % (2 * kLanes) == 0);
}

// The TileScope that such a head dim needs.
inline int64_t attention_depth(int64_t dim) { return dim == kLanes ? kLanes / 2 : kLanes; }

// Sums that stay in registers: of 16 registers, all but two columns, a broadcast value and one to spare.
constexpr int kTileSums = kManyRegisters ? 16 : 12;

// product_tile for any `count` of rows: epilogue(row, c, sum).
template <int Vectors, int Chains, class Packed, class Epilogue>
inline void product(const Packed* rows, int64_t count, int64_t row_stride, int64_t inner_stride, const Packed* columns,
                    int64_t column_stride, int64_t inner, Epilogue&& epilogue) {
  int64_t first = 0;
  const auto tiles_of = [&](auto of) {
    constexpr int kRows = decltype(of)::value;
    for (; first + kRows <= count; first += kRows)
      product_tile<kRows, Vectors, Chains>(
          rows + first * row_stride, row_stride, inner_stride, columns, column_stride, inner,
          [&](int64_t r, int c, Vec sum) { epilogue(first + r, c, sum); }, [](int64_t) {});
  };
  constexpr int kMost = kTileSums / (Vectors * Chains);
  tiles_of(Constant<kMost>{});
  if constexpr (kMost > 4) tiles_of(Constant<4>{});
  tiles_of(Constant<1>{});
}

// Interleaved sums of a product: two halve the roundings of each. One is enough where a multiply-add rounds once and
// registers are few, or where it already sums the two products of a pair.
#if defined(__FMA__)
constexpr bool kFewRoundings = !kManyRegisters;
#else
constexpr bool kFewRoundings = false;
#endif
template <class Packed>
constexpr int kChains = kPackFactor<Packed> == 1 && !kFewRoundings ? 2 : 1;

// out[d] += values[:, d] @ scores over a chunk of keys, `keys` packed elements. Each sum is of at most 64 products
// before it is added to another: short partial sums keep float32's error small.
template <class Packed>
inline void add_product_over_keys(const Packed* values, int64_t dim, const Packed* scores, int64_t keys, float* out) {
  constexpr int64_t kPart = 64 * kChains<Packed>;
  for (int64_t start = 0; start < keys; start += kPart)
    product<kQueryVectors, kChains<Packed>>(values + start * dim, dim, 1, dim, scores + start * kQueryTile, kQueryTile,
                                            keys - start < kPart ? keys - start : kPart,
                                            [=](int64_t d, int c, Vec sum) {
                                              float* to = out + d * kQueryTile + c * kLanes;
                                              store(to, load(to) + sum);
                                            });
}

// scores[j] = finish(j, c, rows[j] @ columns) for `count` keys over the head dim (`dim` packed elements), in partial
// sums of at most 32. Dim > 0 is the head dim if it is known at compile time.
template <int Dim, class Packed, class Finish>
inline void product_over_dims(const Packed* rows, int64_t count, const Packed* columns, int64_t dim, float* scores,
                              Finish&& finish) {
  if constexpr (Dim > 0 && Dim <= kScoreStep) {
    constexpr int64_t kNumbers = packed_count<Packed>(Dim);
    product<kQueryVectors, kChains<Packed>>(
        rows, count, kNumbers, 1, columns, kQueryTile, kNumbers,
        [&](int64_t j, int c, Vec sum) { store(scores + j * kQueryTile + c * kLanes, finish(j, c, sum)); });
  } else {
    for (int64_t start = 0; start < dim; start += kScoreStep) {
      const int64_t step = dim - start < kScoreStep ? dim - start : kScoreStep;
      product<kQueryVectors, kChains<Packed>>(rows + start, count, dim, 1, columns + start * kQueryTile, kQueryTile,
                                              step, [&](int64_t j, int c, Vec sum) {
                                                float* to = scores + j * kQueryTile + c * kLanes;
                                                if (start > 0) sum += load(to);
                                                store(to, start + step == dim ? finish(j, c, sum) : sum);
                                              });
    }
  }
}

// score * factor - offset leaves the offset's rounding, 2^-24 of it, in the exponent. Where some |offset| is larger
// than this, the largest scores are subtracted from the scores first, which is exact where it matters.
constexpr float kLargeOffset = 1024.0f;
inline bool is_large(const Vec (&offset)[kQueryVectors]) {
  bool any = false;
  for (int c = 0; c < kQueryVectors; ++c) any |= any_above(absolute(offset[c]), kLargeOffset);
  return any;
}

// A finite number to subtract from scores of at most `maximum`: -inf minus -inf would be NaN.
inline Vec pivot_of(Vec maximum) { return max(splat(-FLT_MAX), maximum); }

// Not inlined: it is seldom called.
__attribute__((noinline)) inline void subtract_from_scores(float* scores, int64_t keys,
                                                           const Vec (&pivot)[kQueryVectors]) {
  for (int64_t j = 0; j < keys; ++j)
    for (int c = 0; c < kQueryVectors; ++c) {
      float* to = scores + j * kQueryTile + c * kLanes;
      store(to, load(to) - pivot[c]);
    }
}

// The sum of term(j) over `count` keys, in four independent sums.
template <class Term>
inline Vec sum_over_keys(int64_t count, Term&& term) {
  Vec sums[4] = {};
  int64_t j = 0;
  for (; j + 4 <= count; j += 4)
    for (int i = 0; i < 4; ++i) sums[i] += term(j + i);
  for (; j < count; ++j) sums[0] += term(j);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Sums over keys of probabilities that are made one by one: four for each vector, for short sums round less.
struct KeySums {
  Vec sums[4][kQueryVectors] = {};

  void add(int64_t j, int c, Vec probability) { sums[j & 3][c] += probability; }
  Vec total(int c) const { return (sums[0][c] + sums[1][c]) + (sums[2][c] + sums[3][c]); }
};

// Stores probabilities term(j, c) of `keys` keys and both vectors of queries, and adds their sums over keys to `sums`.
// Pairs are of neighboring keys.
template <class Term>
inline void store_probabilities(int64_t keys, Term&& term, float* to, Vec (&sums)[kQueryVectors]) {
  for (int c = 0; c < kQueryVectors; ++c)
    sums[c] += sum_over_keys(keys, [&](int64_t j) {
      const Vec p = term(j, c);
      store(to + j * kQueryTile + c * kLanes, p);
      return p;
    });
}

// P and dS of a chunk of keys, packed: one row for each key; and dS once more, in pairs of keys.
template <class Packed>
struct ScoreGradients {
  Packed *p, *ds, *ds_over_keys;
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
      for (int r = 0; r < kLanes; ++r) {
        if (d == 0) __builtin_prefetch(from + (i + r + kQueryTile) * stride);  // of the next tile
        square[r] = load_vector(from + (i + r) * stride + d) * factor;
      }
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

// The queries of one token group, and the span of keys that they attend to.
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
#if defined(__AMX_TILE__)
#include "ops/attention_tiles.h"
#endif
