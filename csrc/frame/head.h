// The head of a frame: four 3 x 3 convolution-ReLU layers in two or three branches, whose first layers are one
// convolution.
//
// Feature maps are (group, row, column, channel), a group for each branch, with zero padding, so that three neighboring
// pixels are contiguous inputs. A work item is a panel of outputs and a block of rows: each weight is read by one core.
// float32 uses Winograd's algorithm in two passes for each layer; bfloat16 and int8 direct convolution in one.

#pragma once

#include "abi/arena.h"
#include "abi/packed_model.h"
#include "abi/parallel.h"
#include "gemm/winograd.h"

namespace {

constexpr int64_t kMinItems = 12;  // work items of a layer, if it has as many rows

// The type of a layer's inputs.
template <class P>
struct MapOf {
  typedef typename P::Value type;
};
template <>
struct MapOf<Int8Precision> {
  typedef uint8_t type;
};

template <class P>
struct HeadMaps {
  typename MapOf<P>::type* maps[fermt::kHeadLayers];  // each layer's inputs
  typename P::Value* last;                            // the last layer's output
  float* inputs;                                      // Winograd: transformed inputs (group, position, tile, channel)
  char* items;                                        // each work item's sums
  size_t item_bytes;
};

template <class P>
struct Head {
  static constexpr bool kWinograd = sizeof(typename P::Value) == sizeof(float);
  using Value = typename P::Value;
  using Map = typename MapOf<P>::type;
  using Operand = typename P::Operand;
  const fermt::PackedModel& model;
  int64_t grid, tiles, pitch;  // tiles: along a side; pitch: pixels of a padded row

  explicit Head(const fermt::PackedModel& m)
      : model(m), grid(m.grid), tiles((m.grid + 1) / 2), pitch(2 * ((m.grid + 1) / 2) + 2) {}

  int64_t channels(int layer) const { return layer == 0 ? model.header->dim : model.header->widths[layer - 1]; }
  int64_t groups(int layer) const { return layer == 0 ? 1 : model.branches; }
  int64_t map_size(int layer) const { return pitch * pitch * channels(layer); }
  template <class M>
  M* pixel(M* map, int layer, int64_t group, int64_t y, int64_t x) const {  // -1: padding
    return map + group * map_size(layer) + ((y + 1) * pitch + x + 1) * channels(layer);
  }

  // Rows of a layer (of tiles, or of pixels), and how many of them a work item takes.
  int64_t row_count() const { return kWinograd ? tiles : grid; }
  int64_t panels(int layer) const { return (model.head[layer][0].outputs + fermt::kPanel - 1) / fermt::kPanel; }
  int64_t block_rows(int layer) const {
    const int64_t items = model.head_groups(layer) * panels(layer);
    const int64_t blocks = (kMinItems + items - 1) / items;
    const int64_t rows = (row_count() + blocks - 1) / blocks;
    return kWinograd || rows <= 4 ? rows : 4;
  }
  int64_t blocks(int layer) const { return (row_count() + block_rows(layer) - 1) / block_rows(layer); }
  int64_t items(int layer) const { return model.head_groups(layer) * panels(layer) * blocks(layer); }

  HeadMaps<P> allocate(Arena& arena) const {
    HeadMaps<P> to{};
    size_t inputs = 0;
    int64_t max_items = 0;
    to.last = reinterpret_cast<Value*>(arena.bytes(model.branches * map_size(fermt::kHeadLayers) * sizeof(Value)));
    for (int layer = 0; layer < fermt::kHeadLayers; ++layer) {
      to.maps[layer] = reinterpret_cast<Map*>(arena.bytes(groups(layer) * map_size(layer) * sizeof(Map)));
      const size_t floats = groups(layer) * 16 * tiles * tiles * channels(layer);
      if (floats > inputs) inputs = floats;
      if (items(layer) > max_items) max_items = items(layer);
      const int64_t pixels = kWinograd ? 16 * block_rows(layer) * tiles : block_rows(layer) * grid;
      const size_t bytes = pixels * fermt::kPanel * sizeof(float);
      if (bytes > to.item_bytes) to.item_bytes = bytes;
    }
    if (kWinograd) to.inputs = arena.floats(inputs);
    to.items = arena.bytes(max_items * to.item_bytes);
    return to;
  }

