// Attention's products by AMX, for a head dim of 16 or a multiple of 32: scores of 16 keys and 32 queries at once, and
// sums over 32 keys at once. Values are packed transposed, a row of pairs of keys for each dimension.

#pragma once

#include "gemm/tiles.h"
#include "ops/attention.h"

namespace {

constexpr int64_t kTilePairs = kTileSide;  // pairs of keys in a tile

// `count` rows of a tensor -> `dim` rows of pairs of rows, `stride` pairs apart, filled up with 0 to whole tiles.
inline void pack_transposed_pairs(const BFloat16* from, int64_t from_stride, int64_t count, int64_t dim,
                                  BFloat16Pair* to, int64_t stride) {
  for (int64_t row = 0; row < count; row += 2 * kTilePairs)
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec square[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        const BFloat16* even = from + (row + 2 * r) * from_stride + d;
        const int64_t left = count - row - 2 * r;
        const VecInt low = left > 0 ? load_bfloat16_wide(even, kLanes) : VecInt{},
                     high = left > 1 ? load_bfloat16_wide(even + from_stride, kLanes) : VecInt{};
        square[r] = (Vec)(low | (high << 16));
      }
      transpose(square);
      for (int64_t r = 0; r < kLanes; ++r) store(to + (d + r) * stride + row / 2, (VecInt)square[r]);
    }
}

// scores[j] = k[j] @ qt for `count` keys over the head dim, `dim` packed elements; up to 15 more rows are written, and
// as many keys read. In a thread that holds a TileScope of depth attention_depth(dim).
inline void scores_by_tiles(const BFloat16Pair* k, int64_t count, const BFloat16Pair* qt, int64_t dim, float* scores) {
  constexpr int64_t kRowBytes = kQueryTile * sizeof(float);
  const int64_t dim_bytes = dim * sizeof(BFloat16Pair);
  const auto load_queries = [&](int64_t d) {
    tile_load<3>(qt + d * kQueryTile, kRowBytes);
    tile_load<4>(qt + d * kQueryTile + kTileSide, kRowBytes);
  };
  if (dim <= kTileSide) load_queries(0);
  for (int64_t j = 0; j < count; j += kTileSide) {
    tile_zero<0>();
    tile_zero<1>();
    for (int64_t d = 0; d < dim; d += kTileSide) {
      if (dim > kTileSide) load_queries(d);
      tile_load<2>(k + j * dim + d, dim_bytes);
      tile_multiply_add<0, 2, 3>(BFloat16Pair{});
      tile_multiply_add<1, 2, 4>(BFloat16Pair{});
    }
    tile_store<0>(scores + j * kQueryTile, kRowBytes);
    tile_store<1>(scores + j * kQueryTile + kTileSide, kRowBytes);
  }
}

// out[d] += values[d] @ scores over `pairs` pairs of keys; `values` has rows `stride` pairs apart. Scores are set to 0
// up to the end of their last tile.
inline void add_product_by_tiles(const BFloat16Pair* values, int64_t stride, int64_t dim, BFloat16Pair* scores,
                                 int64_t pairs, float* out) {
  constexpr int64_t kRowBytes = kQueryTile * sizeof(float);
  const int64_t padded = round_up(pairs, kTilePairs);
  memset(static_cast<void*>(scores + pairs * kQueryTile), 0, (padded - pairs) * kRowBytes);
  for (int64_t d = 0; d < dim; d += kTileSide) {
    float* to = out + d * kQueryTile;
    tile_load<5>(to, kRowBytes);
    tile_load<6>(to + kTileSide, kRowBytes);
    for (int64_t i = 0; i < padded; i += kTilePairs) {
      tile_load<7>(values + d * stride + i, stride * sizeof(BFloat16Pair));
      tile_load<0>(scores + i * kQueryTile, kRowBytes);
      tile_load<1>(scores + i * kQueryTile + kTileSide, kRowBytes);
      tile_multiply_add<5, 7, 0>(BFloat16Pair{});
      tile_multiply_add<6, 7, 1>(BFloat16Pair{});
    }
    tile_store<5>(to, kRowBytes);
    tile_store<6>(to + kTileSide, kRowBytes);
  }
}

// out[j][:] += scores[j] @ rows for `keys` rows of `width` floats, a multiple of 16 of each, summed over a query tile.
inline void add_product_over_queries_by_tiles(const BFloat16Pair* scores, int64_t keys, const BFloat16Pair* rows,
                                              int64_t width, float* out) {
  const int64_t row_bytes = width * sizeof(float);
  for (int64_t column = 0; column < width; column += kTileSide) {
    tile_load<0>(rows + column, row_bytes);
    for (int64_t j = 0; j < keys; j += kTileSide) {
      float* to = out + j * width + column;
      tile_load<5>(to, row_bytes);
      tile_load<7>(scores + j * kTilePairs, kTilePairs * sizeof(BFloat16Pair));
      tile_multiply_add<5, 7, 0>(BFloat16Pair{});
      tile_store<5>(to, row_bytes);
    }
  }
}

}  // namespace
