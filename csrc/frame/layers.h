// The transformer layers of a frame, on tiles of token blocks: attention, projection and residual, norm, fc1, GELU, fc2
// and residual, then the next layer's norm, queries, keys and values. Tiles exchange only keys and values, so a layer
// is one parallel loop; a tile's rows and hidden activations stay in its core's cache.

#pragma once

#include "abi/packed_model.h"
#include "gemm/gemm.h"
#include "ops/attention_forward.h"

namespace {

constexpr int64_t kBlockTokens = kTiled<BFloat16Pair> ? 32 : 4;  // AMX writes keys and values of 32 tokens at once
constexpr int64_t kTileBlocks = 160 / kBlockTokens;  // at most, of a tile: its hidden activations fit the L2 cache

// One target's tokens in blocks of kBlockTokens; the last block of a token group may be shorter. Half of the template's
// blocks come before the search region's and half after them: they cost more, for they attend to more keys, and so the
// two halves of all blocks cost the same.
struct TokenBlocks {
  int64_t num_template, num_search, template_before, search, template_after;

  TokenBlocks(int64_t n, int64_t m) : num_template(n), num_search(m) {
    const int64_t blocks = (n + kBlockTokens - 1) / kBlockTokens;
    template_before = blocks - blocks / 2;
    search = (m + kBlockTokens - 1) / kBlockTokens;
    template_after = blocks / 2;
  }
  int64_t total() const { return template_before + search + template_after; }
  int64_t rows() const { return total() * kBlockTokens; }
  bool is_template(int64_t block) const { return block < template_before || block >= template_before + search; }
  int64_t first_token(int64_t block) const {  // in its token group
    return (block < template_before ? block
            : is_template(block)    ? block - search
                                    : block - template_before) *
           kBlockTokens;
  }
  int64_t count(int64_t block) const {
    const int64_t left = (is_template(block) ? num_template : num_search) - first_token(block);
    return left < kBlockTokens ? left : kBlockTokens;
  }
  // Tokens in blocks [first, last) of one group.
  int64_t count(int64_t first, int64_t last) const { return (last - 1 - first) * kBlockTokens + count(last - 1); }
  // The end of the blocks from `first` on that belong to its group and lie before `stop`.
  int64_t end_of_group(int64_t first, int64_t stop) const {
    int64_t last = first + 1;
    while (last < stop && is_template(last) == is_template(first)) ++last;
    return last;
  }
};

// Whether a frame looks for bounds of attention's scores: with 32 registers their maxima are found as quickly.
template <class Packed>
constexpr bool kFindsBounds = kPackFactor<Packed> == 1 && !kManyRegisters;

// A token group's packed keys and values in one layer, head by head.
template <class Packed>
struct KeysAndValues {
  Packed *k, *v;
  int64_t tokens;

  static KeysAndValues allocate_in(Arena& arena, int64_t tokens, int64_t dim, int64_t heads) {
    const KeyLayout<Packed> layout(tokens, dim / heads);
    Packed* k = allocate<Packed>(arena, heads * layout.key_count() + layout.padding());
    return {k, allocate<Packed>(arena, heads * layout.value_count()), tokens};
  }
  PackedKeys<Packed> of_head(int64_t head, int64_t head_dim) const {
    const KeyLayout<Packed> layout(tokens, head_dim);
    return {k + head * layout.key_count(), v + head * layout.value_count(), tokens, layout.value_stride};
  }
  // Packs `count` tokens from `token` on, the first of a block, from rows of keys and values of one head.
  template <class T>
  void pack(int64_t head, int64_t head_dim, int64_t token, int64_t count, const T* from_k, const T* from_v,
            int64_t stride) const {
    const KeyLayout<Packed> layout(tokens, head_dim);
    layout.pack(from_k, stride, from_v, stride, count, k + head * layout.key_count() + layout.key_at(token),
                v + head * layout.value_count() + layout.value_at(token));
  }
};

// One target's tokens in the order of its blocks, and the keys and values that attention reads.
template <class P>
struct Tokens {
  using Packed = typename PackedOf<typename P::Value>::type;
  float* x;  // the residual stream
  typename P::Value* q;
  float* largest_q[2];              // of this layer and of the next: the largest |q| of each dimension in each block
  KeysAndValues<Packed> search[2];  // of this layer and of the next
  KeysAndValues<Packed> template_own[2];
  const KeysAndValues<Packed>* template_cached;  // by layer, up to first_dynamic_layer
};

// A tile's intermediate rows, and its thread's buffers. Nothing outlives the tile.
template <class P>
struct TileRows {
  using Value = typename P::Value;
  Value *rows, *kv, *hidden;   // rows: attention's output, or normalized tokens
  Byte* bytes;                 // int8: one of these quantized
  QuantParams* quant;          // of its rows
  typename P::Operand* strip;  // columns of weights
  TileScratch<typename PackedOf<Value>::type> attention;