  // Sets the padding around a layer's inputs to zero, or in int8 to the zero point.
  void clear_padding(Map* map, int layer, int64_t group, int64_t first, int64_t count) const {
    const int zero = kQuantized<P> && layer == 0 ? static_cast<int>(model.head_input[1]) : 0;
    const auto clear = [&](int64_t y, int64_t x) {
      memset(static_cast<void*>(pixel(map, layer, group, y, x) + first), zero, count * sizeof(Map));
    };
    const int64_t end = pitch - 1;  // one more row and column if `grid` is odd
    for (int64_t x = -1; x < end; ++x) {
      clear(-1, x);
      for (int64_t y = grid; y < end; ++y) clear(y, x);
    }
    for (int64_t y = 0; y < grid; ++y) {
      clear(y, -1);
      for (int64_t x = grid; x < end; ++x) clear(y, x);
    }
  }

  // Stores a vector of a token's channels as an input of the first layer.
  void store_input(Vec v, Map* to) const {
    if constexpr (kQuantized<P>)
      store_bytes(v * model.head_input[0] + model.head_input[1], to);
    else
      store_vector(v, to);
  }

  // Bias and ReLU of a vector of a layer's outputs, from `column` of its matrix on.
  template <class Sum>
  void store_output(const HeadMaps<P>& maps, int layer, int64_t group, int64_t y, int64_t x, int64_t column,
                    Sum sum) const {
    const fermt::PackedMatrix& matrix = model.head[layer][group];
    const int64_t width = channels(layer + 1);
    const int64_t branch = layer == 0 ? column / width : group;
    const int64_t channel = layer == 0 ? column - branch * width : column;
    Vec value;
    if constexpr (kQuantized<P>)
      value = to_floats(sum) * load(matrix.scales + column);
    else
      value = sum;
    value += load(matrix.bias + column);
    if (layer + 1 == fermt::kHeadLayers) {
      store_vector(max(Vec{}, value), pixel(maps.last, layer + 1, branch, y, x) + channel);
      return;
    }
    Map* to = pixel(maps.maps[layer + 1], layer + 1, branch, y, x) + channel;
    if constexpr (kQuantized<P>)
      store_bytes(value, to);
    else
      store_vector(max(Vec{}, value), to);
  }

  void transform_inputs(const HeadMaps<P>& maps, int layer, int64_t group, int64_t tile_row) const {
    const int64_t width = channels(layer), position = tiles * tiles * width;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const float* from = pixel(maps.maps[layer], layer, group, 2 * tile_row - 1, 2 * tile - 1);
      float* to = maps.inputs + group * 16 * position + (tile_row * tiles + tile) * width;
      for (int64_t c = 0; c < width; c += kLanes) winograd_input_tile(from + c, width, pitch * width, to + c, position);
    }
  }

  void winograd_item(const HeadMaps<P>& maps, int layer, int64_t group, int64_t panel, int64_t first, int64_t last,
                     float* sums) const {
    const fermt::PackedMatrix& matrix = model.head[layer][group];
    const int64_t inputs = channels(layer), count = (last - first) * tiles;
    const int64_t start = panel * fermt::kPanel, width = panel_width(matrix.outputs, start);
    const auto weights = [&](int64_t position, int64_t column) {
      return reinterpret_cast<const float*>(matrix.panels) + (position * matrix.outputs + column) * inputs;
    };
    for (int64_t position = 0; position < 16; ++position) {
      const float* a = maps.inputs + ((group * 16 + position) * tiles * tiles + first * tiles) * inputs;
      const float* after = position < 15 ? weights(position + 1, start) : weights(0, start + width);
      float* to = sums + position * count * width;
      gemm_panel(a, inputs, count, weights(position, start), width, inputs, after,
                 [=](int64_t row, int64_t column, Vec sum) { store(to + row * width + column, sum); });
    }
    for (int64_t tile = 0; tile < count; ++tile)
      for (int64_t column = 0; column < width; column += kLanes) {
        Vec out[2][2];
        winograd_output_tile(sums + tile * width + column, count * width, out);
        for (int64_t dy = 0; dy < 2; ++dy)
          for (int64_t dx = 0; dx < 2; ++dx) {
            const int64_t y = 2 * (first + tile / tiles) + dy, x = 2 * (tile % tiles) + dx;
            if (y < grid && x < grid) store_output(maps, layer, group, y, x, start + column, out[dy][dx]);
          }
      }
  }

