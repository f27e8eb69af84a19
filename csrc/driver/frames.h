// Whole frames of small packed models, which are made here.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "abi/packed_model.h"
#include "driver/cases.h"

namespace {

// Bytes at a multiple of 64, and none more.
struct Block {
  char* data;
  int64_t bytes;
  explicit Block(int64_t size) : data(static_cast<char*>(std::aligned_alloc(64, (size + 63) / 64 * 64))), bytes(size) {
    std::memset(data, 0, size);
  }
  Block(const Block&) = delete;
  ~Block() { std::free(data); }
};

// As kProductTolerance, of frames, by fermt_dtype.
constexpr double kFrameTolerance[] = {1e-4, 0.1, 0, 0.1};
constexpr int64_t kPatternBits[] = {1 | 8, 1 | 4 | 8, 15, 4, 2 | 4};  // self, mixed, full, one-way, cross

struct FrameCase {
  int64_t dtype, head, reweight, dim, heads, patch, template_size, search_size, dau;
  std::vector<int> patterns;
};

fermt::PackedHeader header_of(const FrameCase& c) {
  fermt::PackedHeader h{};
  std::memcpy(h.magic, "FERMTPK", 8);
  h.version = FERMT_MODEL_VERSION;
  h.dtype = c.dtype, h.head = c.head, h.reweight = c.reweight;
  h.dim = c.dim, h.heads = c.heads, h.depth = static_cast<int64_t>(c.patterns.size()), h.hidden = 2 * c.dim;
  h.patch = c.patch, h.template_size = c.template_size, h.search_size = c.search_size;
  h.dau = c.dau, h.kernel = c.dau ? 5 : 0, h.dilated_kernel = c.dau ? 5 : 0, h.dau_hidden = c.dau ? 1 : 0;
  const int64_t widths[] = {80, 48, 32, 16};
  std::memcpy(h.widths, widths, sizeof widths);
  h.eps = 1e-6, h.scale = 0.3, h.template_factor = 2, h.search_factor = 4;
  for (size_t i = 0; i < c.patterns.size(); ++i) h.patterns[i] = kPatternBits[c.patterns[i]];
  return h;
}

// A packed model of a case, without its checksum.
struct Model : Block {
  explicit Model(const FrameCase& c) : Model(c, header_of(c)) {}

 private:
  Model(const FrameCase& c, fermt::PackedHeader header) : Block(set_total(header)) {
    std::memcpy(data, &header, sizeof header);
    for (int64_t i = fermt::kHeaderBytes; i < bytes; i += 4) put(i, static_cast<float>(number_at(i)) / 400.0f);
    fermt::PackedModel m;
    fermt::lay_out_sections(*reinterpret_cast<const fermt::PackedHeader*>(data), &m);
    const int64_t last = m.header->widths[fermt::kHeadLayers - 1];
    for (int64_t branch = 0; branch < m.branches; ++branch)  // large, so that no map is flat
      for (int64_t i = 0; i < last * fermt::PackedModel::branch_outputs(m.header->head, branch); ++i)
        put(offset(m.last_weight[branch] + i), static_cast<float>(number_at(4 * i)) / 25.0f);
    if (c.dtype == FERMT_FLOAT32) return;
    fill(m.patch_embed, c.dtype);
    for (int64_t i = 0; i < m.header->depth; ++i)
      for (const fermt::PackedMatrix& matrix :
           {m.layers[i].q, m.layers[i].kv, m.layers[i].proj, m.layers[i].fc1, m.layers[i].fc2})
        fill(matrix, c.dtype);
    for (int layer = 0; layer < fermt::kHeadLayers; ++layer)
      for (int64_t group = 0; group < m.head_groups(layer); ++group) fill(m.head[layer][group], c.dtype);
    if (c.dtype == FERMT_INT8) put(offset(m.head_input), 40.0f), put(offset(m.head_input) + 4, 100.0f);
  }
  static int number_at(int64_t i) { return static_cast<int>((i / 4 * 37 + i / 404 * 11) % 101) - 50; }
  void put(int64_t at, float value) { std::memcpy(data + at, &value, sizeof value); }
  int64_t offset(const void* section) const { return static_cast<const char*>(section) - data; }

