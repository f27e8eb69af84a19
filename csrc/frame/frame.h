// A whole frame: the template encoded once a target, and every search crop from bytes to the head's maps.
//
// Nothing is kept between calls and nothing is allocated: caches and workspace are the caller's. A phase is one
// parallel loop over work items that do not depend on the number of threads: three for the input, one a layer, two a
// convolution.

#pragma once

#include "frame/head.h"
#include "frame/input.h"
#include "frame/layers.h"
#include "frame/output.h"
#include "frame/target.h"
#include "isa/kernel_table.h"

namespace {

template <class P>
struct Frame {
  using Value = typename P::Value;
  using Number = typename NumberOf<Value>::type;
  const fermt::PackedModel& model;
  fermt_parallel_for threads;
  int64_t batch;
  bool tracking;  // or encoding a template
  Units units;
  Input<P> input;
  Layers<P> layers;
  Head<P> head;

  Frame(const fermt::PackedModel& m, fermt_parallel_for t, int64_t b, bool is_tracking)
      : model(m),
        threads(t),
        batch(b),
        tracking(is_tracking),
        units(m.num_template, is_tracking ? m.num_search : 0),
        input(m, is_tracking ? m.header->search_size : m.header->template_size),
        layers(m, units),
        head(m) {}
  Frame(const Frame&) = delete;

  void carve_target(fermt::Carver& carver, Target<P>* to) const {
    const int64_t dim = model.header->dim, heads = model.header->heads, rows = units.rows();
    const auto values = [&](int64_t count) { return reinterpret_cast<Value*>(carver.bytes(count * sizeof(Value))); };
    to->input = input.carve(carver);
    Tokens<P>& t = to->tokens;
    t.x = tracking ? carver.floats(rows * dim) : nullptr;  // a template's are its cache's
    t.q = tracking ? values(rows * dim) : nullptr;
    for (int i = 0; tracking && i < 2; ++i) {
      t.search[i] = KeysAndValues<Number>::carve_from(carver, model.num_search, dim, heads);
      t.template_own[i] = KeysAndValues<Number>::carve_from(carver, model.num_template, dim, heads);
    }
    if (tracking) to->head = head.carve(carver);
    if (tracking && model.header->reweight) to->pooled = carver.floats(2 * dim);
  }

  // All targets, one after the other, behind their descriptions, and room for tiles of their units; `base` may be null
  // to learn the size.
  size_t carve(char* base, Target<P>** targets, char** tiles) const {
    fermt::Carver carver{base};
    *targets = reinterpret_cast<Target<P>*>(carver.bytes(batch * sizeof(Target<P>)));
    *tiles = carver.bytes(batch * units.total() * TileRows<P>::unit_bytes(model));
    for (int64_t b = 0; b < batch; ++b) {
      Target<P> one{};
      carve_target(carver, &one);
      if (base) memcpy(static_cast<void*>(*targets + b), &one, sizeof one);
    }
    return carver.used;
  }

  // body(b, tile, u0, u1) for all units of the batch's targets, or for those of the search regions.
  template <class Body>
  fermt_status for_units(char* tiles, bool search_only, Body&& body) const {
    const int64_t first = search_only ? units.before : 0, count = search_only ? units.search : units.total();
    auto chunk = [&](int64_t begin, int64_t end) {
      char* own = tiles + begin * TileRows<P>::unit_bytes(model);
      while (begin < end) {
        const int64_t b = begin / count, u0 = begin % count;
        const int64_t left = end - begin < count - u0 ? end - begin : count - u0;
        const int64_t pieces = (left + kTileUnits - 1) / kTileUnits;
        for (int64_t i = 0; i < pieces; ++i) {
          const int64_t start = first + u0 + left * i / pieces, stop = first + u0 + left * (i + 1) / pieces;
          fermt::Carver carver{own};
          body(b, TileRows<P>(carver, model, stop - start), start, stop);
        }
        begin += left;
      }
    };
    return fermt::parallel_for(threads, batch * count, chunk);
  }

  // Tokens of the crop's patches, with their positions, into the residual stream.
  void embed(const Target<P>& target, const TileRows<P>& tile, int64_t u0, int64_t u1) const {
    const fermt::PackedMatrix& weights = model.patch_embed;
    const float* positions = tracking ? model.pos_search : model.pos_template;
    const int64_t dim = model.header->dim;
    for (int64_t u = u0; u < u1; ++u)
      for (int64_t i = 0; i < kUnit; ++i) {
        float* row = target.tokens.x + (u * kUnit + i) * dim;
        if (i < units.count(u))
          memcpy(row, positions + (units.first_token(u) + i) * dim, dim * sizeof(float));
        else
          memset(row, 0, dim * sizeof(float));
      }
    const int64_t rows = (u1 - u0 - 1) * kUnit + units.count(u1 - 1);
    gemm_add(tile.operand(target.input.patches + units.first_token(u0) * input.stride, rows, input.stride), rows,
             weights, target.tokens.x + u0 * kUnit * dim, dim);
  }

