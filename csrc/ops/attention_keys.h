// How attention reads the packed keys and values of a head, in tiles where the row has them.

#pragma once

#include "ops/attention.h"

namespace {

// How keys and values of one head are packed. Keys: a row each. Values: a row of `dim` for each packed element of keys,
// or for tiles a row of keys for each dimension.
template <class Packed>
struct KeyLayout {
  bool tiled;
  int64_t keys, dim, value_stride;  // the last: between the rows of tiles

  KeyLayout(int64_t of_keys, int64_t head_dim)
      : KeyLayout(of_keys, head_dim, round_up(packed_count<Packed>(of_keys), kLanes)) {}
  KeyLayout(int64_t of_keys, int64_t head_dim, int64_t stride)
      : tiled(attends_by_tiles<Packed>(head_dim)), keys(of_keys), dim(head_dim), value_stride(stride) {}
  int64_t key_at(int64_t key) const { return key * packed_count<Packed>(dim); }
  int64_t key_count() const { return key_at(keys); }
  int64_t padding() const { return tiled ? key_at(kLanes) : 0; }  // behind the last head: tiles of keys are read
  int64_t value_at(int64_t key) const { return packed_count<Packed>(key) * (tiled ? 1 : dim); }  // of an even key
  int64_t value_count() const { return (tiled ? value_stride : packed_count<Packed>(keys)) * dim; }

  template <class T>
  void pack(const T* k, int64_t k_stride, const T* v, int64_t v_stride, int64_t count, Packed* to_k,
            Packed* to_v) const {
    pack_rows(k, k_stride, count, dim, to_k);
    pack_values(v, v_stride, count, to_v);
  }
  // In tiles the values are filled up with 0 to whole ones.
  template <class T>
  void pack_values(const T* v, int64_t stride, int64_t count, Packed* to) const {
    if constexpr (kTiled<Packed>)
      if (tiled) return pack_transposed_pairs(v, stride, count, dim, to, value_stride);
    pack_row_pairs(v, stride, count, dim, dim, to);
  }

  // out[d] += values[:, d] @ scores over `count` keys. The scores may be filled up with 0 to whole tiles.
  void add_product(const Packed* values, Packed* scores, int64_t count, float* out) const {
    if constexpr (kTiled<Packed>)
      if (tiled) return add_product_by_tiles(values, value_stride, dim, scores, packed_count<Packed>(count), out);
    add_product_over_keys(values, dim, scores, packed_count<Packed>(count), out);
  }
};

// Packed keys and values of one head.
template <class Packed>
struct PackedKeys {
  const Packed *k, *v;
  int64_t count, value_stride;

  KeyLayout<Packed> layout(int64_t dim) const { return {count, dim, value_stride}; }
  PackedKeys from(int64_t start, int64_t dim, int64_t new_count) const {
    return {k + layout(dim).key_at(start), v + layout(dim).value_at(start), new_count, value_stride};
  }
};

// scores[j] = finish(j, c, rows[j] @ columns) for `count` packed rows over the head dim, a vector of queries at a time.
template <int Dim, class Packed, class Finish>
inline void compute_scores(const Packed* rows, int64_t count, const Packed* columns, int64_t dim, float* scores,
                           Finish&& finish) {
  if constexpr (kTiled<Packed>)
    if (attends_by_tiles<Packed>(dim)) {
      scores_by_tiles(rows, count, columns, packed_count<Packed>(dim), scores);
      for (int64_t j = 0; j < count; ++j)
        for (int c = 0; c < kQueryVectors; ++c) {
          float* to = scores + j * kQueryTile + c * kLanes;
          store(to, finish(j, c, load(to)));
        }
      return;
    }
  product_over_dims<Dim>(rows, count, columns, packed_count<Packed>(dim), scores, finish);
}

}  // namespace
