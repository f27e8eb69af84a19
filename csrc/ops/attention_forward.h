// Attention forward. A work item is one head and one block of queries of one token group. Its keys and values are
// packed once, then each tile of queries runs an online soft-max over chunks of keys.

#pragma once

#include "ops/attention_keys.h"

namespace {

constexpr int64_t kQueryBlock = 256;  // queries of a work item: enough to amortize packing its keys

// Buffers of one query tile: Q^T, scores, probabilities (in place of the scores if packed as floats), and the output of
// all segments so far and of one more.
template <class Packed>
struct TileScratch {
  Packed *qt, *p;
  float *scores, *acc, *segment_acc;

  TileScratch(Arena& arena, int64_t dim) {
    qt = allocate<Packed>(arena, packed_count<Packed>(dim) * kQueryTile);
    scores = arena.floats(kKeyChunk * kQueryTile);
    if constexpr (kPackFactor<Packed> == 1)
      p = scores;
    else
      p = allocate<Packed>(arena, packed_count<Packed>(kKeyChunk) * kQueryTile);
    acc = arena.floats(dim * kQueryTile);
    segment_acc = arena.floats(dim * kQueryTile);
  }
};

// Buffers of one work item.
template <class Packed>
struct ForwardScratch {
  Packed *k, *v;
  TileScratch<Packed> tile;
  float* largest_key;  // of KeyBounds

  ForwardScratch(Arena arena, const KeyLayout<Packed>& layout, size_t* bytes = nullptr)
      : k(allocate<Packed>(arena, layout.key_count() + layout.padding())),
        v(allocate<Packed>(arena, layout.value_count())),
        tile(arena, layout.dim),
        largest_key(arena.floats(layout.dim)) {
    if (bytes) *bytes = arena.used;
  }
};

// Online soft-max of one tile: each query's maximum unscaled score, and the sum of 2^(factor (score - maximum)).
struct SoftmaxState {
  Vec maximum[kQueryVectors], sum[kQueryVectors];
};

// Scores in base 2 of at most this are exponentiated as they are: with values within the limits below, neither the
// powers nor their products with values leave the range of floats, and no digit is lost.
constexpr float kBoundedScore = 60.0f;
constexpr float kLeastValue = 1e-12f, kLargestValue = 1e12f;

// The largest |k| of each dimension of some keys, from which a bound of their scores follows.
struct KeyBounds {
  float* largest;  // null: the scores of all queries are bounded
  bool usable;     // false: scores must be compared

  static KeyBounds of(const PackedKeys<float>& keys, int64_t dim, float* largest) {
    if (dim % kLanes != 0) return {largest, false};
    Vec value = {};
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec key = {};
      for (int64_t j = 0; j < keys.count; ++j) {
        key = max(key, absolute(load(keys.k + j * dim + d)));
        value = max(value, absolute(load(keys.v + j * dim + d)));
      }
      store(largest + d, key);
    }
    return {largest, any_above(value, kLeastValue) && !any_above(value, kLargestValue)};
  }

  // Whether the scores of a tile's queries are bounded. NaN is: it stays NaN either way.
  bool hold(const float* qt, int64_t dim, Vec factor) const {
    if (!usable || !largest) return usable;
    bool above = false;
    for (int c = 0; c < kQueryVectors; ++c) {
      Vec bound = {};
      for (int64_t d = 0; d < dim; ++d)
        bound = multiply_add(bound, absolute(load(qt + d * kQueryTile + c * kLanes)), splat(largest[d]));
      above |= any_above(bound * factor, kBoundedScore);
    }
    return !above;
  }
};

// attention_forward_segment where all scores are bounded: there is no maximum to find first, so that a score becomes a
// probability while it is in a register.
template <int Dim>
__attribute__((noinline)) SoftmaxState attention_forward_bounded_segment(const TileScratch<float>& s,
                                                                         const PackedKeys<float>& keys, int64_t dim,
                                                                         Vec factor, float* acc) {
  if (Dim > 0) dim = Dim;
  SoftmaxState state = {};
  memset(acc, 0, sizeof(float) * dim * kQueryTile);
  for (int64_t start = 0; start < keys.count; start += kKeyChunk) {
    const int64_t chunk = keys.count - start < kKeyChunk ? keys.count - start : kKeyChunk;
    KeySums sums;
    compute_scores<Dim>(keys.k + start * dim, chunk, s.qt, dim, s.p, [&](int64_t j, int c, Vec score) {
      const Vec probability = exp2_of_bounded_score(score, factor);
      sums.add(j, c, probability);
      return probability;
    });
    for (int c = 0; c < kQueryVectors; ++c) state.sum[c] += sums.total(c);
    add_product_over_keys(keys.v + start * dim, dim, s.p, chunk, acc);
  }
  return state;
}