  fermt_status encode(const fermt_encode_template_args& a) const;
  fermt_status track(const fermt_track_frame_args& a) const;
  void take_template(const Cache<P>& cache, const Target<P>& target) const;
  void finish_tokens(const Target<P>& target, int64_t u0, int64_t u1, float* tokens) const;
  void reweight(const Target<P>& target, const Cache<P>& cache) const;
  fermt_status write_maps(const Target<P>* targets, float* maps) const;
};

template <class P>
fermt_status Frame<P>::encode(const fermt_encode_template_args& a) const {
  Target<P>* targets = nullptr;
  char* tiles = nullptr;
  carve(static_cast<char*>(a.workspace), &targets, &tiles);
  for (int64_t b = 0; b < batch; ++b) {
    const Cache<P> cache(model, static_cast<char*>(a.caches[b]));
    *cache.header = cache.expected(model);
    targets[b].tokens.x = cache.x;
    targets[b].tokens.q = cache.q;
    memcpy(targets[b].cached, cache.layers, sizeof cache.layers);
    targets[b].tokens.template_cached = targets[b].cached;
  }
  fermt_status status =
      input.run(threads, batch, a.crops, [&](int64_t b) -> const InputPlanes<P>& { return targets[b].input; });
  if (status) return status;
  status = for_units(tiles, false, [&](int64_t b, const TileRows<P>& tile, int64_t u0, int64_t u1) {
    embed(targets[b], tile, u0, u1);
    layers.project(targets[b].tokens, tile, 0, u0, u1);
  });
  for (int layer = 0; !status && layer < model.leading; ++layer)
    if (model.template_updated(layer))
      status = for_units(tiles, false, [&](int64_t b, const TileRows<P>& tile, int64_t u0, int64_t u1) {
        layers.run(targets[b].tokens, tile, layer, u0, u1);
      });
  return status;
}

// The cached tokens and queries of a target into its rows.
template <class P>
void Frame<P>::take_template(const Cache<P>& cache, const Target<P>& target) const {
  const int64_t before = units.before * kUnit * model.header->dim, after = units.after * kUnit * model.header->dim;
  const int64_t behind = (units.before + units.search) * kUnit * model.header->dim;
  memcpy(target.tokens.x, cache.x, before * sizeof(float));
  memcpy(target.tokens.x + behind, cache.x + before, after * sizeof(float));
  memcpy(target.tokens.q, cache.q, before * sizeof(Value));
  memcpy(target.tokens.q + behind, cache.q + before, after * sizeof(Value));
}

// The last norm of search units, to the head's input and to the caller's tokens; where the head weighs tokens, they
// stay in place for that.
template <class P>
void Frame<P>::finish_tokens(const Target<P>& target, int64_t u0, int64_t u1, float* tokens) const {
  const int64_t dim = model.header->dim, grid = model.grid;
  const float eps = static_cast<float>(model.header->eps);
  for (int64_t u = u0; u < u1; ++u)
    for (int64_t i = 0; i < units.count(u); ++i) {
      float* row = target.tokens.x + (u * kUnit + i) * dim;
      normalise_row(row, dim, eps, row);
      for (int64_t c = 0; c < dim; c += kLanes)
        store(row + c, load(row + c) * load(model.norm_weight + c) + load(model.norm_bias + c));
      if (units.is_template(u)) continue;
      const int64_t token = units.first_token(u) + i;
      if (tokens) memcpy(tokens + token * dim, row, dim * sizeof(float));
      auto* pixel = head.pixel(target.head.maps[0], 0, 0, token / grid, token % grid);
      for (int64_t c = 0; c < dim; c += kLanes) head.store_input(load(row + c), pixel + c);
    }
}

// Search tokens times their similarity to the mean template token.
template <class P>
void Frame<P>::reweight(const Target<P>& target, const Cache<P>& cache) const {
  const int64_t dim = model.header->dim, grid = model.grid, n = model.num_template;
  const float eps = static_cast<float>(model.header->eps);
  float *mean = target.pooled, *row = mean + dim;
  memset(mean, 0, dim * sizeof(float));
  for (int64_t u = 0; u < units.total(); ++u) {
    if (!units.is_template(u)) continue;
    for (int64_t i = 0; i < units.count(u); ++i) {
      const float* from = target.tokens.x + (u * kUnit + i) * dim;
      if (model.leading == model.header->depth) {
        normalise_row(cache.x + (units.first_token(u) + i) * dim, dim, eps, row);
        for (int64_t c = 0; c < dim; c += kLanes)
          store(row + c, load(row + c) * load(model.norm_weight + c) + load(model.norm_bias + c));
        from = row;
      }
      for (int64_t c = 0; c < dim; c += kLanes)
        store(mean + c, load(mean + c) + load(from + c) * (1.0f / static_cast<float>(n)));
    }
  }
  for (int64_t u = units.before; u < units.before + units.search; ++u)
    for (int64_t i = 0; i < units.count(u); ++i) {
      const float* x = target.tokens.x + (u * kUnit + i) * dim;
      Vec similarity = {};
      for (int64_t c = 0; c < dim; c += kLanes) similarity += load(x + c) * load(mean + c);
      const Vec factor = splat(sum_of_lanes(similarity));
      const int64_t token = units.first_token(u) + i;
      auto* pixel = head.pixel(target.head.maps[0], 0, 0, token / grid, token % grid);
      for (int64_t c = 0; c < dim; c += kLanes) head.store_input(load(x + c) * factor, pixel + c);
    }
}

template <class P>
fermt_status Frame<P>::track(const fermt_track_frame_args& a) const {
  Target<P>* targets = nullptr;
  char* tiles = nullptr;
  carve(static_cast<char*>(a.workspace), &targets, &tiles);
  const int depth = static_cast<int>(model.header->depth);
  const auto cache_of = [&](int64_t b) {
    return Cache<P>(model, static_cast<char*>(const_cast<void*>(a.caches[b])));  // read only
  };
  for (int64_t b = 0; b < batch; ++b) {
    const Cache<P> cache = cache_of(b);
    const CacheHeader expected = cache.expected(model);
    if (memcmp(cache.header, &expected, sizeof expected) != 0) return FERMT_BAD_CACHE;
    memcpy(targets[b].cached, cache.layers, sizeof cache.layers);
    targets[b].tokens.template_cached = targets[b].cached;
  }
  const bool template_active = model.leading < depth && model.template_updated(static_cast<int>(model.leading));
  fermt_status status =
      input.run(threads, batch, a.crops, [&](int64_t b) -> const InputPlanes<P>& { return targets[b].input; });
  if (status) return status;
  status = for_units(tiles, true, [&](int64_t b, const TileRows<P>& tile, int64_t u0, int64_t u1) {
    if (u0 == units.before) {
      head.clear_padding(targets[b].head.maps[0], 0, 0, 0, model.header->dim);
      if (template_active) take_template(cache_of(b), targets[b]);
    }
    embed(targets[b], tile, u0, u1);
    layers.project(targets[b].tokens, tile, 0, u0, u1);
  });
  for (int layer = 0; !status && layer < depth; ++layer) {
    const bool search_only = layer < model.leading || !model.template_updated(layer);
    status = for_units(tiles, search_only, [&](int64_t b, const TileRows<P>& tile, int64_t u0, int64_t u1) {
      layers.run(targets[b].tokens, tile, layer, u0, u1);
      if (layer + 1 == depth)
        finish_tokens(targets[b], u0, u1, a.tokens ? a.tokens + b * model.num_search * model.header->dim : nullptr);
    });
  }
  if (status) return status;
  if (model.header->reweight) {
    auto chunk = [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) reweight(targets[b], cache_of(b));
    };
    status = fermt::parallel_for(threads, batch, chunk);
    if (status) return status;
  }
  for (int64_t b = 0; !status && b < batch; ++b) status = head.run(threads, targets[b].head);
  return status ? status : write_maps(targets, a.maps);
}

