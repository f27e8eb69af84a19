// A transformer layer of a frame, by tiles of tokens: attention, projection and residual, norm, fc1, GELU, fc2 and
// residual, then the next layer's norm, queries, keys and values. Only keys and values are seen by other tiles, so a
// layer is one pass with one barrier; a tile's rows and its part of the hidden layer stay in the core's own cache.

#pragma once

#include "abi/packed_model.h"
#include "gemm/gemm.h"
#include "ops/attention_forward.h"

namespace {

constexpr int64_t kUnit = 32;      // tokens that are worked on together, at least
constexpr int64_t kTileUnits = 5;  // and at most: their hidden layer fits the L2 cache

// One target's tokens in units, of which a group's last may be short. Half of the template's units lie before the
// search region's and half behind: attention makes them dearer, and so either half of all units costs the same.
struct Units {
  int64_t num_template, num_search, before, search, after;

  Units(int64_t n, int64_t m) : num_template(n), num_search(m) {
    const int64_t units = (n + kUnit - 1) / kUnit;
    before = units - units / 2;
    search = (m + kUnit - 1) / kUnit;
    after = units / 2;
  }
  int64_t total() const { return before + search + after; }
  int64_t rows() const { return total() * kUnit; }
  bool is_template(int64_t u) const { return u < before || u >= before + search; }
  int64_t first_token(int64_t u) const {  // in its group
    return (u < before ? u : is_template(u) ? u - search : u - before) * kUnit;
  }
  int64_t count(int64_t u) const {
    const int64_t left = (is_template(u) ? num_template : num_search) - first_token(u);
    return left < kUnit ? left : kUnit;
  }
};

// A group's keys and values in one layer, packed head by head.
template <class Number>
struct KeysAndValues {
  Number *k, *v;
  int64_t tokens;

  static KeysAndValues carve_from(fermt::Carver& carver, int64_t tokens, int64_t dim, int64_t heads) {
    const int64_t head_dim = dim / heads;
    Number* k = carve<Number>(carver, heads * tokens * numbers<Number>(head_dim));
    return {k, carve<Number>(carver, heads * numbers<Number>(tokens) * head_dim), tokens};
  }
  Number* k_at(int64_t head, int64_t token, int64_t head_dim) const {
    return k + (head * tokens + token) * numbers<Number>(head_dim);
  }
  Number* v_at(int64_t head, int64_t token, int64_t head_dim) const {  // token is even
    return v + (head * numbers<Number>(tokens) + token / kValues<Number>)*head_dim;
  }
};

// One target's tokens, row by row in the order of its units, and what attention takes of them.
template <class P>
struct Tokens {
  using Number = typename NumberOf<typename P::Value>::type;
  float* x;  // the residual stream
  typename P::Value* q;
  KeysAndValues<Number> search[2];  // of this layer and of the next
  KeysAndValues<Number> template_own[2];
  const KeysAndValues<Number>* template_cached;  // by layer, up to the model's `leading`
};

// What a tile of units needs on the way: nothing of it outlives the tile, so all tiles of a core's share use the same.
template <class P>
struct TileRows {
  using Value = typename P::Value;
  Value *rows, *kv, *hidden;  // rows: attention's output, or normalised tokens
  uint8_t* bytes;             // of int8: one of these as bytes, and the scales of its rows
  ByteScale* scales;
  TileScratch<typename NumberOf<Value>::type> attention;

  TileRows(fermt::Carver& carver, const fermt::PackedModel& model, int64_t units)
      : rows(carve<Value>(carver, units * model.header->dim)),
        kv(carve<Value>(carver, units * 2 * model.header->dim)),
        hidden(carve<Value>(carver, units * model.header->hidden)),
        bytes(carve<uint8_t>(carver, units * widest(model))),
        scales(carve<ByteScale>(carver, units)),
        attention(carver, model.head_dim) {}

