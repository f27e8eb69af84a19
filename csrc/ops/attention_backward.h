// Attention backward. A work item is one head, or where heads are few a part of its queries: it recomputes the
// probabilities from lse, one query tile and one chunk of keys at a time, and accumulates dK and dV in buffers of its
// own. Whoever is done last with a head adds up its parts, always in the same order.
//
//   P = exp(scale Q K^T - lse)     dP = dO V^T     dS = P (dP - delta), delta = rowsum(dO O)
//   dQ = scale dS K                dK = scale dS^T Q               dV = P^T dO
//
// In float, each row of P is divided by its sum, which is 1 but for the rounding of lse: float32's lse near 10 is off
// by up to 5e-7, which would be the largest error of all. So P of a tile is computed for all keys first.

#pragma once

#include <atomic>
#include <new>

#include "ops/attention_keys.h"

namespace {

// Items of a call, if its heads have as many tiles: 16 threads are busy for three quarters of the time then.
constexpr int64_t kLeastItems = 24;

// Buffers of one work item. Rows that become vector columns are padded to whole vectors: `width`.
template <class Packed>
struct BackwardScratch {
  Packed *k, *v, *k_over_keys;  // keys x dim; the last: of the current group, as a KeyLayout's values
  float *grad_k, *grad_v, *segment_k, *segment_v;  // keys x width, each pair in one piece: of all queries, of a segment
  Packed *qt, *grad_outt;                          // dim x tile
  float *grad_qt, *zeros;                          // dim x tile; dim: 0, or NaN where the group has an infinite key
  Packed *q, *grad_out;                            // tile x width
  float *scores, *grad_scores;                     // keys x tile: Q K^T or P; a chunk of dO V^T
  ScoreGradients<Packed> gradients;                // of a chunk; in float, in place of the scores