// Runs the tile over packed keys, a chunk at a time; leaves the output before the division in `acc`. Not inlined: one
// copy serves all dtypes.
template <int Dim, class Packed>
__attribute__((noinline)) SoftmaxState attention_forward_segment(const TileScratch<Packed>& s,
                                                                 const PackedKeys<Packed>& keys, int64_t dim,
                                                                 Vec factor, float* acc) {
  const int64_t dim_numbers = packed_count<Packed>(dim);
  const KeyLayout<Packed> layout = keys.layout(dim);
  SoftmaxState state = {};
  for (int c = 0; c < kQueryVectors; ++c) state.maximum[c] = splat(-INFINITY);
  memset(acc, 0, sizeof(float) * dim * kQueryTile);
  for (int64_t start = 0; start < keys.count; start += kKeyChunk) {
    const int64_t chunk = keys.count - start < kKeyChunk ? keys.count - start : kKeyChunk;
    Vec larger[kQueryVectors], offset[kQueryVectors], pivot[kQueryVectors];
    for (int c = 0; c < kQueryVectors; ++c) larger[c] = state.maximum[c];
    compute_scores<Dim>(keys.k + start * dim_numbers, chunk, s.qt, dim, s.scores, [&](int64_t, int c, Vec score) {
      larger[c] = max(larger[c], score);
      return score;
    });
    for (int c = 0; c < kQueryVectors; ++c) {
      offset[c] = larger[c] * factor;
      pivot[c] = pivot_of(larger[c]);
      if (start > 0) {
        const Vec correction = exp2_nonpositive((state.maximum[c] - pivot[c]) * factor);
        state.sum[c] *= correction;
        for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile) store(acc + i, load(acc + i) * correction);
      }
      state.maximum[c] = larger[c];
    }
    if (is_large(offset)) {
      subtract_from_scores(s.scores, chunk, pivot);
      for (Vec& of_query : offset) of_query = Vec{};
    }
    // score * factor - offset is rounded once, finely near 0 where it matters; the offset's rounding cancels in the
    // division by the sum.
    const auto probability = [&](int64_t j, int c) {
      return exp2_of_score(load(s.scores + j * kQueryTile + c * kLanes) * factor - offset[c]);
    };
    store_probabilities(chunk, probability, s.p, state.sum);
    layout.add_product(keys.v + layout.value_at(start), s.p, chunk, acc);
  }
  return state;
}

// Merges one more segment: all = all 2^(factor (maximum - larger)) + segment 2^(...).
inline void merge_segments(int64_t dim, Vec factor, const SoftmaxState& segment, const float* segment_acc,
                           SoftmaxState* all, float* acc) {
  for (int c = 0; c < kQueryVectors; ++c) {
    const Vec larger = max(all->maximum[c], segment.maximum[c]), pivot = pivot_of(larger);
    const Vec old_part = exp2_nonpositive((all->maximum[c] - pivot) * factor);
    const Vec new_part = exp2_nonpositive((segment.maximum[c] - pivot) * factor);
    for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile)
      store(acc + i, load(acc + i) * old_part + load(segment_acc + i) * new_part);
    all->sum[c] = all->sum[c] * old_part + segment.sum[c] * new_part;
    all->maximum[c] = larger;
  }
}

// lse of `count` queries: the logarithm of the sum of the exponentials of their scores.
inline void store_lse(const SoftmaxState& state, Vec factor, double scale, int64_t keys, int64_t count, float* lse) {
  for (int c = 0; c < kQueryVectors; ++c) {
    float maximum[kLanes], integer[kLanes], fraction[kLanes];  // of the scores; log2 of the sum, in two parts
    Vec log_integer, log_fraction;
    log2_in_parts(state.sum[c], &log_integer, &log_fraction);
    store(maximum, keys == 1 ? state.maximum[c] : state.maximum[c] * factor);
    store(integer, log_integer);
    store(fraction, log_fraction);
    const double unit = keys == 1 ? fabs(scale) : kLn2;  // with one key, lse is its score
    float lse_of[kLanes];
    for (int i = 0; i < kLanes; ++i)
      lse_of[i] = static_cast<float>((static_cast<double>(maximum[i]) + integer[i] + fraction[i]) * unit);
    const int64_t first = c * kLanes, missing = first + kLanes - count;
    if (missing < kLanes) memcpy(lse + first, lse_of, sizeof(float) * (missing > 0 ? kLanes - missing : kLanes));
  }
}