  TileRows(Arena& arena, Arena& of_thread, const fermt::PackedModel& model, int64_t blocks)
      : rows(allocate<Value>(arena, blocks * model.header->dim)),
        kv(allocate<Value>(arena, blocks * 2 * model.header->dim)),
        hidden(allocate<Value>(arena, blocks * model.header->hidden)),
        bytes(allocate<Byte>(arena, kQuantized<P> ? blocks * max_inputs(model) : 0)),
        quant(allocate<QuantParams>(arena, kQuantized<P> ? blocks : 0)),
        strip(::allocate<typename P::Operand>(of_thread, strip_operands(model))),
        attention(of_thread, model.head_dim) {}

  // Inputs of the widest product, in whole stored elements.
  static int64_t max_inputs(const fermt::PackedModel& model) {
    const fermt::PackedHeader& h = *model.header;
    int64_t max = round_up(model.patch_embed.inputs, kPackFactor<typename P::Stored>);
    max = h.dim > max ? h.dim : max;
    return h.hidden > max ? h.hidden : max;
  }
  static int64_t strip_operands(const fermt::PackedModel& model) {
    using Operand = typename P::Operand;
    const int64_t all = packed_count<Operand>(max_inputs(model)), dim = packed_count<Operand>(model.header->dim);
    const int64_t in_blocks = dim > kBlockK ? dim : kBlockK;  // gemm takes all of K, gemm_add a block of it
    return strip_size<typename P::Stored, Operand>(kWholeK<Operand> ? all : in_blocks);
  }
  template <class V>
  static V* allocate(Arena& arena, int64_t values) {
    return reinterpret_cast<V*>(arena.bytes(values * kBlockTokens * sizeof(V)));
  }
  // Bytes of one block's rows; those of several blocks need at most as many times that. And bytes of a thread's
  // buffers.
  static void sizes(const fermt::PackedModel& model, size_t* block_bytes, size_t* thread_bytes) {
    Arena arena, of_thread;
    TileRows(arena, of_thread, model, 1);
    *block_bytes = arena.used;
    *thread_bytes = of_thread.used;
  }

  // Packed rows of activations, `stride` values apart: a view, or quantized.
  PackedRows<typename P::Operand> operand(const Value* values, int64_t count, int64_t stride) const {
    using Operand = typename P::Operand;
    if constexpr (kQuantized<P>) {
      for (int64_t row = 0; row < count; ++row)
        quant[row] = quantize_row(values + row * stride, stride, bytes + row * stride);
      return {reinterpret_cast<const Operand*>(bytes), packed_count<Operand>(stride), quant};
    } else {
      return {reinterpret_cast<const Operand*>(values), packed_count<Operand>(stride), nullptr};
    }
  }
};

// Layer norm without weight and bias, which are folded into the next product: (x - mean) / sqrt(variance + eps).
template <class T>
inline void layer_norm_row(const float* x, int64_t dim, float eps, T* to) {
  Vec sums[2] = {};
  for (int64_t i = 0; i < dim; i += kLanes) sums[i / kLanes % 2] += load(x + i);
  const Vec mean = splat(sum_of_lanes(sums[0] + sums[1]) / static_cast<float>(dim));
  Vec squares[2] = {};
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Vec centered = load(x + i) - mean;
    squares[i / kLanes % 2] += centered * centered;
  }
  const float variance = sum_of_lanes(squares[0] + squares[1]) / static_cast<float>(dim);
  const Vec factor = splat(1.0f / sqrtf(variance + eps));
  for (int64_t i = 0; i < dim; i += kLanes) store_vector((load(x + i) - mean) * factor, to + i);
}

// GELU as accurate as the precision needs.
template <class P>
inline Vec gelu_for(Vec v) {
  return gelu_approx(v);
}
template <>
inline Vec gelu_for<Float32Precision>(Vec v) {
  return gelu(v);
}

template <class P>
struct Layers {
  using Value = typename P::Value;
  using Packed = typename PackedOf<Value>::type;
  using Stored = typename P::Stored;
  using Operand = typename P::Operand;
  const fermt::PackedModel& model;
  const TokenBlocks& blocks;
  int64_t dim, hidden, heads, head_dim;