  // `sums`, if not null, has grad_k and grad_v.
  BackwardScratch(Arena arena, int64_t keys, int64_t dim, int64_t width, size_t* bytes = nullptr,
                  float* sums = nullptr) {
    Packed** const of_keys[] = {&k, &v};  // tiles read up to kLanes rows behind the last
    for (Packed** part : of_keys)
      *part = allocate<Packed>(arena, (keys + (kTiled<Packed> ? kLanes : 0)) * packed_count<Packed>(dim));
    const int64_t numbers = keys * width;
    float* const own = arena.floats(2 * numbers);
    grad_k = sums ? sums : own;
    grad_v = grad_k + numbers;
    segment_k = keys > kSegment ? arena.floats(2 * numbers) : grad_k;  // few queries are one segment
    segment_v = segment_k + numbers;
    Packed** const columns[] = {&qt, &grad_outt};
    for (Packed** part : columns) *part = allocate<Packed>(arena, packed_count<Packed>(dim) * kQueryTile);
    grad_qt = arena.floats(dim * kQueryTile);
    zeros = arena.floats(dim);
    Packed** const rows[] = {&q, &grad_out};
    for (Packed** part : rows) *part = allocate<Packed>(arena, packed_count<Packed>(kQueryTile) * width);
    grad_scores = arena.floats(kKeyChunk * kQueryTile);
    if constexpr (kPackFactor<Packed> == 1) {
      k_over_keys = k;
      scores = arena.floats(keys * kQueryTile);
      gradients = {};
    } else {
      k_over_keys = allocate<Packed>(arena, round_up(packed_count<Packed>(keys), kLanes) * dim);
      scores = arena.floats(kKeyChunk * kQueryTile);
      Packed** const chunks[] = {&gradients.p, &gradients.ds, &gradients.ds_over_keys};
      for (Packed** part : chunks) *part = allocate<Packed>(arena, kKeyChunk * packed_count<Packed>(kQueryTile));
    }
    if (bytes) *bytes = arena.used;
  }
};

// Dot products of two tiles' columns, for one vector of queries.
template <class Packed>
inline Vec sum_over_dims(const Packed* a, const Packed* b, int64_t dim) {
  Vec sums[2] = {};
  for (int64_t i = 0; i < dim; ++i)
    sums[i % 2] = multiply_add(sums[i % 2], load(a + i * kQueryTile), load(b + i * kQueryTile));
  return sums[0] + sums[1];
}

// out[j][:] += scores[j] @ rows for `keys` rows of `width` floats, summed over the tile's queries.
template <class Packed>
inline void add_product_over_queries(const Packed* scores, int64_t keys, const Packed* rows, int64_t width,
                                     float* out) {
  constexpr int64_t kInner = packed_count<Packed>(kQueryTile);
  if constexpr (kTiled<Packed>) {  // by tiles, but for the last few keys
    const int64_t whole = keys / kLanes * kLanes;
    add_product_over_queries_by_tiles(scores, whole, rows, width, out);
    scores += whole * kInner;
    out += whole * width;
    keys -= whole;
  }
  int64_t column = 0;
  for (; column + 2 * kLanes <= width; column += 2 * kLanes)
    product<2, 1>(scores, keys, kInner, 1, rows + column, width, kInner, [=](int64_t j, int c, Vec sum) {
      float* to = out + j * width + column + c * kLanes;
      store(to, load(to) + sum);
    });
  for (; column < width; column += kLanes)
    product<1, 1>(scores, keys, kInner, 1, rows + column, width, kInner, [=](int64_t j, int, Vec sum) {
      float* to = out + j * width + column;
      store(to, load(to) + sum);
    });
}

// Adds a chunk of keys' contributions to dQ^T, dK and dV, all unscaled.
template <class Packed>
inline void add_chunk(const BackwardScratch<Packed>& s, const ScoreGradients<Packed>& of, const QueryGroup& group,
                      int64_t start, int64_t chunk, int64_t dim, int64_t width) {
  const int64_t first = kPackFactor<Packed> == 1 ? group.key_start + start : start;
  const KeyLayout<Packed> layout(group.key_stop - group.key_start, dim);
  layout.add_product(s.k_over_keys + layout.value_at(first), of.ds_over_keys, chunk, s.grad_qt);
  add_product_over_queries(of.ds, chunk, s.q, width, s.segment_k + (group.key_start + start) * width);
  add_product_over_queries(of.p, chunk, s.grad_out, width, s.segment_v + (group.key_start + start) * width);
}

// delta = rowsum(dO O), and lse in base 2, of a tile of queries.
struct TileOffsets {
  Vec delta[kQueryVectors], lse[kQueryVectors];
};

// Packs a tile's queries and output gradients; returns their delta and lse.
template <class T>
inline TileOffsets pack_tile(const fermt_attention_backward_args& a,
                             const BackwardScratch<typename PackedOf<T>::type>& s, int64_t b, int64_t h, int64_t query,
                             int64_t count, int64_t width) {
  using Packed = typename PackedOf<T>::type;
  const int64_t dim = a.shape.head_dim;
  const T *q = at<T>(a.q, b, h, query), *out = at<T>(a.out, b, h, query), *grad_out = at<T>(a.grad_out, b, h, query);
  const float* lse = a.lse + (b * a.shape.heads + h) * a.shape.tokens + query;
  TileOffsets offsets;
  pack_columns(out, a.out.strides[2], count, dim, false, s.qt);
  pack_columns(grad_out, a.grad_out.strides[2], count, dim, false, s.grad_outt);
  for (int c = 0; c < kQueryVectors; ++c)
    offsets.delta[c] = sum_over_dims(s.qt + c * kLanes, s.grad_outt + c * kLanes, packed_count<Packed>(dim));
  pack_columns(q, a.q.strides[2], count, dim, false, s.qt);
  for (int64_t i = 0; count < kQueryTile && i < packed_count<Packed>(dim); ++i) {
    Packed* const row = s.qt + i * kQueryTile;  // missing queries are as the last: 0 has no score with an infinite key
    for (int64_t j = count; j < kQueryTile; ++j) row[j] = row[count - 1];
  }
  pack_row_pairs(q, a.q.strides[2], count, dim, width, s.q);
  pack_row_pairs(grad_out, a.grad_out.strides[2], count, dim, width, s.grad_out);
  const int64_t packed = packed_count<Packed>(count) * width, all = packed_count<Packed>(kQueryTile) * width;
  memset(s.q + packed, 0, sizeof(Packed) * (all - packed));
  memset(s.grad_out + packed, 0, sizeof(Packed) * (all - packed));

  float lse_of[kQueryTile];
  for (int64_t i = 0; i < kQueryTile; ++i) lse_of[i] = static_cast<float>(lse[i < count ? i : count - 1] * kLog2E);
  for (int c = 0; c < kQueryVectors; ++c) offsets.lse[c] = load(lse_of + c * kLanes);
  return offsets;
}

// Runs a packed tile over its group's keys: adds to the segment's dK and dV, and leaves dQ^T in grad_qt. Not inlined:
// one copy serves all dtypes.
template <int Dim, class Packed>
__attribute__((noinline)) void attention_backward_tile(const fermt_attention_shape& shape,
                                                       const BackwardScratch<Packed>& s, const QueryGroup& group,
                                                       const TileOffsets& offsets, int64_t width) {
  const int64_t dim = Dim > 0 ? Dim : shape.head_dim, dim_numbers = packed_count<Packed>(dim);
  for (int64_t i = 0; i < dim * kQueryTile; i += kLanes) store(s.grad_qt + i, splat(s.zeros[i / kQueryTile]));
  Vec delta[kQueryVectors], offset[kQueryVectors];
  for (int c = 0; c < kQueryVectors; ++c) {
    delta[c] = offsets.delta[c];
    offset[c] = offsets.lse[c];
  }
  const Vec factor = splat(static_cast<float>(shape.scale * kLog2E));
  const int64_t keys = group.key_stop - group.key_start;
  const Packed *k = s.k + group.key_start * dim_numbers, *v = s.v + group.key_start * dim_numbers;
  const auto for_chunks = [&](auto&& body) {
    for (int64_t start = 0; start < keys; start += kKeyChunk)
      body(start, keys - start < kKeyChunk ? keys - start : kKeyChunk);
  };
  const auto multiply = [&](const Packed* rows, int64_t start, int64_t chunk, const Packed* columns, float* to) {
    compute_scores<Dim>(rows + start * dim_numbers, chunk, columns, dim, to, [](int64_t, int, Vec sum) { return sum; });
  };
  const auto probability_from = [&](const float* scores) {
    return [&factor, &offset, scores](int64_t j, int c) {
      return exp2_of_score(load(scores + j * kQueryTile + c * kLanes) * factor - offset[c]);
    };
  };
  const bool large = is_large(offset);
  Vec pivot[kQueryVectors] = {};
  const auto multiply_keys = [&](int64_t start, int64_t chunk, float* to) {
    multiply(k, start, chunk, s.qt, to);
    if (large) subtract_from_scores(to, chunk, pivot);
  };
  if (large) {
    const Vec sign = splat(shape.scale < 0 ? -1.0f : 1.0f);
    Vec largest[kQueryVectors], sum[kQueryVectors] = {};  // the largest of sign * score
    for (Vec& of_query : largest) of_query = splat(-INFINITY);
    for_chunks([&](int64_t start, int64_t chunk) {
      multiply(k, start, chunk, s.qt, s.scores);
      for (int64_t j = 0; j < chunk; ++j)
        for (int c = 0; c < kQueryVectors; ++c)
          largest[c] = max(largest[c], load(s.scores + j * kQueryTile + c * kLanes) * sign);
    });
    for (int c = 0; c < kQueryVectors; ++c) {
      pivot[c] = pivot_of(largest[c]) * sign;
      offset[c] = Vec{};
    }
    for_chunks([&](int64_t start, int64_t chunk) {
      multiply_keys(start, chunk, s.scores);
      for (int c = 0; c < kQueryVectors; ++c)
        sum[c] += sum_over_keys(chunk, [&](int64_t j) { return probability_from(s.scores)(j, c); });
    });
    for (int c = 0; c < kQueryVectors; ++c) {
      Vec integer, fraction;
      log2_in_parts(sum[c], &integer, &fraction);
      offset[c] = integer + fraction + 0.0f * largest[c];  // NaN where all scores are -inf
    }
  }
  if constexpr (kPackFactor<Packed> == 1) {
    Vec sum[kQueryVectors] = {};
    for_chunks([&](int64_t start, int64_t chunk) {
      float* p = s.scores + start * kQueryTile;
      if (large) {
        multiply_keys(start, chunk, p);
        return store_probabilities(chunk, probability_from(p), p, sum);
      }
      KeySums sums;
      compute_scores<Dim>(k + start * dim, chunk, s.qt, dim, p, [&](int64_t j, int c, Vec score) {
        const Vec probability = exp2_of_score(score * factor - offset[c]);
        sums.add(j, c, probability);
        return probability;
      });
      for (int c = 0; c < kQueryVectors; ++c) sum[c] += sums.total(c);
    });
    for (int c = 0; c < kQueryVectors; ++c) sum[c] = 1.0f / sum[c];
    for_chunks([&](int64_t start, int64_t chunk) {
      float* p = s.scores + start * kQueryTile;
      compute_scores<Dim>(v + start * dim, chunk, s.grad_outt, dim, s.grad_scores, [&](int64_t j, int c, Vec grad) {
        float* to = p + j * kQueryTile + c * kLanes;
        const Vec probability = load(to) * sum[c];
        store(to, probability);
        return probability * (grad - delta[c]);
      });
      add_chunk(s, ScoreGradients<Packed>{p, s.grad_scores, s.grad_scores}, group, start, chunk, dim, width);
    });
  } else {
    for_chunks([&](int64_t start, int64_t chunk) {
      multiply_keys(start, chunk, s.scores);
      multiply(v, start, chunk, s.grad_outt, s.grad_scores);
      store_score_gradients(chunk, probability_from(s.scores), s.grad_scores, delta, s.gradients);
      add_chunk(s, s.gradients, group, start, chunk, dim, width);
    });
  }

  const Vec scale = splat(static_cast<float>(shape.scale));
  for (int64_t i = 0; i < dim * kQueryTile; i += kLanes) store(s.grad_qt + i, load(s.grad_qt + i) * scale);
}

// zeros[d] = 0 times the keys' sum in dimension d: NaN with an infinite key, for that key's probability is a tiny
// number where it should be 0, whose product with infinity is NaN. `row` has space for a key.
template <class T>
inline void zeros_of_keys(const T* keys, int64_t stride, int64_t count, int64_t dim, float* row, float* zeros) {
  memset(zeros, 0, sizeof(float) * dim);
  for (int64_t j = 0; j < count; ++j) {
    row_to_float(keys + j * stride, dim, row);
    for (int64_t d = 0; d < dim; ++d) zeros[d] += 0.0f * row[d];
  }
}

// Adds a segment's dK and dV to those of all queries, and clears it.
template <class Packed>
inline void flush_segment(const BackwardScratch<Packed>& s, int64_t count) {
  if (s.segment_k == s.grad_k) return;
  for (int64_t i = 0; i < count; i += kLanes) {
    store(s.grad_k + i, load(s.grad_k + i) + load(s.segment_k + i));
    store(s.grad_v + i, load(s.grad_v + i) + load(s.segment_v + i));
  }
  memset(s.segment_k, 0, sizeof(float) * count);
  memset(s.segment_v, 0, sizeof(float) * count);
}

// How the query tiles of a head are divided into parts of about equal work. It depends on the shape alone, as do the
// sums' roundings then.
class QueryParts {
 public:
  explicit QueryParts(const fermt_attention_shape& shape) {
    for (int is_search = 0; is_search < 2; ++is_search) {
      group_[is_search] = query_group(shape, !is_search);
      tiles_[is_search] = (group_[is_search].query_stop - group_[is_search].query_start + kQueryTile - 1) / kQueryTile;
      work_[is_search] = group_[is_search].key_stop - group_[is_search].key_start + 1;
    }
    const int64_t heads = shape.batch * shape.heads, wanted = heads > 0 ? (kLeastItems + heads - 1) / heads : 1;
    const int64_t tiles = tiles_[0] + tiles_[1];
    count_ = wanted < tiles ? wanted : tiles > 0 ? tiles : 1;
  }

