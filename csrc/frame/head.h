// The head of a frame: four 3 x 3 convolution-ReLU layers in two or three branches, whose first layers are one
// convolution.
//
// Feature maps are (group, row, column, channel), a group for each branch, with zero padding, so that three neighboring
// pixels are contiguous inputs. A work item is a strip of outputs and a block of rows: each weight is read by one core.
// Products of floats and of 16-bit integers use Winograd's algorithm in two passes for each layer; those of pairs of
// bfloat16 and of bytes direct convolution in one.

#pragma once

#include "abi/arena.h"
#include "abi/packed_model.h"
#include "abi/team.h"
#include "gemm/winograd.h"

namespace {

constexpr int64_t kMinItems = 12;  // work items of a layer, if it has as many rows, and at least three a thread

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
  typename P::Operand* inputs;                        // Winograd: transformed inputs (group, position, tile, channel)
  char* items;                                        // each thread's memory for a work item
  size_t item_bytes;
};

template <class Operand>
constexpr bool kWinogradOf = false;
template <>
constexpr bool kWinogradOf<float> = true;
template <>
constexpr bool kWinogradOf<Int16Pair> = true;

template <class P>
struct Head {
  using Value = typename P::Value;
  using Map = typename MapOf<P>::type;
  using Stored = typename P::Stored;
  using Operand = typename P::Operand;
  static constexpr bool kWinograd = kWinogradOf<Operand>;
  static constexpr bool kTransformed = kWidening<Stored, float> == 1;  // filters are transformed in the model
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
  int64_t strips(int layer) const { return (model.head[layer][0].outputs + kStrip - 1) / kStrip; }
  int64_t block_rows(int layer, int64_t threads) const {
    constexpr int64_t kMaxRows = 4 * fermt::kPanel / kStrip;  // of direct convolution: their sums stay in the cache
    const int64_t items = model.head_groups(layer) * strips(layer);
    const int64_t wanted = 3 * threads > kMinItems ? 3 * threads : kMinItems, blocks = (wanted + items - 1) / items;
    const int64_t rows = (row_count() + blocks - 1) / blocks;
    return kWinograd || rows <= kMaxRows ? rows : kMaxRows;
  }
  int64_t blocks(int64_t rows) const { return (row_count() + rows - 1) / rows; }

  // A work item's memory: the sums of its columns, and a buffer for the columns' weights.
  struct ItemMemory {
    float* sums;
    Operand* strip;
    size_t bytes;
  };
  ItemMemory item_memory(int layer, char* base) const {
    const int64_t inputs = packed_count<Operand>(channels(layer));
    const int64_t rows = block_rows(layer, 1);  // more threads take fewer at once
    const int64_t pixels = kWinograd ? 16 * rows * tiles : rows * grid;
    const int64_t strip = kTransformed || !kWinograd ? strip_size<Operand, Operand>(kWinograd ? inputs : 3 * inputs)
                                                     : 4 * inputs * kStrip;
    Arena arena{base};
    float* sums = arena.floats(pixels * kStrip);
    return {sums, ::allocate<Operand>(arena, strip), arena.used};
  }

  HeadMaps<P> allocate(Arena& arena) const {
    HeadMaps<P> to{};
    int64_t inputs = 0;
    to.last = reinterpret_cast<Value*>(arena.bytes(model.branches * map_size(fermt::kHeadLayers) * sizeof(Value)));
    for (int layer = 0; layer < fermt::kHeadLayers; ++layer) {
      to.maps[layer] = reinterpret_cast<Map*>(arena.bytes(groups(layer) * map_size(layer) * sizeof(Map)));
      const int64_t count = groups(layer) * 16 * tiles * tiles * packed_count<Operand>(channels(layer));
      if (count > inputs) inputs = count;
      const size_t bytes = item_memory(layer, nullptr).bytes;
      if (bytes > to.item_bytes) to.item_bytes = bytes;
    }
    if (kWinograd) to.inputs = ::allocate<Operand>(arena, inputs);
    to.items = arena.bytes(fermt::kMaxTeam * to.item_bytes);
    return to;
  }

