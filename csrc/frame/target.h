// What belongs to one target: its cache, which outlives a frame, and its buffers in the workspace.

#pragma once

#include "frame/head.h"
#include "frame/input.h"
#include "frame/layers.h"

namespace {

// The start of a cache, which is valid only for the model and the kernels that made it.
struct CacheHeader {
  char magic[8];
  int64_t checksum, lanes, pack_factor, tiled, bytes;
};

template <class P>
struct Cache {
  using Value = typename P::Value;
  using Packed = typename PackedOf<Value>::type;
  CacheHeader* header;
  float* x;  // template tokens before first_dynamic_layer, and their queries there
  Value* q;
  KeysAndValues<Packed> layers[fermt::kMaxDepth];
  size_t bytes;

  Cache(const fermt::PackedModel& model, char* base) {
    Arena arena{base};
    const int64_t rows = TokenBlocks(model.num_template, 0).rows(), dim = model.header->dim;
    header = reinterpret_cast<CacheHeader*>(arena.bytes(sizeof(CacheHeader)));
    x = arena.floats(rows * dim);
    q = reinterpret_cast<Value*>(arena.bytes(rows * dim * sizeof(Value)));
    for (int layer = 0; layer <= model.first_dynamic_layer && layer < model.header->depth; ++layer)
      layers[layer] = KeysAndValues<Packed>::allocate_in(arena, model.template_keys(layer) ? model.num_template : 0,
                                                         dim, model.header->heads);
    bytes = arena.used;
  }
  CacheHeader expected(const fermt::PackedModel& model) const {
    return {{'F', 'E', 'R', 'M', 'T', 'C', 'A', 0},
            model.header->checksum,
            kLanes,
            kPackFactor<Packed>,
            kTiled<Packed>,
            static_cast<int64_t>(bytes)};
  }
};

// Buffers of one target.
template <class P>
struct Target {
  InputPlanes<P> input;
  Tokens<P> tokens;
  HeadMaps<P> head;
  float* pooled;  // reweighting: the mean template token, and one token
  KeysAndValues<typename PackedOf<typename P::Value>::type> cached[fermt::kMaxDepth];
};

}  // namespace
