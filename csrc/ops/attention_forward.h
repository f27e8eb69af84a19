// Attention forward. A work item is one head and one block of queries of one group: its keys and values are packed
// once, then its queries are taken a tile at a time; the running maximum is corrected once a chunk of keys.

#pragma once

#include "ops/attention.h"

namespace {

constexpr int64_t kQueryBlock = 256;  // queries of an item: enough to pay for packing its keys

// Keys and values of one head, packed; `count` of them.
template <class Number>
struct PackedKeys {
  const Number *k, *v;
  int64_t count;
};

// Room for one query tile: Q^T, scores, probabilities, and the output of a segment or two. Where Numbers are floats the
// probabilities take the scores' place.
template <class Number>
struct TileScratch {
  Number *qt, *p;
  float *scores, *acc, *more;

  TileScratch(fermt::Carver& carver, int64_t dim) {
    qt = carve<Number>(carver, numbers<Number>(dim) * kQueryTile);
    scores = carver.floats(kKeyChunk * kQueryTile);
    if constexpr (kValues<Number> == 1)
      p = scores;
    else
      p = carve<Number>(carver, numbers<Number>(kKeyChunk) * kQueryTile);
    acc = carver.floats(dim * kQueryTile);
    more = carver.floats(dim * kQueryTile);
  }
};

// Room for one item: all of its packed keys and values, and a tile.
template <class Number>
struct ForwardScratch {
  Number *k, *v;
  TileScratch<Number> tile;

  ForwardScratch(fermt::Carver carver, int64_t keys, int64_t dim, size_t* bytes = nullptr)
      : k(carve<Number>(carver, keys * numbers<Number>(dim))),
        v(carve<Number>(carver, numbers<Number>(keys) * dim)),
        tile(carver, dim) {
    if (bytes) *bytes = carver.used;
  }
};

// The soft-max of one tile so far: each query's largest unscaled score, and the sum of 2^(factor (score - largest)).
struct SoftmaxState {
  Vec maximum[kQueryVectors], sum[kQueryVectors];
};

// The tile over packed keys, a chunk at a time: its output before the division in `acc`. Not inlined: one copy serves
// all dtypes.
template <int Dim, class Number>
__attribute__((noinline)) SoftmaxState attention_forward_segment(const TileScratch<Number>& s,
                                                                 const PackedKeys<Number>& keys, int64_t dim,
                                                                 Vec factor, float* acc) {
  const int64_t dim_numbers = numbers<Number>(dim);
  SoftmaxState state = {};
  for (int c = 0; c < kQueryVectors; ++c) state.maximum[c] = splat(-INFINITY);
  memset(acc, 0, sizeof(float) * dim * kQueryTile);
  for (int64_t start = 0; start < keys.count; start += kKeyChunk) {
    const int64_t chunk = keys.count - start < kKeyChunk ? keys.count - start : kKeyChunk;
    Vec larger[kQueryVectors], offset[kQueryVectors];
    for (int c = 0; c < kQueryVectors; ++c) larger[c] = state.maximum[c];
    product_over_dims<Dim>(keys.k + start * dim_numbers, chunk, s.qt, dim_numbers, s.scores,
                           [&](int64_t, int c, Vec score) { larger[c] = max(larger[c], score); });
    for (int c = 0; c < kQueryVectors; ++c) {
      offset[c] = larger[c] * factor;
      if (start > 0) {
        const Vec correction = exp2_nonpositive(state.maximum[c] * factor - offset[c]);
        state.sum[c] *= correction;
        for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile) store(acc + i, load(acc + i) * correction);
      }
      state.maximum[c] = larger[c];
    }
    // score * factor - offset is rounded once, near 0 where it counts; the offset's rounding falls out with the sum.
    const auto probability = [&](int64_t j, int c) {
      return exp2_of_score(load(s.scores + j * kQueryTile + c * kLanes) * factor - offset[c]);
    };
    store_probabilities(chunk, probability, s.p, state.sum);
    add_product_over_keys(keys.v + numbers<Number>(start) * dim, dim, s.p, numbers<Number>(chunk), acc);
  }
  return state;
}

// Joins a further segment to the first ones: all = all 2^(factor (largest - larger)) + more 2^(...).
inline void merge_segments(int64_t dim, Vec factor, const SoftmaxState& more, const float* more_acc, SoftmaxState* all,
                           float* acc) {
  for (int c = 0; c < kQueryVectors; ++c) {
    const Vec larger = max(all->maximum[c], more.maximum[c]), offset = larger * factor;
    const Vec old_part = exp2_nonpositive(all->maximum[c] * factor - offset);
    const Vec new_part = exp2_nonpositive(more.maximum[c] * factor - offset);
    for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile)
      store(acc + i, load(acc + i) * old_part + load(more_acc + i) * new_part);
    all->sum[c] = all->sum[c] * old_part + more.sum[c] * new_part;
    all->maximum[c] = larger;
  }
}

