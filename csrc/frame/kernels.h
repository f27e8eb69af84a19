// The kernels of a frame: encoding a template and tracking, as sequences of a team's loops.

#pragma once

#include "frame/frame.h"
#include "isa/kernel_table.h"

namespace {

template <class P>
fermt_status Frame<P>::encode(const fermt_encode_template_args& a) const {
  const Workspace workspace = allocate(static_cast<char*>(a.workspace));
  Target<P>* targets = workspace.targets;
  for (int64_t b = 0; b < batch; ++b) {
    const Cache<P> cache(model, static_cast<char*>(a.caches[b]));
    *cache.header = cache.expected(model);
    targets[b].tokens.x = cache.x;
    targets[b].tokens.q = cache.q;
    memcpy(targets[b].cached, cache.layers, sizeof cache.layers);
    targets[b].tokens.template_cached = targets[b].cached;
  }
  return fermt::run_team(run, workspace.loops, loop_count(), [&](fermt::Team& team) {
    const auto tiles = [&](auto&& body) { for_blocks(team, workspace, false, body); };
    input.run(team, batch, a.crops, [&](int64_t b) -> const InputPlanes<P>& { return targets[b].input; });
    tiles([&](int64_t b, const TileRows<P>& tile, int64_t first_block, int64_t end_block) {
      embed(targets[b], tile, first_block, end_block);
      layers.project(targets[b].tokens, tile, 0, first_block, end_block);
    });
    for (int layer = 0; layer < model.first_dynamic_layer; ++layer)
      if (model.template_updated(layer))
        tiles([&](int64_t b, const TileRows<P>& tile, int64_t first_block, int64_t end_block) {
          layers.run(targets[b].tokens, tile, layer, first_block, end_block);
        });
  });
}

template <class P>
fermt_status Frame<P>::track(const fermt_track_frame_args& a) const {
  const Workspace workspace = allocate(static_cast<char*>(a.workspace));
  Target<P>* targets = workspace.targets;
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
  const bool template_active =
      model.first_dynamic_layer < depth && model.template_updated(static_cast<int>(model.first_dynamic_layer));
  return fermt::run_team(run, workspace.loops, loop_count(), [&](fermt::Team& team) {
    input.run(team, batch, a.crops, [&](int64_t b) -> const InputPlanes<P>& { return targets[b].input; });
    for_blocks(team, workspace, true, [&](int64_t b, const TileRows<P>& tile, int64_t first_block, int64_t end_block) {
      if (first_block == blocks.template_before) {
        head.clear_padding(targets[b].head.maps[0], 0, 0, 0, model.header->dim);
        if (template_active) load_cached_template(cache_of(b), targets[b]);
      }
      embed(targets[b], tile, first_block, end_block);
      layers.project(targets[b].tokens, tile, 0, first_block, end_block);
    });
    for (int layer = 0; layer < depth; ++layer) {
      const bool search_only = layer < model.first_dynamic_layer || !model.template_updated(layer);
      for_blocks(team, workspace, search_only,
                 [&](int64_t b, const TileRows<P>& tile, int64_t first_block, int64_t end_block) {
                   layers.run(targets[b].tokens, tile, layer, first_block, end_block);
                   if (layer + 1 == depth)
                     final_norm(targets[b], first_block, end_block,
                                a.tokens ? a.tokens + b * model.num_search * model.header->dim : nullptr);
                 });
    }
    if (model.header->reweight) team.loop(batch, 1, [&](int64_t b, int64_t) { reweight(targets[b], cache_of(b)); });
    for (int64_t b = 0; b < batch; ++b) head.run(team, targets[b].head);
    write_maps(team, targets, a.maps);
  });
}

template <class P>
fermt_status frame_info(const fermt::PackedModel& model, int64_t batch, int64_t* cache_bytes,
                        int64_t* workspace_bytes) {
  const size_t encoding = Frame<P>(model, nullptr, batch, false).allocate(nullptr).bytes;
  const size_t tracking = Frame<P>(model, nullptr, batch, true).allocate(nullptr).bytes;
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

// A kernel table's entry for one precision.
template <class P>
constexpr fermt::FrameKernels kFrameKernels = {frame_info<P>, encode_template<P>, track_frame<P>};

}  // namespace
