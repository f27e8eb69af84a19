// What a frame keeps of one target: its cache, which outlives the frame, and its room in the workspace.

#pragma once

#include "frame/head.h"
#include "frame/input.h"
#include "frame/layers.h"

namespace {

// What a cache begins with: it serves only the model and the kernels that it was made by.
struct CacheHeader {
  char magic[8];
  int64_t checksum, lanes, values_per_number, bytes;
};

template <class P>
struct Cache {
  using Value = typename P::Value;
  using Number = typename NumberOf<Value>::type;
  CacheHeader* header;
  float* x;  // template tokens after the leading layers, and the next layer's queries
  Value* q;
  KeysAndValues<Number> layers[fermt::kMaxDepth];
  size_t bytes;

  Cache(const fermt::PackedModel& model, char* base) {
    fermt::Carver carver{base};
    const int64_t rows = Units(model.num_template, 0).rows(), dim = model.header->dim;
    header = reinterpret_cast<CacheHeader*>(carver.bytes(sizeof(CacheHeader)));
    x = carver.floats(rows * dim);
    q = reinterpret_cast<Value*>(carver.bytes(rows * dim * sizeof(Value)));
    for (int layer = 0; layer <= model.leading && layer < model.header->depth; ++layer)
      layers[layer] = KeysAndValues<Number>::carve_from(carver, model.template_keys(layer) ? model.num_template : 0,
                                                        dim, model.header->heads);
    bytes = carver.used;
  }
  CacheHeader expected(const fermt::PackedModel& model) const {
    return {{'F', 'E', 'R', 'M', 'T', 'C', 'A', 0},
            model.header->checksum,
            kLanes,
            kValues<Number>,
            static_cast<int64_t>(bytes)};
  }
};

// Room for one target.
template <class P>
struct Target {
  InputPlanes<P> input;
  Tokens<P> tokens;
  HeadMaps<P> head;
  float* pooled;  // the mean template token, where the head weighs tokens by it, and one token
  KeysAndValues<typename NumberOf<typename P::Value>::type> cached[fermt::kMaxDepth];
};

}  // namespace