  void direct_item(const HeadMaps<P>& maps, int layer, int64_t group, int64_t panel, int64_t first, int64_t last,
                   float* sums) const {
    const fermt::PackedMatrix& matrix = model.head[layer][group];
    const int64_t inputs = channels(layer), packed_k = packed_count<Operand>(3 * inputs);
    const int64_t start = panel * fermt::kPanel, width = panel_width(matrix.outputs, start);
    const Operand* weights = reinterpret_cast<const Operand*>(matrix.panels) + start * 3 * packed_k;
    for (int64_t ky = 0; ky < 3; ++ky)
      for (int64_t y = first; y < last; ++y)
        gemm_panel(reinterpret_cast<const Operand*>(pixel(maps.maps[layer], layer, group, y + ky - 1, -1)),
                   packed_count<Operand>(inputs), grid, weights + ky * packed_k * width, width, packed_k,
                   weights + (ky + 1) * packed_k * width, [&](int64_t x, int64_t column, auto sum) {
                     float* partial = sums + ((y - first) * grid + x) * width + column;
                     if (ky > 0) sum += load_as<decltype(sum)>(partial);
                     if (ky < 2)
                       store(partial, sum);
                     else
                       store_output(maps, layer, group, y, x, start + column, sum);
                   });
  }

  void item(const HeadMaps<P>& maps, int layer, int64_t index, float* sums) const {
    const int64_t block = index % blocks(layer), panel = index / blocks(layer) % panels(layer),
                  group = index / blocks(layer) / panels(layer);
    const int64_t first = block * block_rows(layer);
    const int64_t last = first + block_rows(layer) < row_count() ? first + block_rows(layer) : row_count();
    if (block == 0 && layer + 1 < fermt::kHeadLayers) {
      const int64_t width = channels(layer + 1), start = panel * fermt::kPanel;
      const int64_t stop = start + panel_width(model.head[layer][group].outputs, start);
      for (int64_t column = start; column < stop;) {
        const int64_t branch = layer == 0 ? column / width : group, in_branch = layer == 0 ? column % width : column;
        const int64_t count = stop - column < width - in_branch ? stop - column : width - in_branch;
        clear_padding(maps.maps[layer + 1], layer + 1, branch, in_branch, count);
        column += count;
      }
    }
    if constexpr (kWinograd)
      winograd_item(maps, layer, group, panel, first, last, sums);
    else
      direct_item(maps, layer, group, panel, first, last, sums);
  }

  // All four layers of one target, from maps[0]. Targets are taken one at a time, so that their maps stay in the cache.
  fermt_status run(fermt_parallel_for run, const HeadMaps<P>& maps) const {
    for (int layer = 0; layer < fermt::kHeadLayers; ++layer) {
      if constexpr (kWinograd) {
        auto chunk = [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) transform_inputs(maps, layer, i / tiles, i % tiles);
        };
        if (const fermt_status status = fermt::parallel_for(run, groups(layer) * tiles, chunk)) return status;
      }
      auto chunk = [&](int64_t begin, int64_t end) {
        const TileScope tile_scope;
        float* sums = reinterpret_cast<float*>(maps.items + begin * maps.item_bytes);
        for (int64_t i = begin; i < end; ++i) item(maps, layer, i, sums);
      };
      if (const fermt_status status = fermt::parallel_for(run, items(layer), chunk)) return status;
    }
    return FERMT_OK;
  }
};

}  // namespace