  // A matrix's weights, in pairs of bfloat16 or in quads of bytes, of which it has scales and sums; no inputs count 0.
  void fill(const fermt::PackedMatrix& matrix, int64_t dtype) {
    const int64_t factor = dtype == FERMT_INT8 ? 4 : 2, packed_k = (matrix.inputs + factor - 1) / factor;
    const float scale = 1.0f / (40.0f * std::sqrt(static_cast<float>(matrix.inputs)));
    for (int64_t output = 0; output < matrix.outputs; ++output) {
      const int64_t start = output / fermt::kPanel * fermt::kPanel, column = output - start;
      const int64_t width = std::min(fermt::kPanel, matrix.outputs - start);
      int sum = 0;
      for (int64_t input = 0; input < packed_k * factor; ++input) {
        const int64_t word = offset(matrix.panels) + 4 * (start * packed_k + input / factor * width + column);
        const int weight = input < matrix.inputs ? number_at(word + 52 * (input % factor)) : 0;
        sum += weight;
        const float value = static_cast<float>(weight) / 400.0f;
        if (dtype == FERMT_INT8)
          data[word + input % 4] = static_cast<char>(weight);
        else
          std::memcpy(data + word + 2 * (input % 2), reinterpret_cast<const char*>(&value) + 2, 2);
      }
      if (dtype != FERMT_INT8) continue;
      put(offset(matrix.scales + output), scale);
      put(offset(matrix.sums + output), static_cast<float>(sum));
    }
  }
  static int64_t set_total(fermt::PackedHeader& header) {
    fermt::PackedModel layout;
    return header.total_bytes = fermt::lay_out_sections(header, &layout);
  }
};

void frame(const FrameCase& c, int64_t batch) {
  Model model(c);
  fermt_frame_info_args info{};
  info.struct_size = sizeof info, info.model = model.data, info.model_bytes = model.bytes, info.batch = batch;
  expect(fermt_frame_info(&info), FERMT_OK, "frame info");
  info.verify = 1;
  expect(fermt_frame_info(&info), FERMT_BAD_MODEL_CHECKSUM, "frame info of a model without its checksum");

  Block workspace(info.workspace_bytes), maps(batch * info.map_channels * info.grid * info.grid * 4),
      tokens(batch * info.grid * info.grid * info.dim * 4);
  std::vector<std::vector<uint8_t>> templates(batch), searches(batch);
  std::vector<const uint8_t*> template_crops, search_crops;
  std::vector<void*> caches;
  std::vector<Block*> blocks;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < 3 * c.template_size * c.template_size; ++i)
      templates[b].push_back(static_cast<uint8_t>((i * 67 + i / 97 + b) % 251));
    for (int64_t i = 0; i < 3 * c.search_size * c.search_size; ++i)
      searches[b].push_back(static_cast<uint8_t>((i * 41 + i / 89 + b) % 241));
    template_crops.push_back(templates[b].data());
    search_crops.push_back(searches[b].data());
    blocks.push_back(new Block(info.cache_bytes));
    caches.push_back(blocks.back()->data);
  }
  fermt_encode_template_args encode = {sizeof encode,  three_threads,         model.data,    model.bytes,
                                       batch,          template_crops.data(), caches.data(), info.cache_bytes,
                                       workspace.data, workspace.bytes};
  fermt_track_frame_args track = {sizeof track,
                                  halves,
                                  model.data,
                                  model.bytes,
                                  batch,
                                  search_crops.data(),
                                  caches.data(),
                                  info.cache_bytes,
                                  workspace.data,
                                  workspace.bytes,
                                  reinterpret_cast<float*>(maps.data),
                                  reinterpret_cast<float*>(tokens.data)};
  if (batch > 0) expect(fermt_track_frame(&track), FERMT_BAD_CACHE, "a frame with an empty cache");
  expect(fermt_encode_template(&encode), FERMT_OK, "encode template");
  expect(fermt_track_frame(&track), FERMT_OK, "track frame");
  const double tolerance = kFrameTolerance[c.dtype];
  const int64_t cells = info.grid * info.grid;
  g_agreement.check("a frame's tokens", tokens.data, tokens.bytes / 4, FERMT_FLOAT32, tolerance);
  for (int64_t map = 0; map < batch * info.map_channels; ++map)
    g_agreement.check("a frame's map", maps.data + 4 * map * cells, cells, FERMT_FLOAT32, tolerance);
  track.workspace_bytes -= 64;
  expect(fermt_track_frame(&track), FERMT_SMALL_WORKSPACE, "a frame in too small a workspace");
  track.workspace_bytes += 64;
  for (int64_t i = 0; i < fermt::kHeaderBytes; i += 4) {  // damaged headers: refused, or harmless
    fermt_frame_info_args damaged = info;
    damaged.verify = 0;
    for (char flip : {1, 64, -128}) {
      model.data[i] = static_cast<char>(model.data[i] ^ flip);
      fermt_frame_info(&damaged);
      model.data[i] = static_cast<char>(model.data[i] ^ flip);
    }
  }
  track.model_bytes -= 64;
  expect(fermt_track_frame(&track), FERMT_BAD_MODEL, "a truncated model");
  for (Block* block : blocks) delete block;
}