  // Sets the padding around a layer's inputs to zero, or in int8 to the zero point.
  void clear_padding(Map* map, int layer, int64_t group, int64_t first, int64_t count) const {
    const int point = kQuantized<P> && layer == 0 ? static_cast<int>(model.head_input[1]) : 0;
    const int zero = kQuantized<P> ? point - kByteOffset : 0;
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
      value = to_floats(of_unsigned(sum, matrix.sums + column)) * load(matrix.scales + column);
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

  void transform_inputs(const HeadMaps<P>& maps, int layer, int64_t group, int64_t tile) const {
    const int64_t width = channels(layer), packed = packed_count<Operand>(width), position = tiles * tiles * packed;
    const Map* from = pixel(maps.maps[layer], layer, group, 2 * (tile / tiles) - 1, 2 * (tile % tiles) - 1);
    Operand* to = maps.inputs + group * 16 * position + tile * packed;
    for (int64_t c = 0; c < width; c += kChannelLanes<Map>)
      winograd_input_tile(from + c, width, pitch * width, to + c / kPackFactor<Operand>, position);
  }

  // What a work item computes: columns [start, start + columns) of a layer's matrix, whose weights are `width` apart
  // from one k to the next, in rows [first, last).
  struct Item {
    int layer;
    int64_t group, start, columns, width, first, last;
  };

  // The first weight of an item's columns, in a panel set of `stored_k` elements of k.
  const Stored* weights(const Item& item, int64_t stored_k) const {
    const int64_t in_panel = item.start % fermt::kPanel;
    return reinterpret_cast<const Stored*>(model.head[item.layer][item.group].panels) +
           (item.start - in_panel) * stored_k + in_panel;
  }

  // Sums of the transformed inputs of one position, times `columns`.
  void multiply_position(const HeadMaps<P>& maps, const Item& item, int64_t position, Columns<Operand> columns,
                         const Operand* after, float* sums) const {
    const int64_t inputs = packed_count<Operand>(channels(item.layer)), count = (item.last - item.first) * tiles;
    const Operand* a = maps.inputs + ((item.group * 16 + position) * tiles * tiles + item.first * tiles) * inputs;
    float* to = sums + position * count * item.columns;
    gemm_panel(
        a, inputs, count, columns.data, columns.width, inputs, after, static_cast<Operand*>(nullptr),
        [to, width = item.columns](int64_t row, int64_t column, auto sum) { store(to + row * width + column, sum); });
  }

  template <int Row>
  void multiply_row(const HeadMaps<P>& maps, const Item& item, const ItemMemory& memory) const {
    const int64_t stored_k = packed_count<Stored>(channels(item.layer));
    const int64_t strip = packed_count<Operand>(channels(item.layer)) * item.columns;
    winograd_filter_strips<Row>(weights(item, 9 * stored_k), item.width, stored_k, item.columns, memory.strip);
    for (int64_t x = 0; x < 4; ++x)
      multiply_position(maps, item, 4 * Row + x, {memory.strip + x * strip, item.columns},
                        memory.strip + (x < 3 ? x + 1 : 0) * strip, memory.sums);
  }

  void winograd_item(const HeadMaps<P>& maps, const Item& item, const ItemMemory& memory) const {
    const fermt::PackedMatrix& matrix = model.head[item.layer][item.group];
    const int64_t inputs = channels(item.layer), count = (item.last - item.first) * tiles;
    if constexpr (kTransformed) {
      const Stored* from = weights(item, inputs);
      const int64_t position_stride = matrix.outputs * inputs;
      for (int64_t position = 0; position < 16; ++position) {
        const Stored* after = position < 15 ? from + (position + 1) * position_stride : from + inputs * item.width;
        multiply_position(maps, item, position,
                          columns_of(from + position * position_stride, item.width, inputs, memory.strip), after,
                          memory.sums);
      }
    } else {
      multiply_row<0>(maps, item, memory);
      multiply_row<1>(maps, item, memory);
      multiply_row<2>(maps, item, memory);
      multiply_row<3>(maps, item, memory);
    }
    for (int64_t tile = 0; tile < count; ++tile)
      for (int64_t column = 0; column < item.columns; column += kLanes) {
        typename SumOf<Operand>::type out[2][2];
        winograd_output_tile(memory.sums + tile * item.columns + column, count * item.columns, out);
        for (int64_t dy = 0; dy < 2; ++dy)
          for (int64_t dx = 0; dx < 2; ++dx) {
            const int64_t y = 2 * (item.first + tile / tiles) + dy, x = 2 * (tile % tiles) + dx;
            if (y < grid && x < grid)
              store_output(maps, item.layer, item.group, y, x, item.start + column, out[dy][dx]);
          }
      }
  }

  void direct_item(const HeadMaps<P>& maps, const Item& item, const ItemMemory& memory) const {
    const int64_t inputs = channels(item.layer), packed_k = packed_count<Operand>(3 * inputs);
    const Operand* from = weights(item, 3 * packed_k);
    for (int64_t ky = 0; ky < 3; ++ky, from += packed_k * item.width) {
      const Columns<Operand> columns = columns_of(from, item.width, packed_k, memory.strip);
      for (int64_t y = item.first; y < item.last; ++y)
        gemm_panel(
            reinterpret_cast<const Operand*>(pixel(maps.maps[item.layer], item.layer, item.group, y + ky - 1, -1)),
            packed_count<Operand>(inputs), grid, columns.data, columns.width, packed_k, from + packed_k * item.width,
            static_cast<Operand*>(nullptr), [&](int64_t x, int64_t column, auto sum) {
              float* partial = memory.sums + ((y - item.first) * grid + x) * item.columns + column;
              if (ky > 0) sum += load_as<decltype(sum)>(partial);
              if (ky < 2)
                store(partial, sum);
              else
                store_output(maps, item.layer, item.group, y, x, item.start + column, sum);
            });
    }
  }

  // One of a layer's work items, of at most `rows` rows.
  void item(const HeadMaps<P>& maps, int layer, int64_t rows, int64_t index, char* memory) const {
    const int64_t count = blocks(rows), block = index % count, strip = index / count % strips(layer),
                  group = index / count / strips(layer);
    const int64_t outputs = model.head[layer][group].outputs, start = strip * kStrip;
    const int64_t first = block * rows, last = first + rows < row_count() ? first + rows : row_count();
    const int64_t columns = outputs - start < kStrip ? outputs - start : kStrip;
    if (block == 0 && layer + 1 < fermt::kHeadLayers) {
      const int64_t width = channels(layer + 1);
      for (int64_t column = start; column < start + columns;) {
        const int64_t branch = layer == 0 ? column / width : group, in_branch = layer == 0 ? column % width : column;
        const int64_t left = start + columns - column, count = left < width - in_branch ? left : width - in_branch;
        clear_padding(maps.maps[layer + 1], layer + 1, branch, in_branch, count);
        column += count;
      }
    }
    const Item one = {layer, group, start, columns, panel_width(outputs, start / fermt::kPanel * fermt::kPanel),
                      first, last};
    if constexpr (kWinograd)
      winograd_item(maps, one, item_memory(layer, memory));
    else
      direct_item(maps, one, item_memory(layer, memory));
  }

  static constexpr int64_t kLoops = 2 * fermt::kHeadLayers;  // of run, at most

  // All four layers of one target, from maps[0]. Targets are taken one at a time, so that their maps stay in the cache.
  void run(fermt::Team& team, const HeadMaps<P>& maps) const {
    for (int layer = 0; layer < fermt::kHeadLayers; ++layer) {
      if constexpr (kWinograd) {
        const int64_t all = tiles * tiles, count = groups(layer) * all;
        team.loop(count, team.share(count), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) transform_inputs(maps, layer, i / all, i % all);
        });
      }
      const int64_t rows = block_rows(layer, team.threads());
      team.loop(model.head_groups(layer) * strips(layer) * blocks(rows), 1, [&](int64_t i, int64_t) {
        const TileScope tile_scope;
        item(maps, layer, rows, i, maps.items + team.thread() * maps.item_bytes);
      });
    }
  }
};

}  // namespace
