// Attention in pairs of bfloat16: how they are packed, and how probabilities become pairs.
//
// Queries, keys, values and gradients are exact in pairs; probabilities and the scores' gradients are rounded to
// bfloat16, as PyTorch rounds them. A product over the head dim takes pairs of dimensions, one over keys pairs of keys,
// one over queries pairs of queries; where a count is odd the second of the last pair is 0.

#pragma once

#include "ops/attention.h"

namespace {

template <class Term>
inline void store_probabilities(int64_t keys, Term&& term, BFloat16Pair* to, Vec (&sums)[kQueryVectors]) {
  for (int c = 0; c < kQueryVectors; ++c) {
    BFloat16Pair* column = to + c * kLanes;
    sums[c] += sum_over_keys(keys / 2, [&](int64_t pair) {
      const Vec even = term(2 * pair, c), odd = term(2 * pair + 1, c);
      store(column + pair * kQueryTile, narrow_in_pairs(even, odd));
      return even + odd;
    });
    if (keys % 2 == 0) continue;
    const Vec last = term(keys - 1, c);
    store(column + keys / 2 * kQueryTile, narrow_in_pairs(last, Vec{}));
    sums[c] += last;
  }
}

template <class Probability>
inline void store_score_gradients(int64_t keys, Probability&& probability, const float* grad_scores,
                                  const Vec (&delta)[kQueryVectors], const ScoreGradients<BFloat16Pair>& to) {
  static_assert(kQueryVectors == 2, "a row of a tile is one vector of pairs");
  for (int64_t j = 0; j < keys; j += 2) {
    Vec p[2][2] = {}, ds[2][2] = {};
    for (int odd = 0; odd < 2 && j + odd < keys; ++odd)
      for (int c = 0; c < 2; ++c) {
        p[odd][c] = probability(j + odd, c);
        ds[odd][c] = p[odd][c] * (load(grad_scores + (j + odd) * kQueryTile + c * kLanes) - delta[c]);
      }
    for (int odd = 0; odd < 2; ++odd) {
      store(to.p + (j + odd) * kLanes, narrow(p[odd][0], p[odd][1]));
      store(to.ds + (j + odd) * kLanes, narrow(ds[odd][0], ds[odd][1]));
    }
    for (int c = 0; c < 2; ++c)
      store(to.ds_over_keys + j / 2 * kQueryTile + c * kLanes, narrow_in_pairs(ds[0][c], ds[1][c]));
  }
}

inline void pack_columns(const BFloat16* from, int64_t stride, int64_t count, int64_t dim, bool negated,
                         BFloat16Pair* to) {
  const int64_t pairs = numbers<BFloat16Pair>(dim);
  const int32_t signs = negated ? static_cast<int32_t>(0x80008000) : 0;
  for (int64_t i = 0; i < kQueryTile; i += kLanes)
    for (int64_t first = 0; first < pairs; first += kLanes) {
      Vec square[kLanes];
      for (int r = 0; r < kLanes; ++r)
        square[r] =
            i + r < count ? (Vec)(load_values(from + (i + r) * stride + 2 * first, dim - 2 * first) ^ signs) : Vec{};
      transpose(square);
      for (int r = 0; r < kLanes && first + r < pairs; ++r) store(to + (first + r) * kQueryTile + i, (VecInt)square[r]);
    }
}

}  // namespace