  static int64_t widest(const fermt::PackedModel& model) {
    if (!kQuantised<P>) return 0;
    const fermt::PackedHeader& h = *model.header;
    int64_t most = round_up(model.patch_embed.inputs, 4);
    most = h.dim > most ? h.dim : most;
    return h.hidden > most ? h.hidden : most;
  }
  template <class V>
  static V* carve(fermt::Carver& carver, int64_t values) {
    return reinterpret_cast<V*>(carver.bytes(values * kUnit * sizeof(V)));
  }
  // Of one unit; those of several, carved together, need no more than as many times that.
  static size_t unit_bytes(const fermt::PackedModel& model) {
    fermt::Carver carver;
    TileRows(carver, model, 1);
    return carver.used;
  }

  // Rows of Values, whole words apart, as a product takes them: as they lie, or in bytes.
  Operand<typename P::Word> operand(const Value* values, int64_t count, int64_t stride) const {
    using Word = typename P::Word;
    if constexpr (kQuantised<P>) {
      for (int64_t row = 0; row < count; ++row)
        scales[row] = quantise_row(values + row * stride, stride, bytes + row * stride);
      return {reinterpret_cast<const Word*>(bytes), numbers<Word>(stride), scales};
    } else {
      return {reinterpret_cast<const Word*>(values), numbers<Word>(stride), nullptr};
    }
  }
};

// (x - mean) / sqrt(variance + eps), the weights being folded into what follows.
template <class T>
inline void normalise_row(const float* x, int64_t dim, float eps, T* to) {
  Vec sums[2] = {};
  for (int64_t i = 0; i < dim; i += kLanes) sums[i / kLanes % 2] += load(x + i);
  const Vec mean = splat(sum_of_lanes(sums[0] + sums[1]) / static_cast<float>(dim));
  Vec squares[2] = {};
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Vec centred = load(x + i) - mean;
    squares[i / kLanes % 2] += centred * centred;
  }
  const float variance = sum_of_lanes(squares[0] + squares[1]) / static_cast<float>(dim);
  const Vec factor = splat(1.0f / sqrtf(variance + eps));
  for (int64_t i = 0; i < dim; i += kLanes) store_vector((load(x + i) - mean) * factor, to + i);
}

inline void store_activated(Vec v, float* to) { store(to, gelu(v)); }

inline void store_activated(Vec v, BFloat16* to) { store_vector(gelu_roughly(v), to); }

template <class P>
struct Layers {
  using Value = typename P::Value;
  using Number = typename NumberOf<Value>::type;
  using Word = typename P::Word;
  const fermt::PackedModel& model;
  const Units& units;
  int64_t dim, hidden, heads, head_dim;

  Layers(const fermt::PackedModel& m, const Units& u)
      : model(m),
        units(u),
        dim(m.header->dim),
        hidden(m.header->hidden),
        heads(m.header->heads),
        head_dim(m.head_dim) {}

  const KeysAndValues<Number>& template_keys(const Tokens<P>& t, int layer) const {
    return layer <= model.leading ? t.template_cached[layer] : t.template_own[layer % 2];
  }

  // The spans of keys that a group's queries see in one head.
  int spans(const Tokens<P>& t, int layer, bool is_template, int64_t head, PackedKeys<Number> (&to)[2]) const {
    int count = 0;
    const auto add = [&](const KeysAndValues<Number>& of) {
      to[count++] = {of.k_at(head, 0, head_dim), of.v_at(head, 0, head_dim), of.tokens};
    };
    if (model.sees(layer, is_template ? fermt::kTemplateSeesTemplate : fermt::kSearchSeesTemplate))
      add(template_keys(t, layer));
    if (model.sees(layer, is_template ? fermt::kTemplateSeesSearch : fermt::kSearchSeesSearch))
      add(t.search[layer % 2]);
    return count;
  }