  Layers(const fermt::PackedModel& m, const TokenBlocks& token_blocks)
      : model(m),
        blocks(token_blocks),
        dim(m.header->dim),
        hidden(m.header->hidden),
        heads(m.header->heads),
        head_dim(m.head_dim) {}

  const KeysAndValues<Packed>& template_keys(const Tokens<P>& t, int layer) const {
    return layer <= model.first_dynamic_layer ? t.template_cached[layer] : t.template_own[layer % 2];
  }

  // The spans of keys that a token group's queries attend to in one head.
  int spans(const Tokens<P>& t, int layer, bool is_template, int64_t head, PackedKeys<Packed> (&to)[2]) const {
    int count = 0;
    const auto add = [&](const KeysAndValues<Packed>& of) { to[count++] = of.of_head(head, head_dim); };
    if (model.sees(layer, is_template ? fermt::kTemplateSeesTemplate : fermt::kSearchSeesTemplate))
      add(template_keys(t, layer));
    if (model.sees(layer, is_template ? fermt::kTemplateSeesSearch : fermt::kSearchSeesSearch))
      add(t.search[layer % 2]);
    return count;
  }

  // Keeps the largest |q| of blocks [first, last).
  void measure_queries(const Tokens<P>& t, int layer, int64_t first, int64_t last) const {
    if constexpr (kFindsBounds<Packed>)
      for (int64_t block = first; block < last; ++block)
        for (int64_t d = 0; d < dim; d += kLanes) {
          Vec largest = {};
          for (int64_t i = 0; i < blocks.count(block); ++i)
            largest = max(largest, absolute(load(t.q + (block * kBlockTokens + i) * dim + d)));
          store(t.largest_q[layer % 2] + block * dim + d, largest);
        }
  }

  // Whether the scores of all queries of a token group in one head are bounded. It is decided for the whole group,
  // because the number of threads decides which of its queries share a tile.
  KeyBounds bounds_of(const Tokens<P>& t, const TileRows<P>& tile, int layer, bool is_template, int64_t head,
                      const PackedKeys<Packed>* keys, int span_count) const {
    if constexpr (kFindsBounds<Packed>) {
      bool bounded = head_dim % kLanes == 0;
      float *largest_k = tile.attention.acc, *largest_q = tile.attention.segment_acc;  // free until a tile runs
      for (int64_t d = 0; bounded && d < head_dim; d += kLanes) {
        Vec largest = {};
        for (int64_t block = 0; block < blocks.total(); ++block)
          if (blocks.is_template(block) == is_template)
            largest = max(largest, load(t.largest_q[layer % 2] + block * dim + head * head_dim + d));
        store(largest_q + d, largest);
      }
      const float factor = static_cast<float>(fabs(model.header->scale) * kLog2E);
      int64_t count = 0;
      for (const PackedKeys<Packed>* span = keys; span < keys + span_count; ++span) {
        count += span->count;
        bounded = bounded && KeyBounds::of(*span, head_dim, largest_k).usable;
        Vec bound = {};
        for (int64_t d = 0; bounded && d < head_dim; d += kLanes)
          bound = multiply_add(bound, load(largest_q + d), load(largest_k + d));
        bounded = bounded && !(sum_of_lanes(bound) * factor > kBoundedScore);
      }
      return {nullptr, bounded && count > 1};
    }
    return {nullptr, false};
  }