void frames() {
  const auto everywhere = [](const FrameCase& c, int64_t batch) { on_each_row([&] { frame(c, batch); }); };
  for (int64_t dtype : {FERMT_FLOAT32, FERMT_BFLOAT16, FERMT_INT8}) {
    everywhere({dtype, FERMT_CENTER_HEAD, 0, 32, 2, 16, 32, 64, 1, {1, 1, 4, 4}}, 2);
    everywhere({dtype, FERMT_CENTER_HEAD, 0, 48, 3, 16, 48, 80, 1, {1, 4}}, 1);  // odd grids, 9 and 25 tokens
    everywhere({dtype, FERMT_CORNER_HEAD, 1, 32, 4, 8, 24, 56, 0, {0, 2, 3}}, 3);
    everywhere({dtype, FERMT_CORNER_HEAD, 1, 16, 1, 4, 12, 20, 0, {1, 1}}, 1);
    everywhere({dtype, FERMT_CORNER_HEAD, 1, 192, 12, 16, 16, 16, 0, {1}}, 1);  // tokens wider than the maps are large
    everywhere({dtype, FERMT_CORNER_HEAD, 0, 80, 2, 5, 35, 45, 1, {3}}, 1);
    everywhere({dtype, FERMT_CENTER_HEAD, 0, 64, 4, 16, 128, 272, 1, {4}}, 1);
    everywhere({dtype, FERMT_CENTER_HEAD, 0, 32, 2, 16, 16, 16, 1, {2, 0}}, 0);
  }
}

// Frames in the workspace of the instruction set that needs the least, with a cache of the one that needs the most,
// while another thread goes through them all: a call runs on the one whose sizes it has checked, or writes past the
// end.
void frames_while_another_thread_selects() {
  const Model model({FERMT_FLOAT32, FERMT_CENTER_HEAD, 0, 32, 2, 16, 16, 32, 0, {1}});
  std::vector<const char*> names;
  fermt_frame_info_args least{}, most{};
  for (int32_t row = 0; fermt_isa_name(row); ++row) {
    if (!fermt_isa_supported(row)) continue;
    names.push_back(fermt_isa_name(row));
    expect(fermt_isa_select(names.back()), FERMT_OK, names.back());
    fermt_frame_info_args info{};
    info.struct_size = sizeof info, info.model = model.data, info.model_bytes = model.bytes, info.batch = 1;
    expect(fermt_frame_info(&info), FERMT_OK, "frame info");
    if (names.size() == 1 || info.workspace_bytes < least.workspace_bytes) least = info;
    if (names.size() == 1 || info.workspace_bytes > most.workspace_bytes) {
      most = info;
      std::swap(names.front(), names.back());  // the first is the one that needs the most
    }
  }
  const std::vector<uint8_t> crop(3 * 32 * 32, 90);
  const uint8_t* crops[] = {crop.data()};
  const Block cache(std::max(least.cache_bytes, most.cache_bytes)), large(most.workspace_bytes),
      small(least.workspace_bytes), maps(most.map_channels * most.grid * most.grid * 4);
  void* caches[] = {cache.data};
  expect(fermt_isa_select(names.front()), FERMT_OK, names.front());
  const fermt_encode_template_args encode = {sizeof encode, halves, model.data,  model.bytes, 1,
                                             crops,         caches, cache.bytes, large.data,  large.bytes};
  expect(fermt_encode_template(&encode), FERMT_OK, "encode template");
  std::atomic<bool> done{false};
  std::thread other([&] {
    for (size_t i = 0; !done; ++i) fermt_isa_select(names[i % names.size()]);
  });
  const fermt_track_frame_args track = {sizeof track,
                                        three_threads,
                                        model.data,
                                        model.bytes,
                                        1,
                                        crops,
                                        caches,
                                        cache.bytes,
                                        small.data,
                                        small.bytes,
                                        reinterpret_cast<float*>(maps.data),
                                        nullptr};
  for (int i = 0; i < 2000; ++i) {
    const int32_t status = fermt_track_frame(&track);
    const bool refused = status == FERMT_SMALL_WORKSPACE || status == FERMT_BAD_CACHE;
    expect(refused ? FERMT_OK : status, FERMT_OK, "a frame while another thread selects");
  }
  done = true;
  other.join();
  std::printf("selected by another thread: ok, workspaces of %lld to %lld bytes\n", static_cast<long long>(small.bytes),
              static_cast<long long>(large.bytes));
}

}  // namespace
