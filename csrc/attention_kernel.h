// Attention forward, float32, for every pattern: the queries of a group see one span of keys.
//
// A work item is one head and one block of queries of one group; its keys and values are packed once, then its queries
// are taken a tile at a time. Vector lanes are queries: a tile's scores are kept transposed (a key a row), so that the
// soft-max's maximum and sum run down the rows without a horizontal step, and both matrix products broadcast one
// number of K or V against a vector of queries. Keys come in chunks whose scores stay in L1; the running maximum is
// corrected once a chunk. Nothing is ever tokens x tokens.
//
// An item's result does not depend on the thread that computes it, nor on how many there are.

#pragma once

#include <math.h>

#include "abi.h"
#include "parallel.h"
#include "simd.h"

namespace {

constexpr int kQueryVectors = 2;
constexpr int kQueryTile = kQueryVectors * kLanes;
constexpr int kRowTile = FERMT_VECTOR_BYTES == 64 ? 8 : 4;  // rows of K, or columns of V, that share loaded queries
constexpr int64_t kKeyChunk = 64;
constexpr int64_t kQueryBlock = 256;  // queries of an item: enough to pay for packing its keys

struct AttentionItem {
  const fermt_attention_forward_args& args;
  int64_t batch, head;
  int64_t query_start, query_stop;
  int64_t key_start, key_stop;
};

// Room for one item: packed keys and values, and one query tile's Q^T, scores and accumulated output.
struct AttentionScratch {
  float *k, *v, *qt, *scores, *acc;