  // Attention's output of blocks [first_block, end_block) into the tile's rows.
  void attend(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t first_block, int64_t end_block) const {
    const TileScope tiles(attention_depth(head_dim));
    const auto attend_tile = head_dim == 16 ? attention_forward_tile<Value, 16> : attention_forward_tile<Value, 0>;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t first = first_block, last; first < end_block; first = last) {
        last = blocks.end_of_group(first, end_block);
        PackedKeys<Packed> keys[2];
        const int span_count = spans(t, layer, blocks.is_template(first), head, keys);
        const int64_t rows = (last - first) * kBlockTokens, count = span_count ? blocks.count(first, last) : 0;
        const KeyBounds bounds = bounds_of(t, tile, layer, blocks.is_template(first), head, keys, span_count);
        const Value* q = t.q + first * kBlockTokens * dim + head * head_dim;
        Value* out = tile.rows + (first - first_block) * kBlockTokens * dim + head * head_dim;
        for (int64_t i = 0; i < count; i += kQueryTile)
          attend_tile(tile.attention, keys, span_count, head_dim, model.header->scale, q + i * dim, dim,
                      count - i < kQueryTile ? count - i : kQueryTile, out + i * dim, dim, nullptr, bounds);
        for (int64_t i = count; i < rows; ++i) memset(static_cast<void*>(out + i * dim), 0, sizeof(Value) * head_dim);
      }
  }

  PackedRows<Operand> normalized(const Tokens<P>& t, const TileRows<P>& tile, int64_t first_block,
                                 int64_t end_block) const {
    const float eps = static_cast<float>(model.header->eps);
    const int64_t count = (end_block - first_block) * kBlockTokens;
    for (int64_t row = 0; row < count; ++row)
      layer_norm_row(t.x + (first_block * kBlockTokens + row) * dim, dim, eps, tile.rows + row * dim);
    return tile.operand(tile.rows, count, dim);
  }

  // body(first, last) over the runs of blocks [first_block, end_block) of the selected token groups.
  template <class Body>
  void for_groups(int64_t first_block, int64_t end_block, bool with_template, bool with_search, Body&& body) const {
    for (int64_t block = first_block; block < end_block;) {
      int64_t stop = block;
      while (stop < end_block && (blocks.is_template(stop) ? with_template : with_search)) ++stop;
      if (stop > block) body(block, stop);
      block = stop > block ? stop : block + 1;
    }
  }

  // to[row] = a[row] @ matrix + bias.
  static void linear(const PackedRows<Operand>& a, int64_t rows, const fermt::PackedMatrix& matrix, Operand* strip,
                     Value* to) {
    const int64_t stride = matrix.outputs;
    const float* bias = matrix.bias;
    gemm<Stored>(a, rows, matrix, strip, [=](int64_t row, int64_t column, Vec sum) {
      store_vector(sum + load(bias + column), to + row * stride + column);
    });
  }

  // Packs the keys and values of blocks [first, last) of one group, from rows of both.
  void pack_keys(const Tokens<P>& t, int layer, int64_t first, int64_t last, const Value* kv) const {
    const KeysAndValues<Packed>& to = blocks.is_template(first) ? template_keys(t, layer) : t.search[layer % 2];
    const int64_t token = blocks.first_token(first), count = blocks.count(first, last);
    for (int64_t head = 0; head < heads; ++head) {
      const Value* k = kv + head * head_dim;
      to.pack(head, head_dim, token, count, k, k + dim, 2 * dim);
    }
  }

  // Queries, keys and values of a layer from its input; only those that anything depends on.
  void project(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t first_block, int64_t end_block) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    const PackedRows<Operand> in = normalized(t, tile, first_block, end_block);
    for_groups(first_block, end_block, model.template_queries(layer), true, [&](int64_t first, int64_t last) {
      linear(in.from_row((first - first_block) * kBlockTokens), (last - first) * kBlockTokens, weights.q, tile.strip,
             t.q + first * kBlockTokens * dim);
      measure_queries(t, layer, first, last);
    });
    for_groups(first_block, end_block, model.template_keys(layer), model.search_keys(layer),
               [&](int64_t first, int64_t last) {
                 linear(in.from_row((first - first_block) * kBlockTokens), (last - first) * kBlockTokens, weights.kv,
                        tile.strip, tile.kv);
                 for (int64_t begin = first, end; begin < last; begin = end) {
                   end = blocks.end_of_group(begin, last);
                   pack_keys(t, layer, begin, end, tile.kv + (begin - first) * kBlockTokens * 2 * dim);
                 }
               });
  }

  // One layer of blocks [first_block, end_block), and the next layer's projections.
  void run(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t first_block, int64_t end_block) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    const int64_t rows = (end_block - first_block) * kBlockTokens, stride = hidden;
    float* x = t.x + first_block * kBlockTokens * dim;
    attend(t, tile, layer, first_block, end_block);
    gemm_add<Stored>(tile.operand(tile.rows, rows, dim), rows, weights.proj, tile.strip, x, dim);
    const float* bias = weights.fc1.bias;
    Value* to = tile.hidden;
    gemm<Stored>(normalized(t, tile, first_block, end_block), rows, weights.fc1, tile.strip,
                 [=](int64_t row, int64_t column, Vec sum) {
                   store_vector(gelu_for<P>(sum + load(bias + column)), to + row * stride + column);
                 });
    gemm_add<Stored>(tile.operand(tile.hidden, rows, hidden), rows, weights.fc2, tile.strip, x, dim);
    if (layer + 1 < model.header->depth) project(t, tile, layer + 1, first_block, end_block);
  }
};

}  // namespace