  int64_t count() const { return count_; }

  // visit(group, query) for each tile of a part, by its first query.
  template <class Visit>
  void for_tiles(int64_t part, Visit&& visit) const {
    const int64_t all = tiles_[0] * work_[0] + tiles_[1] * work_[1];
    int64_t before = 0;  // work of the tiles that came before
    for (int is_search = 0; is_search < 2; ++is_search)
      for (int64_t i = 0; i < tiles_[is_search]; ++i, before += work_[is_search])
        if (before * count_ / all == part) visit(group_[is_search], group_[is_search].query_start + i * kQueryTile);
  }

 private:
  QueryGroup group_[2];
  int64_t tiles_[2], work_[2], count_;
};

// dK and dV of the parts of all heads, and how many parts of each head are done; nothing where a head is one part.
struct PartSums {
  float* sums;
  std::atomic<int32_t>* done;

  PartSums(Arena arena, int64_t heads, int64_t parts, int64_t numbers, size_t* bytes = nullptr) {
    sums = arena.floats(heads * parts * 2 * numbers);
    done = reinterpret_cast<std::atomic<int32_t>*>(arena.floats(heads));
    if (bytes) *bytes = arena.used;
  }
};

// Stores a head's dK and dV, the sums of `parts` pairs of buffers of tokens x width floats.
template <class T>
inline void store_key_gradients(const fermt_attention_backward_args& a, int64_t b, int64_t h, float* sums,
                                int64_t parts, int64_t width) {
  const int64_t dim = a.shape.head_dim, numbers = a.shape.tokens * width;
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = 0; i < 2 * numbers; i += kLanes)
      store(sums + i, load(sums + i) + load(sums + part * 2 * numbers + i));
  const float scale = static_cast<float>(a.shape.scale);
  for (int64_t j = 0; j < a.shape.tokens; ++j) {
    float *grad_k = sums + j * width, *grad_v = grad_k + numbers;
    for (int64_t d = 0; d < dim; ++d) grad_k[d] *= scale;
    row_from_float(grad_k, dim, at<T>(a.grad_k, b, h, j));
    row_from_float(grad_v, dim, at<T>(a.grad_v, b, h, j));
  }
}

