// A transformer layer of a frame, by tiles of tokens: attention, projection and residual, norm, fc1, GELU, fc2 and
// residual, then the next layer's norm, queries, keys and values. Only keys and values are seen by other tiles, so a
// layer is one pass with one barrier; a tile's rows and its part of the hidden layer stay in the core's own cache.

#pragma once

#include "attention_forward_kernel.h"
#include "frame_model.h"
#include "gemm_kernel.h"

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

// One target's tokens and what is made of them, row by row in the order of its units.
template <class T>
struct Tokens {
  using Number = typename NumberOf<T>::type;
  float* x;                         // the residual stream
  T *q, *rows, *kv, *hidden;        // rows: attention's output, or normalised tokens
  char* tiles;                      // a TileScratch a unit
  KeysAndValues<Number> search[2];  // of this layer and of the next
  KeysAndValues<Number> template_own[2];
  const KeysAndValues<Number>* template_cached;  // by layer, up to the model's `leading`
};

template <class T>
inline size_t tile_bytes(int64_t head_dim) {
  fermt::Carver carver;
  TileScratch<typename NumberOf<T>::type>(carver, head_dim);
  return carver.used;
}

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

template <class T>
struct Layers {
  using Number = typename NumberOf<T>::type;
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

  const KeysAndValues<Number>& template_keys(const Tokens<T>& t, int layer) const {
    return layer <= model.leading ? t.template_cached[layer] : t.template_own[layer % 2];
  }

  // The spans of keys that a group's queries see in one head.
  int spans(const Tokens<T>& t, int layer, bool is_template, int64_t head, PackedKeys<Number> (&to)[2]) const {
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

  // Attention's output of units [u0, u1) into their rows.
  void attend(const Tokens<T>& t, int layer, int64_t u0, int64_t u1) const {
    fermt::Carver carver{t.tiles + u0 * static_cast<int64_t>(tile_bytes<T>(head_dim))};
    const TileScratch<Number> scratch(carver, head_dim);
    const auto tile = head_dim == 16 ? attention_forward_tile<T, 16> : attention_forward_tile<T, 0>;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t u = u0; u < u1; ++u) {
        PackedKeys<Number> keys[2];
        const int span_count = spans(t, layer, units.is_template(u), head, keys);
        const int64_t count = span_count ? units.count(u) : 0;
        const int64_t start = u * kUnit * dim + head * head_dim;
        for (int64_t i = 0; i < count; i += kQueryTile)
          tile(scratch, keys, span_count, head_dim, model.header->scale, t.q + start + i * dim, dim,
               count - i < kQueryTile ? count - i : kQueryTile, t.rows + start + i * dim, dim, nullptr);
        for (int64_t i = count; i < kUnit; ++i) memset(t.rows + start + i * dim, 0, sizeof(T) * head_dim);
      }
  }

  void normalise(const Tokens<T>& t, int64_t u0, int64_t u1) const {
    const float eps = static_cast<float>(model.header->eps);
    for (int64_t row = u0 * kUnit; row < u1 * kUnit; ++row)
      normalise_row(t.x + row * dim, dim, eps, t.rows + row * dim);
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

  void pack_keys(const Tokens<T>& t, int layer, int64_t u) const {
    const KeysAndValues<Number>& to = units.is_template(u) ? template_keys(t, layer) : t.search[layer % 2];
    const int64_t token = units.first_token(u), count = units.count(u);
    for (int64_t head = 0; head < heads; ++head) {
      const T* k = t.kv + u * kUnit * 2 * dim + head * head_dim;
      pack_rows(k, 2 * dim, count, head_dim, to.k_at(head, token, head_dim));
      pack_row_pairs(k + dim, 2 * dim, count, head_dim, head_dim, to.v_at(head, token, head_dim));
    }
  }

  // Queries, keys and values of a layer from its input, as far as anything needs them.
  void project(const Tokens<T>& t, int layer, int64_t u0, int64_t u1) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    normalise(t, u0, u1);
    for_groups(u0, u1, model.template_queries(layer), true, [&](int64_t first, int64_t last) {
      T* q = t.q + first * kUnit * dim;
      const int64_t stride = dim;
      const float* bias = weights.q.bias;
      gemm(t.rows + first * kUnit * dim, dim, (last - first) * kUnit, weights.q,
           [=](int64_t row, int64_t column, Vec sum) {
             store_vector(sum + load(bias + column), q + row * stride + column);
           });
    });
    for_groups(u0, u1, model.template_keys(layer), model.search_keys(layer), [&](int64_t first, int64_t last) {
      T* kv = t.kv + first * kUnit * 2 * dim;
      const int64_t stride = 2 * dim;
      const float* bias = weights.kv.bias;
      gemm(t.rows + first * kUnit * dim, dim, (last - first) * kUnit, weights.kv,
           [=](int64_t row, int64_t column, Vec sum) {
             store_vector(sum + load(bias + column), kv + row * stride + column);
           });
      for (int64_t u = first; u < last; ++u) pack_keys(t, layer, u);
    });
  }

  // One layer of units [u0, u1), and the projections of the next.
  void run(const Tokens<T>& t, int layer, int64_t u0, int64_t u1) const {
    const fermt::PackedLayer& weights = model.layers[layer];
    const int64_t first = u0 * kUnit, rows = (u1 - u0) * kUnit;
    float* x = t.x + first * dim;
    T *in = t.rows + first * dim, *hidden_rows = t.hidden + first * hidden;
    attend(t, layer, u0, u1);
    gemm_add(in, dim, rows, weights.proj, x, dim);
    normalise(t, u0, u1);
    const int64_t stride = hidden;
    const float* bias = weights.fc1.bias;
    gemm(in, dim, rows, weights.fc1, [=](int64_t row, int64_t column, Vec sum) {
      store_vector(gelu(sum + load(bias + column)), hidden_rows + row * stride + column);
    });
    gemm_add(hidden_rows, hidden, rows, weights.fc2, x, dim);
    if (layer + 1 < model.header->depth) project(t, layer + 1, u0, u1);
  }
};

}  // namespace