  // Attention's output of units [u0, u1) into the tile's rows.
  void attend(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t u0, int64_t u1) const {
    const auto attend_tile = head_dim == 16 ? attention_forward_tile<Value, 16> : attention_forward_tile<Value, 0>;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t u = u0; u < u1; ++u) {
        PackedKeys<Number> keys[2];
        const int span_count = spans(t, layer, units.is_template(u), head, keys);
        const int64_t count = span_count ? units.count(u) : 0;
        const Value* q = t.q + u * kUnit * dim + head * head_dim;
        Value* out = tile.rows + (u - u0) * kUnit * dim + head * head_dim;
        for (int64_t i = 0; i < count; i += kQueryTile)
          attend_tile(tile.attention, keys, span_count, head_dim, model.header->scale, q + i * dim, dim,
                      count - i < kQueryTile ? count - i : kQueryTile, out + i * dim, dim, nullptr);
        for (int64_t i = count; i < kUnit; ++i) memset(static_cast<void*>(out + i * dim), 0, sizeof(Value) * head_dim);
      }
  }

  Operand<Word> normalised(const Tokens<P>& t, const TileRows<P>& tile, int64_t u0, int64_t u1) const {
    const float eps = static_cast<float>(model.header->eps);
    const int64_t count = (u1 - u0) * kUnit;
    for (int64_t row = 0; row < count; ++row)
      normalise_row(t.x + (u0 * kUnit + row) * dim, dim, eps, tile.rows + row * dim);
    return tile.operand(tile.rows, count, dim);
  }

  // body(first, last) over the runs of units [u0, u1) whose group is wanted.
  template <class Body>
  void for_groups(int64_t u0, int64_t u1, bool template_wanted, bool search_wanted, Body&& body) const {
    for (int64_t u = u0; u < u1;) {
      int64_t stop = u;
      while (stop < u1 && (units.is_template(stop) ? template_wanted : search_wanted)) ++stop;
      if (stop > u) body(u, stop);
      u = stop > u ? stop : u + 1;
    }
  }

  // to[row] = a[row] @ matrix + bias.
  static void linear(const Operand<Word>& a, int64_t rows, const fermt::PackedMatrix& matrix, Value* to) {
    const int64_t stride = matrix.outputs;
    const float* bias = matrix.bias;
    gemm(a, rows, matrix, [=](int64_t row, int64_t column, Vec sum) {
      store_vector(sum + load(bias + column), to + row * stride + column);
    });
  }

  void pack_keys(const Tokens<P>& t, int layer, int64_t u, const Value* kv) const {
    const KeysAndValues<Number>& to = units.is_template(u) ? template_keys(t, layer) : t.search[layer % 2];
    const int64_t token = units.first_token(u), count = units.count(u);
    for (int64_t head = 0; head < heads; ++head) {
      const Value* k = kv + head * head_dim;
      pack_rows(k, 2 * dim, count, head_dim, to.k_at(head, token, head_dim));
      pack_row_pairs(k + dim, 2 * dim, count, head_dim, head_dim, to.v_at(head, token, head_dim));
    }
  }

  // Queries, keys and values of a layer from its input, as far as anything needs them.
  void project(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t u0, int64_t u1) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    const Operand<Word> in = normalised(t, tile, u0, u1);
    for_groups(u0, u1, model.template_queries(layer), true, [&](int64_t first, int64_t last) {
      linear(in.from((first - u0) * kUnit), (last - first) * kUnit, weights.q, t.q + first * kUnit * dim);
    });
    for_groups(u0, u1, model.template_keys(layer), model.search_keys(layer), [&](int64_t first, int64_t last) {
      linear(in.from((first - u0) * kUnit), (last - first) * kUnit, weights.kv, tile.kv);
      for (int64_t u = first; u < last; ++u) pack_keys(t, layer, u, tile.kv + (u - first) * kUnit * 2 * dim);
    });
  }

  // One layer of units [u0, u1), and the projections of the next.
  void run(const Tokens<P>& t, const TileRows<P>& tile, int layer, int64_t u0, int64_t u1) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    const int64_t rows = (u1 - u0) * kUnit, stride = hidden;
    float* x = t.x + u0 * kUnit * dim;
    attend(t, tile, layer, u0, u1);
    gemm_add(tile.operand(tile.rows, rows, dim), rows, weights.proj, x, dim);
    const float* bias = weights.fc1.bias;
    Value* to = tile.hidden;
    gemm(normalised(t, tile, u0, u1), rows, weights.fc1, [=](int64_t row, int64_t column, Vec sum) {
      store_activated(sum + load(bias + column), to + row * stride + column);
    });
    gemm_add(tile.operand(tile.hidden, rows, hidden), rows, weights.fc2, x, dim);
    if (layer + 1 < model.header->depth) project(t, tile, layer + 1, u0, u1);
  }
};

}  // namespace