// sum over d of a[d] b[d].
template <class T>
inline float dot_product(const T* a, const T* b, int64_t dim) {
  float sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += to_float(a[d]) * to_float(b[d]);
  return sum;
}

// A tile of queries whose group has no key, or one, over which the soft-max is 1 and dS is 0: or NaN, where the score
// or dP is not finite.
template <class T>
inline void attend_to_at_most_one_key(const fermt_attention_backward_args& a, int64_t b, int64_t h,
                                      const QueryGroup& group, int64_t query, int64_t count,
                                      const BackwardScratch<typename PackedOf<T>::type>& s, int64_t width) {
  const int64_t dim = a.shape.head_dim, key = group.key_start;
  if (key == group.key_stop) {
    for (int64_t j = query; j < query + count; ++j) memset(at<T>(a.grad_q, b, h, j), 0, sizeof(T) * dim);
    return;
  }
  float *grad_k = s.segment_k + key * width, *grad_v = s.segment_v + key * width;
  const float scale = static_cast<float>(a.shape.scale);
  float grad_score = 0;
  for (int64_t j = query; j < query + count; ++j) {
    const T* grad_out = at<T>(a.grad_out, b, h, j);
    const float zero = 0.0f * (dot_product(at<T>(a.q, b, h, j), at<T>(a.k, b, h, key), dim) * scale);
    const float of_query = zero + 0.0f * dot_product(grad_out, at<T>(a.v, b, h, key), dim);
    T* grad_q = at<T>(a.grad_q, b, h, j);
    for (int64_t d = 0; d < dim; ++d) {
      from_float(of_query, grad_q + d);
      grad_v[d] += (1.0f + zero) * to_float(grad_out[d]);
    }
    grad_score += of_query;
  }
  for (int64_t d = 0; d < dim; ++d) grad_k[d] += grad_score;
}

