// A whole frame: a target's template is encoded once, then each search crop goes from bytes to the head's maps.
//
// Nothing is kept between calls and nothing is allocated: caches and workspace are the caller's. A team of the caller's
// threads goes through a frame's loops (four for the input, one for each layer, two for each convolution).

#pragma once

#include "frame/head.h"
#include "frame/input.h"
#include "frame/layers.h"
#include "frame/output.h"
#include "frame/target.h"

namespace {

template <class P>
struct Frame {
  using Value = typename P::Value;
  using Packed = typename PackedOf<Value>::type;
  const fermt::PackedModel& model;
  fermt_parallel_for run;
  int64_t batch;
  bool tracking;  // false: encoding a template
  TokenBlocks blocks;
  Input<P> input;
  Layers<P> layers;
  Head<P> head;

  Frame(const fermt::PackedModel& m, fermt_parallel_for t, int64_t b, bool is_tracking)
      : model(m),
        run(t),
        batch(b),
        tracking(is_tracking),
        blocks(m.num_template, is_tracking ? m.num_search : 0),
        input(m, is_tracking ? m.header->search_size : m.header->template_size),
        layers(m, blocks),
        head(m) {}
  Frame(const Frame&) = delete;

  void allocate_target(Arena& arena, Target<P>* to) const {
    const int64_t dim = model.header->dim, heads = model.header->heads, rows = blocks.rows();
    const auto values = [&](int64_t count) { return reinterpret_cast<Value*>(arena.bytes(count * sizeof(Value))); };
    to->input = input.allocate(arena);
    Tokens<P>& t = to->tokens;
    t.x = tracking ? arena.floats(rows * dim) : nullptr;  // a template's are in its cache
    t.q = tracking ? values(rows * dim) : nullptr;
    for (float*& largest : t.largest_q) largest = arena.floats(kFindsBounds<Packed> ? blocks.total() * dim : 0);
    for (int i = 0; tracking && i < 2; ++i) {
      t.search[i] = KeysAndValues<Packed>::allocate_in(arena, model.num_search, dim, heads);
      t.template_own[i] = KeysAndValues<Packed>::allocate_in(arena, model.num_template, dim, heads);
    }
    if (tracking) to->head = head.allocate(arena);
    if (tracking && model.header->reweight) to->pooled = arena.floats(2 * dim);
  }

  // What a call has in its workspace.
  struct Workspace {
    Target<P>* targets;
    fermt::TeamLoop* loops;
    char *blocks, *threads;  // block_bytes for each block, thread_bytes for each thread
    size_t block_bytes, thread_bytes, bytes;
  };

  int64_t loop_count() const { return Input<P>::kLoops + model.header->depth + 3 + batch * Head<P>::kLoops; }

  // Lays out the workspace at `base`, which may be null.
  Workspace allocate(char* base) const {
    Arena arena{base};
    Workspace to{};
    to.targets = reinterpret_cast<Target<P>*>(arena.bytes(batch * sizeof(Target<P>)));
    to.loops = reinterpret_cast<fermt::TeamLoop*>(arena.bytes(loop_count() * sizeof(fermt::TeamLoop)));
    TileRows<P>::sizes(model, &to.block_bytes, &to.thread_bytes);
    to.blocks = arena.bytes(batch * blocks.total() * to.block_bytes);
    to.threads = arena.bytes(fermt::kMaxTeam * to.thread_bytes);
    for (int64_t b = 0; b < batch; ++b) {
      Target<P> one{};
      allocate_target(arena, &one);
      if (base) memcpy(static_cast<void*>(to.targets + b), &one, sizeof one);
    }
    to.bytes = arena.used;
    return to;
  }

  // body(b, tile, first_block, end_block) for all token blocks of all targets, or only for those of search regions.
  template <class Body>
  void for_blocks(fermt::Team& team, const Workspace& workspace, bool search_only, Body&& body) const {
    const int64_t first = search_only ? blocks.template_before : 0,
                  count = search_only ? blocks.search : blocks.total();
    team.loop(batch * count, team.share(batch * count), [&](int64_t begin, int64_t end) {
      const TileScope scope;
      char *rows = workspace.blocks + begin * workspace.block_bytes,
           *own = workspace.threads + team.thread() * workspace.thread_bytes;
      while (begin < end) {
        const int64_t b = begin / count, first_block = begin % count;
        const int64_t left = end - begin < count - first_block ? end - begin : count - first_block;
        const int64_t pieces = (left + kTileBlocks - 1) / kTileBlocks;
        for (int64_t i = 0; i < pieces; ++i) {
          const int64_t start = first + first_block + left * i / pieces,
                        stop = first + first_block + left * (i + 1) / pieces;
          Arena arena{rows}, of_thread{own};
          body(b, TileRows<P>(arena, of_thread, model, stop - start), start, stop);
        }
        begin += left;
      }
    });
  }

  // Embeds patches, with position embeddings, into the residual stream.
  void embed(const Target<P>& target, const TileRows<P>& tile, int64_t first_block, int64_t end_block) const {
    const fermt::PackedMatrix& weights = model.patch_embed;
    const float* positions = tracking ? model.pos_search : model.pos_template;
    const int64_t dim = model.header->dim;
    for (int64_t block = first_block; block < end_block; ++block)
      for (int64_t i = 0; i < kBlockTokens; ++i) {
        float* row = target.tokens.x + (block * kBlockTokens + i) * dim;
        if (i < blocks.count(block))
          memcpy(row, positions + (blocks.first_token(block) + i) * dim, dim * sizeof(float));
        else
          memset(row, 0, dim * sizeof(float));
      }
    const int64_t rows = (end_block - first_block - 1) * kBlockTokens + blocks.count(end_block - 1);
    gemm_add<typename P::Stored>(
        tile.operand(target.input.patches + blocks.first_token(first_block) * input.stride, rows, input.stride), rows,
        weights, tile.strip, target.tokens.x + first_block * kBlockTokens * dim, dim);
  }