// lse of `count` queries: the logarithm of the sum of their scores' exponentials.
inline void store_lse(const SoftmaxState& state, Vec factor, double scale, int64_t keys, int64_t count, float* lse) {
  for (int c = 0; c < kQueryVectors; ++c) {
    float largest[kLanes], whole[kLanes], rest[kLanes];  // of the scores; and of log2 of the sum of exponentials
    Vec log_whole, log_rest;
    log2_in_parts(state.sum[c], &log_whole, &log_rest);
    store(largest, keys == 1 ? state.maximum[c] : state.maximum[c] * factor);
    store(whole, log_whole);
    store(rest, log_rest);
    const double unit = keys == 1 ? fabs(scale) : kLn2;  // of one key, lse is its score itself
    float lse_of[kLanes];
    for (int i = 0; i < kLanes; ++i)
      lse_of[i] = static_cast<float>((static_cast<double>(largest[i]) + whole[i] + rest[i]) * unit);
    const int64_t first = c * kLanes, missing = first + kLanes - count;
    if (missing < kLanes) memcpy(lse + first, lse_of, sizeof(float) * (missing > 0 ? kLanes - missing : kLanes));
  }
}

// One tile of `count` queries over the keys of `spans`; Dim > 0 is the head dim. Many keys are taken in segments, whose
// sums are joined: a long sum made of short ones. lse may be null.
template <class T, int Dim>
__attribute__((noinline)) void attention_forward_tile(const TileScratch<typename NumberOf<T>::type>& s,
                                                      const PackedKeys<typename NumberOf<T>::type>* spans,
                                                      int span_count, int64_t dim, double scale, const T* q,
                                                      int64_t q_stride, int64_t count, T* out, int64_t out_stride,
                                                      float* lse) {
  using Number = typename NumberOf<T>::type;
  if (Dim > 0) dim = Dim;
  const Vec factor = splat(static_cast<float>(fabs(scale) * kLog2E));  // the soft-max is taken in base 2
  pack_columns(q, q_stride, count, dim, scale < 0, s.qt);
  SoftmaxState state = {};
  int64_t keys = 0;
  for (const PackedKeys<Number>* span = spans; span < spans + span_count; ++span)
    for (int64_t start = 0; start < span->count; start += kSegment) {
      const PackedKeys<Number> segment = {span->k + start * numbers<Number>(dim),
                                          span->v + numbers<Number>(start) * dim,
                                          span->count - start < kSegment ? span->count - start : kSegment};
      if (keys == 0) {
        state = attention_forward_segment<Dim>(s, segment, dim, factor, s.acc);
      } else {
        const SoftmaxState more = attention_forward_segment<Dim>(s, segment, dim, factor, s.more);
        merge_segments(dim, factor, more, s.more, &state, s.acc);
      }
      keys += segment.count;
    }
  for (int c = 0; c < kQueryVectors; ++c)
    for (int64_t i = c * kLanes; i < dim * kQueryTile; i += kQueryTile)
      store(s.acc + i, load(s.acc + i) / state.sum[c]);
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
  using Scratch = ForwardScratch<typename NumberOf<T>::type>;
  size_t bytes = 0;
  Scratch(fermt::Carver{}, keys, dim, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kItemScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const Scratch scratch(fermt::Carver{base}, keys, dim);
  pack_rows(at<T>(a.k, b, h, group.key_start), a.k.strides[2], keys, dim, scratch.k);
  pack_row_pairs(at<T>(a.v, b, h, group.key_start), a.v.strides[2], keys, dim, dim, scratch.v);
  const PackedKeys<typename NumberOf<T>::type> span = {scratch.k, scratch.v, keys};
  const auto tile = dim == 16 ? attention_forward_tile<T, 16> : attention_forward_tile<T, 0>;
  for (int64_t i = group.query_start; i < group.query_stop; i += kQueryTile) {
    const int64_t left = group.query_stop - i;
    tile(scratch.tile, &span, 1, dim, a.shape.scale, at<T>(a.q, b, h, i), a.q.strides[2],
         left < kQueryTile ? left : kQueryTile, at<T>(a.out, b, h, i), a.out.strides[2], lse + i);
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