// One tile of `count` queries over the keys of `spans`. Many keys are taken in segments, which are merged: a long sum
// made of short ones. Dim > 0 is the head dim if it is known at compile time. lse may be null. Where it varies which
// queries share a tile, `bounds` must be those of all of them: a query's roundings would depend on its neighbors.
template <class T, int Dim>
__attribute__((noinline)) void attention_forward_tile(const TileScratch<typename PackedOf<T>::type>& s,
                                                      const PackedKeys<typename PackedOf<T>::type>* spans,
                                                      int span_count, int64_t dim, double scale, const T* q,
                                                      int64_t q_stride, int64_t count, T* out, int64_t out_stride,
                                                      float* lse, KeyBounds bounds) {
  using Packed = typename PackedOf<T>::type;
  if (Dim > 0) dim = Dim;
  const Vec factor = splat(static_cast<float>(fabs(scale) * kLog2E));  // the soft-max is taken in base 2
  pack_columns(q, q_stride, count, dim, scale < 0, s.qt);
  auto run_segment = attention_forward_segment<Dim, Packed>;
  if constexpr (kPackFactor<Packed> == 1)
    if (bounds.hold(s.qt, dim, factor)) run_segment = attention_forward_bounded_segment<Dim>;
  SoftmaxState state = {};
  int64_t keys = 0;
  for (const PackedKeys<Packed>* span = spans; span < spans + span_count; ++span)
    for (int64_t start = 0; start < span->count; start += kSegment) {
      const PackedKeys<Packed> segment =
          span->from(start, dim, span->count - start < kSegment ? span->count - start : kSegment);
      if (keys == 0) {
        state = run_segment(s, segment, dim, factor, s.acc);
      } else {
        const SoftmaxState next = run_segment(s, segment, dim, factor, s.segment_acc);
        merge_segments(dim, factor, next, s.segment_acc, &state, s.acc);
      }
      keys += segment.count;
    }
  for (int c = 0; c < kQueryVectors; ++c) {
    const Vec sum = state.sum[c] + 0.0f * state.maximum[c];  // NaN where all scores are -inf
    for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile) store(s.acc + i, load(s.acc + i) / sum);
  }
  if (lse) store_lse(state, factor, scale, keys, count, lse);
  unpack_columns(s.acc, count, dim, out, out_stride);
}

template <class T>
inline fermt_status attention_forward_item(const fermt_attention_forward_args& a, int64_t b, int64_t h,
                                           const QueryGroup& group) {
  const int64_t dim = a.shape.head_dim, keys = group.key_stop - group.key_start;
  float* lse = a.lse + (b * a.shape.heads + h) * a.shape.tokens;
  if (keys == 0) {
    for (int64_t i = group.query_start; i < group.query_stop; ++i) {
      memset(at<T>(a.out, b, h, i), 0, sizeof(T) * dim);
      lse[i] = -INFINITY;
    }
    return FERMT_OK;
  }
  using Scratch = ForwardScratch<typename PackedOf<T>::type>;
  const KeyLayout<typename PackedOf<T>::type> layout(keys, dim);
  size_t bytes = 0;
  Scratch(Arena{}, layout, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kItemScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const Scratch scratch(Arena{base}, layout);
  layout.pack(at<T>(a.k, b, h, group.key_start), a.k.strides[2], at<T>(a.v, b, h, group.key_start), a.v.strides[2],
              keys, scratch.k, scratch.v);
  const PackedKeys<typename PackedOf<T>::type> span = {scratch.k, scratch.v, keys, layout.value_stride};
  KeyBounds bounds = {};
  if constexpr (kPackFactor<typename PackedOf<T>::type> == 1)
    if (keys > 1) bounds = KeyBounds::of(span, dim, scratch.largest_key);
  const TileScope tiles(attention_depth(dim));
  const auto tile = dim == 16 ? attention_forward_tile<T, 16> : attention_forward_tile<T, 0>;
  for (int64_t i = group.query_start; i < group.query_stop; i += kQueryTile) {
    const int64_t left = group.query_stop - i;
    tile(scratch.tile, &span, 1, dim, a.shape.scale, at<T>(a.q, b, h, i), a.q.strides[2],
         left < kQueryTile ? left : kQueryTile, at<T>(a.out, b, h, i), a.out.strides[2], lse + i, bounds);
  }
  return FERMT_OK;
}

template <class T>
fermt_status attention_forward_as(const fermt_attention_forward_args& a) {
  const fermt_attention_shape& shape = a.shape;
  const int64_t template_blocks = (shape.num_template + kQueryBlock - 1) / kQueryBlock;
  const int64_t search_blocks = (shape.tokens - shape.num_template + kQueryBlock - 1) / kQueryBlock;
  const int64_t blocks = template_blocks + search_blocks;
  return fermt::run_items(a.parallel_for, shape.batch * shape.heads * blocks, [&](int64_t index) {
    const int64_t block = index % blocks, head = index / blocks;
    QueryGroup group = query_group(shape, block < template_blocks);
    group.query_start += (block < template_blocks ? block : block - template_blocks) * kQueryBlock;
    if (group.query_stop > group.query_start + kQueryBlock) group.query_stop = group.query_start + kQueryBlock;
    return attention_forward_item<T>(a, head / shape.heads, head % shape.heads, group);
  });
}

}  // namespace