  fermt_status encode(const fermt_encode_template_args& a) const;
  fermt_status track(const fermt_track_frame_args& a) const;
  void load_cached_template(const Cache<P>& cache, const Target<P>& target) const;
  void final_norm(const Target<P>& target, int64_t first_block, int64_t end_block, float* tokens) const;
  void reweight(const Target<P>& target, const Cache<P>& cache) const;
  void write_maps(fermt::Team& team, const Target<P>* targets, float* maps) const;
};

// Copies cached template tokens and queries into a target's rows.
template <class P>
void Frame<P>::load_cached_template(const Cache<P>& cache, const Target<P>& target) const {
  const int64_t size_before = blocks.template_before * kBlockTokens * model.header->dim,
                size_after = blocks.template_after * kBlockTokens * model.header->dim;
  const int64_t after_search = (blocks.template_before + blocks.search) * kBlockTokens * model.header->dim;
  memcpy(target.tokens.x, cache.x, size_before * sizeof(float));
  memcpy(target.tokens.x + after_search, cache.x + size_before, size_after * sizeof(float));
  memcpy(target.tokens.q, cache.q, size_before * sizeof(Value));
  memcpy(target.tokens.q + after_search, cache.q + size_before, size_after * sizeof(Value));
  const int layer = static_cast<int>(model.first_dynamic_layer);
  layers.measure_queries(target.tokens, layer, 0, blocks.template_before);
  layers.measure_queries(target.tokens, layer, blocks.template_before + blocks.search, blocks.total());
}

// The final norm. Search tokens go to the head's input and to the caller; tokens stay in place for reweighting.
template <class P>
void Frame<P>::final_norm(const Target<P>& target, int64_t first_block, int64_t end_block, float* tokens) const {
  const int64_t dim = model.header->dim, grid = model.grid;
  const float eps = static_cast<float>(model.header->eps);
  for (int64_t block = first_block; block < end_block; ++block)
    for (int64_t i = 0; i < blocks.count(block); ++i) {
      float* row = target.tokens.x + (block * kBlockTokens + i) * dim;
      layer_norm_row(row, dim, eps, row);
      for (int64_t c = 0; c < dim; c += kLanes)
        store(row + c, load(row + c) * load(model.norm_weight + c) + load(model.norm_bias + c));
      if (blocks.is_template(block)) continue;
      const int64_t token = blocks.first_token(block) + i;
      if (tokens) memcpy(tokens + token * dim, row, dim * sizeof(float));
      auto* pixel = head.pixel(target.head.maps[0], 0, 0, token / grid, token % grid);
      for (int64_t c = 0; c < dim; c += kLanes) head.store_input(load(row + c), pixel + c);
    }
}

// Scales search tokens by their similarity to the mean template token, into the head's input.
template <class P>
void Frame<P>::reweight(const Target<P>& target, const Cache<P>& cache) const {
  const int64_t dim = model.header->dim, grid = model.grid, n = model.num_template;
  const float eps = static_cast<float>(model.header->eps);
  float *mean = target.pooled, *row = mean + dim;
  memset(mean, 0, dim * sizeof(float));
  for (int64_t block = 0; block < blocks.total(); ++block) {
    if (!blocks.is_template(block)) continue;
    for (int64_t i = 0; i < blocks.count(block); ++i) {
      const float* from = target.tokens.x + (block * kBlockTokens + i) * dim;
      if (model.first_dynamic_layer == model.header->depth) {
        layer_norm_row(cache.x + (blocks.first_token(block) + i) * dim, dim, eps, row);
        for (int64_t c = 0; c < dim; c += kLanes)
          store(row + c, load(row + c) * load(model.norm_weight + c) + load(model.norm_bias + c));
        from = row;
      }
      for (int64_t c = 0; c < dim; c += kLanes)
        store(mean + c, load(mean + c) + load(from + c) * (1.0f / static_cast<float>(n)));
    }
  }
  for (int64_t block = blocks.template_before; block < blocks.template_before + blocks.search; ++block)
    for (int64_t i = 0; i < blocks.count(block); ++i) {
      const float* x = target.tokens.x + (block * kBlockTokens + i) * dim;
      Vec similarity = {};
      for (int64_t c = 0; c < dim; c += kLanes) similarity += load(x + c) * load(mean + c);
      const Vec factor = splat(sum_of_lanes(similarity));
      const int64_t token = blocks.first_token(block) + i;
      auto* pixel = head.pixel(target.head.maps[0], 0, 0, token / grid, token % grid);
      for (int64_t c = 0; c < dim; c += kLanes) head.store_input(load(x + c) * factor, pixel + c);
    }
}

template <class P>
void Frame<P>::write_maps(fermt::Team& team, const Target<P>* targets, float* maps) const {
  const int64_t cells = model.grid * model.grid, branches = model.branches;
  team.loop(batch * branches, 1, [&](int64_t i, int64_t) {
    const int64_t b = i / branches, branch = i % branches;
    write_branch(head, targets[b].head, branch,
                 maps + (b * model.map_channels() + branch_channel(model, branch)) * cells);
  });
}

}  // namespace