template <class P>
fermt_status Frame<P>::write_maps(const Target<P>* targets, float* maps) const {
  const int64_t cells = model.grid * model.grid, branches = model.branches;
  auto chunk = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / branches, branch = i % branches;
      write_branch(head, targets[b].head, branch,
                   maps + (b * model.map_channels() + branch_place(model, branch)) * cells);
    }
  };
  return fermt::parallel_for(threads, batch * branches, chunk);
}

template <class P>
fermt_status frame_info(const fermt::PackedModel& model, int64_t batch, int64_t* cache_bytes,
                        int64_t* workspace_bytes) {
  Target<P>* no_targets = nullptr;
  char* no_tiles = nullptr;
  const size_t encoding = Frame<P>(model, nullptr, batch, false).carve(nullptr, &no_targets, &no_tiles);
  const size_t tracking = Frame<P>(model, nullptr, batch, true).carve(nullptr, &no_targets, &no_tiles);
  *cache_bytes = static_cast<int64_t>(Cache<P>(model, nullptr).bytes);
  *workspace_bytes = static_cast<int64_t>(encoding > tracking ? encoding : tracking);
  return FERMT_OK;
}

template <class P>
fermt_status encode_template(const fermt::PackedModel& model, const fermt_encode_template_args& a) {
  return Frame<P>(model, a.parallel_for, a.batch, false).encode(a);
}

template <class P>
fermt_status track_frame(const fermt::PackedModel& model, const fermt_track_frame_args& a) {
  return Frame<P>(model, a.parallel_for, a.batch, true).track(a);
}

// What a kernel table holds of a precision.
template <class P>
constexpr fermt::FrameKernels kFrameKernels = {frame_info<P>, encode_template<P>, track_frame<P>};

}  // namespace