// One part of a head; `sums` is where its dK and dV go, or null: then they are the head's, and stored.
template <class T>
inline fermt_status attention_backward_item(const fermt_attention_backward_args& a, int64_t b, int64_t h,
                                            const QueryParts& parts, int64_t part, float* sums) {
  const int64_t tokens = a.shape.tokens, dim = a.shape.head_dim, width = round_up(dim, kLanes);
  using Packed = typename PackedOf<T>::type;
  using Scratch = BackwardScratch<Packed>;
  size_t bytes = 0;
  Scratch(Arena{}, tokens, dim, width, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kItemScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const Scratch scratch(Arena{base}, tokens, dim, width, nullptr, sums);
  pack_rows(at<T>(a.k, b, h, 0), a.k.strides[2], tokens, dim, scratch.k);
  pack_rows(at<T>(a.v, b, h, 0), a.v.strides[2], tokens, dim, scratch.v);
  memset(scratch.grad_k, 0, sizeof(float) * 2 * tokens * width);
  if (scratch.segment_k != scratch.grad_k) memset(scratch.segment_k, 0, sizeof(float) * 2 * tokens * width);
  const TileScope tiles(attention_depth(dim));
  const auto tile = dim == 16 ? attention_backward_tile<16, Packed> : attention_backward_tile<0, Packed>;
  int64_t prepared_start = -1, prepared_stop = -1;  // the keys that `zeros` and k_over_keys have
  parts.for_tiles(part, [&](const QueryGroup& group, int64_t i) {
    if (group.key_start != prepared_start || group.key_stop != prepared_stop) {
      const int64_t keys = group.key_stop - group.key_start;
      const T* const k = at<T>(a.k, b, h, group.key_start);
      zeros_of_keys(k, a.k.strides[2], keys, dim, scratch.grad_qt, scratch.zeros);
      if constexpr (kPackFactor<Packed> > 1)
        KeyLayout<Packed>(keys, dim).pack_values(k, a.k.strides[2], keys, scratch.k_over_keys);
      prepared_start = group.key_start, prepared_stop = group.key_stop;
    }
    if (i > group.query_start && (i - group.query_start) % kSegment == 0) flush_segment(scratch, tokens * width);
    const int64_t left = group.query_stop - i, count = left < kQueryTile ? left : kQueryTile;
    if (group.key_stop - group.key_start <= 1)
      return attend_to_at_most_one_key<T>(a, b, h, group, i, count, scratch, width);
    tile(a.shape, scratch, group, pack_tile<T>(a, scratch, b, h, i, count, width), width);
    unpack_columns(scratch.grad_qt, count, dim, at<T>(a.grad_q, b, h, i), a.grad_q.strides[2]);
  });
  flush_segment(scratch, tokens * width);
  if (!sums) store_key_gradients<T>(a, b, h, scratch.grad_k, 1, width);
  return FERMT_OK;
}

template <class T>
fermt_status attention_backward_as(const fermt_attention_backward_args& a) {
  const int64_t heads = a.shape.heads, all_heads = a.shape.batch * heads, width = round_up(a.shape.head_dim, kLanes);
  const int64_t numbers = a.shape.tokens * width;
  const QueryParts parts(a.shape);
  const int64_t count = parts.count();
  if (count == 1)
    return fermt::run_items(a.parallel_for, all_heads, [&](int64_t index) {
      return attention_backward_item<T>(a, index / heads, index % heads, parts, 0, nullptr);
    });
  size_t bytes = 0;
  PartSums(Arena{}, all_heads, count, numbers, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kCallScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const PartSums of(Arena{base}, all_heads, count, numbers);
  for (int64_t i = 0; i < all_heads; ++i) new (of.done + i) std::atomic<int32_t>{0};
  return fermt::run_items(a.parallel_for, all_heads * count, [&](int64_t index) {
    const int64_t head = index / count, b = head / heads, h = head % heads;
    float* const sums = of.sums + head * count * 2 * numbers;
    const fermt_status status =
        attention_backward_item<T>(a, b, h, parts, index % count, sums + index % count * 2 * numbers);
    if (!status && of.done[head].fetch_add(1) + 1 == count) store_key_gradients<T>(a, b, h, sums, count, width);
    return status;
  });
}

}  // namespace