  static size_t floats(int64_t keys, int64_t dim) {
    return static_cast<size_t>(2 * round_up(keys * dim) + 2 * dim * kQueryTile + kKeyChunk * kQueryTile);
  }
  AttentionScratch(float* base, int64_t keys, int64_t dim)
      : k(base),
        v(k + round_up(keys * dim)),
        qt(v + round_up(keys * dim)),
        scores(qt + dim * kQueryTile),
        acc(scores + kKeyChunk * kQueryTile) {}
  static int64_t round_up(int64_t count) { return (count + 15) / 16 * 16; }
};

inline void pack_rows(const float* from, int64_t stride, int64_t rows, int64_t dim, float* to) {
  for (int64_t row = 0; row < rows; ++row) memcpy(to + row * dim, from + row * stride, sizeof(float) * dim);
}

// out[r][:] = or += rows[r][:] @ columns, for Rows rows: rows[r][i] broadcast against the query vectors columns[i].
// A sum starts from 0 and joins `out` at its end: short partial sums keep float32's error small.
template <int Rows, bool Accumulate>
inline void multiply_rows(const float* rows, int64_t row_stride, int64_t inner_stride, const float* columns,
                          int64_t inner, float* out) {
  Vec acc[Rows][kQueryVectors] = {};
  for (int64_t i = 0; i < inner; ++i) {
    Vec column[kQueryVectors];
    for (int c = 0; c < kQueryVectors; ++c) column[c] = load(columns + i * kQueryTile + c * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec value = splat(rows[r * row_stride + i * inner_stride]);
      for (int c = 0; c < kQueryVectors; ++c) acc[r][c] += value * column[c];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < kQueryVectors; ++c) {
      float* to = out + r * kQueryTile + c * kLanes;
      store(to, Accumulate ? load(to) + acc[r][c] : acc[r][c]);
    }
}

// The same for any number of rows.
template <bool Accumulate>
inline void multiply(const float* rows, int64_t count, int64_t row_stride, int64_t inner_stride, const float* columns,
                     int64_t inner, float* out) {
  int64_t r = 0;
  for (; r + kRowTile <= count; r += kRowTile)
    multiply_rows<kRowTile, Accumulate>(rows + r * row_stride, row_stride, inner_stride, columns, inner,
                                        out + r * kQueryTile);
  for (; r < count; ++r)
    multiply_rows<1, Accumulate>(rows + r * row_stride, row_stride, inner_stride, columns, inner,
                                 out + r * kQueryTile);
}

// scores = k @ q^T of `count` packed keys; Dim > 0 is the head dim known at compile time.
template <int Dim>
inline void multiply_scores(const float* k, int64_t count, const float* qt, int64_t dim, float* scores) {
  constexpr int64_t kStep = 32;
  if (Dim > 0 && Dim <= kStep) {
    multiply<false>(k, count, Dim, 1, qt, Dim, scores);
    return;
  }
  multiply<false>(k, count, dim, 1, qt, dim < kStep ? dim : kStep, scores);
  for (int64_t d = kStep; d < dim; d += kStep)
    multiply<true>(k + d, count, dim, 1, qt + d * kQueryTile, dim - d < kStep ? dim - d : kStep, scores);
}

// One tile of `count` queries from `query` on, over the item's packed keys.
template <int Dim>
inline void attention_forward_tile(const AttentionItem& item, const AttentionScratch& scratch, int64_t query,
                                   int64_t count) {
  const fermt_attention_forward_args& a = item.args;
  const int64_t dim = Dim > 0 ? Dim : a.head_dim;
  const int64_t keys = item.key_stop - item.key_start;
  const Vec scale = splat(a.scale * 1.44269504f);  // times log2(e): the soft-max is taken in base 2
  const float* q = a.q + item.batch * a.q_strides[0] + item.head * a.q_strides[1] + query * a.q_strides[2];
  float* out = a.out + item.batch * a.out_strides[0] + item.head * a.out_strides[1] + query * a.out_strides[2];
  float* lse = a.lse + (item.batch * a.heads + item.head) * a.tokens + query;

  for (int64_t d = 0; d < dim; ++d)
    for (int64_t i = 0; i < kQueryTile; ++i)
      scratch.qt[d * kQueryTile + i] = i < count ? q[i * a.q_strides[2] + d] : 0.0f;
  memset(scratch.acc, 0, sizeof(float) * dim * kQueryTile);

  Vec maximum[kQueryVectors], sum[kQueryVectors];
  for (int c = 0; c < kQueryVectors; ++c) {
    maximum[c] = splat(-INFINITY);
    sum[c] = Vec{};
  }
  for (int64_t start = 0; start < keys; start += kKeyChunk) {
    const int64_t chunk = keys - start < kKeyChunk ? keys - start : kKeyChunk;
    multiply_scores<Dim>(scratch.k + start * dim, chunk, scratch.qt, dim, scratch.scores);
    for (int c = 0; c < kQueryVectors; ++c) {
      float* scores = scratch.scores + c * kLanes;
      Vec larger = load(scores) * scale;
      for (int64_t j = 1; j < chunk; ++j) larger = max(larger, load(scores + j * kQueryTile) * scale);
      larger = max(larger, maximum[c]);
      const Vec correction = exp2_nonpositive(maximum[c] - larger);
      Vec total = Vec{};
      for (int64_t j = 0; j < chunk; ++j) {
        // One rounding, near the maximum where it counts; the maximum's own rounding falls out with the sum.
        const Vec p = exp2_nonpositive(load(scores + j * kQueryTile) * scale - larger);
        total += p;
        store(scores + j * kQueryTile, p);
      }
      maximum[c] = larger;
      sum[c] = sum[c] * correction + total;
      if (start > 0)
        for (int64_t d = 0; d < dim; ++d) {
          float* acc = scratch.acc + d * kQueryTile + c * kLanes;
          store(acc, load(acc) * correction);
        }
    }
    multiply<true>(scratch.v + start * dim, dim, 1, dim, scratch.scores, chunk, scratch.acc);
  }

  for (int c = 0; c < kQueryVectors; ++c) {
    for (int64_t d = 0; d < dim; ++d) {
      float* acc = scratch.acc + d * kQueryTile + c * kLanes;
      store(acc, load(acc) / sum[c]);
    }
    for (int lane = 0; lane < kLanes && c * kLanes + lane < count; ++lane)
      lse[c * kLanes + lane] = (maximum[c][lane] + log2f(sum[c][lane])) * 0.693147181f;
  }
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < dim; ++d) out[i * a.out_strides[2] + d] = scratch.acc[d * kQueryTile + i];
}

inline void attention_forward_nothing_seen(const AttentionItem& item) {
  const fermt_attention_forward_args& a = item.args;
  float* out = a.out + item.batch * a.out_strides[0] + item.head * a.out_strides[1];
  float* lse = a.lse + (item.batch * a.heads + item.head) * a.tokens;
  for (int64_t i = item.query_start; i < item.query_stop; ++i) {
    memset(out + i * a.out_strides[2], 0, sizeof(float) * a.head_dim);
    lse[i] = -INFINITY;
  }
}

inline fermt_status attention_forward_item(const AttentionItem& item) {
  const fermt_attention_forward_args& a = item.args;
  const int64_t keys = item.key_stop - item.key_start;
  if (keys == 0) {
    attention_forward_nothing_seen(item);
    return FERMT_OK;
  }
  float* base = static_cast<float*>(fermt::thread_scratch(AttentionScratch::floats(keys, a.head_dim) * sizeof(float)));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const AttentionScratch scratch(base, keys, a.head_dim);
  pack_rows(a.k + item.batch * a.k_strides[0] + item.head * a.k_strides[1] + item.key_start * a.k_strides[2],
            a.k_strides[2], keys, a.head_dim, scratch.k);
  pack_rows(a.v + item.batch * a.v_strides[0] + item.head * a.v_strides[1] + item.key_start * a.v_strides[2],
            a.v_strides[2], keys, a.head_dim, scratch.v);
  const auto tile = a.head_dim == 16 ? attention_forward_tile<16> : attention_forward_tile<0>;
  for (int64_t query = item.query_start; query < item.query_stop; query += kQueryTile) {
    const int64_t left = item.query_stop - query;
    tile(item, scratch, query, left < kQueryTile ? left : kQueryTile);
  }
  return FERMT_OK;
}

fermt_status attention_forward(const fermt_attention_forward_args& a) {
  const int64_t template_blocks = (a.num_template + kQueryBlock - 1) / kQueryBlock;
  const int64_t search_blocks = (a.tokens - a.num_template + kQueryBlock - 1) / kQueryBlock;
  const int64_t blocks = template_blocks + search_blocks;
  int32_t failed = FERMT_OK;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t block = index % blocks, head = index / blocks;
      const bool is_template = block < template_blocks;
      const int64_t start =
          is_template ? block * kQueryBlock : a.num_template + (block - template_blocks) * kQueryBlock;
      const int64_t group_stop = is_template ? a.num_template : a.tokens;
      const int64_t stop = start + kQueryBlock < group_stop ? start + kQueryBlock : group_stop;
      const int64_t* keys = is_template ? a.template_keys : a.search_keys;
      const AttentionItem item{a, head / a.heads, head % a.heads, start, stop, keys[0], keys[1]};
      const fermt_status status = attention_forward_item(item);
      if (status) __atomic_store_n(&failed, static_cast<int32_t>(status), __ATOMIC_RELAXED);
    }
  };
  const fermt_status status = fermt::parallel_for(a.parallel_for, a.batch * a.heads * blocks, body);
  return status ? status : static_cast<fermt_status>(failed);
}

}  // namespace
