// Runs every entry point over odd shapes, in buffers with nothing to spare: built with AddressSanitizer and
// UndefinedBehaviorSanitizer by `make sanitize`, whatever reads or writes a byte too far stops here. With the argument
// `quick` it runs fewer shapes, still on both sides of the edges of blocks.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "abi/fermt.h"
#include "abi/packed_model.h"

namespace {

// Two halves, one after the other, the second first: threads in miniature, and an order that nobody expects.
int32_t halves(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  const int64_t middle = begin + (end - begin) / 2;
  if (middle < end) body(middle, end, context);
  if (begin < middle) body(begin, middle, context);
  return 0;
}

// Three threads at once, as the frame's loops share their items among them.
int32_t three_threads(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 3; ++i)
    threads.emplace_back(body, begin + (end - begin) * i / 3, begin + (end - begin) * (i + 1) / 3, context);
  for (std::thread& thread : threads) thread.join();
  return 0;
}

int g_calls = 0;

void expect(int32_t status, int32_t wanted, const char* what) {
  ++g_calls;
  if (status == wanted) return;
  std::printf("%s: %s, expected %s\n", what, fermt_status_text(status), fermt_status_text(wanted));
  std::exit(1);
}

// A tensor of exactly the bytes that its shape needs, filled with small numbers.
struct Buffer {
  std::vector<char> bytes;
  fermt_tensor tensor;

  Buffer(int64_t a, int64_t b, int64_t c, int64_t d, int dtype) : bytes(a * b * c * d * (dtype ? 2 : 4)) {
    tensor = {bytes.data(), {b * c * d, c * d, d}};
    for (int64_t i = 0; i < a * b * c * d; ++i) {
      const float value = static_cast<float>((i * 37 % 101) - 50) / 40.0f;
      if (dtype)
        __builtin_memcpy(&bytes[2 * i], reinterpret_cast<const char*>(&value) + 2, 2);
      else
        __builtin_memcpy(&bytes[4 * i], &value, 4);
    }
  }
};

void attention(int64_t batch, int64_t heads, int64_t n, int64_t m, int64_t dim, int pattern, int dtype) {
  const int64_t tokens = n + m;
  const int64_t spans[][4] = {
      {0, n, n, tokens}, {0, n, 0, tokens}, {0, tokens, 0, tokens}, {0, 0, 0, n}, {n, tokens, 0, n}};
  const int64_t* span = spans[pattern];
  const fermt_attention_shape shape = {batch, heads, tokens, dim, n, {span[0], span[1]}, {span[2], span[3]},
                                       0.3,   dtype};
  auto make = [&] { return Buffer(batch, heads, tokens, dim, dtype); };
  Buffer q = make(), k = make(), v = make(), out = make(), grad = make(), grad_q = make(), grad_k = make(),
         grad_v = make();
  std::vector<float> lse(batch * heads * tokens);
  fermt_attention_forward_args forward = {sizeof forward, halves,   shape,      q.tensor,
                                          k.tensor,       v.tensor, out.tensor, lse.data()};
  expect(fermt_attention_forward(&forward), FERMT_OK, "attention forward");
  fermt_attention_backward_args backward = {sizeof backward, nullptr,       shape,         grad.tensor,
                                            q.tensor,        k.tensor,      v.tensor,      out.tensor,
                                            lse.data(),      grad_q.tensor, grad_k.tensor, grad_v.tensor};
  expect(fermt_attention_backward(&backward), FERMT_OK, "attention backward");
  forward.shape.num_template = tokens + 1;
  expect(fermt_attention_forward(&forward), FERMT_BAD_SPAN, "attention with too many template tokens");
}

void unit(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t kernel, int64_t hidden, int dtype) {
  const fermt_unit_shape shape = {batch, channels, height, width, kernel, kernel, hidden, dtype};
  auto make = [&] { return Buffer(batch, channels, height, width, dtype); };
  Buffer x = make(), out = make(), grad = make(), grad_x = make();
  const int64_t c = channels, taps = kernel * kernel;
  const int64_t sizes[FERMT_UNIT_WEIGHTS] = {c * c, c, c * taps,   c,          c * taps, c,
                                             c * c, c, hidden * c, c * hidden, c * c,    c};
  std::vector<std::vector<float>> weights, grads;
  for (int64_t size : sizes) {
    weights.emplace_back(size, 0.1f);
    grads.emplace_back(size);
  }
  fermt_dual_attention_unit_forward_args forward = {sizeof forward, halves, shape, x.tensor, {}, out.tensor};
  fermt_dual_attention_unit_backward_args backward = {sizeof backward, halves, shape,         grad.tensor,
                                                      x.tensor,        {},     grad_x.tensor, {}};
  for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) {
    forward.weights[i] = backward.weights[i] = weights[i].data();
    backward.grad_weights[i] = grads[i].data();
  }
  expect(fermt_dual_attention_unit_forward(&forward), FERMT_OK, "unit forward");
  expect(fermt_dual_attention_unit_backward(&backward), FERMT_OK, "unit backward");
  forward.weights[3] = nullptr;
  expect(fermt_dual_attention_unit_forward(&forward), FERMT_NULL_POINTER, "unit without a weight");
}

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
    for (int64_t i = fermt::kHeaderBytes; i < bytes; i += 4) {
      const float value = static_cast<float>(i / 4 * 37 % 101 - 50) / 400.0f;
      const int32_t pair = 0x3c003c00 | static_cast<int32_t>(i % 3 << 8);
      std::memcpy(data + i, c.dtype ? static_cast<const void*>(&pair) : &value, 4);
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
    templates[b].assign(3 * c.template_size * c.template_size, static_cast<uint8_t>(40 + b));
    searches[b].assign(3 * c.search_size * c.search_size, static_cast<uint8_t>(90 + b));
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

void linear(int64_t rows, int64_t inputs, int64_t outputs, int64_t gelu, int dtype, int other, int out_dtype) {
  const fermt_linear_shape shape = {rows, inputs, outputs, inputs, gelu, dtype, other, other, out_dtype};
  Buffer x(1, 1, rows, inputs, other), weight(1, 1, outputs, inputs, other), bias(1, 1, 1, outputs, other),
      out(1, 1, rows, outputs, out_dtype), grad_out(1, 1, rows, outputs, out_dtype), grad_x(1, 1, rows, inputs, other),
      grad_weight(1, 1, outputs, inputs, other), grad_bias(1, 1, 1, outputs, other),
      activated(1, 1, rows, inputs, dtype);
  fermt_linear_forward_args forward = {sizeof forward,     halves,           shape,          x.tensor.data,
                                       weight.tensor.data, bias.tensor.data, out.tensor.data};
  expect(fermt_linear_forward(&forward), FERMT_OK, "linear forward");
  fermt_linear_backward_args backward = {sizeof backward,
                                         halves,
                                         shape,
                                         outputs,
                                         grad_out.tensor.data,
                                         x.tensor.data,
                                         weight.tensor.data,
                                         grad_x.tensor.data,
                                         grad_weight.tensor.data,
                                         grad_bias.tensor.data,
                                         activated.tensor.data};
  expect(fermt_linear_backward(&backward), FERMT_OK, "linear backward");
  backward.grad_weight = nullptr;
  expect(fermt_linear_backward(&backward), FERMT_NULL_POINTER, "a bias's gradient without the weight's");
  forward.shape.inputs = 0;
  expect(fermt_linear_forward(&forward), FERMT_BAD_SIZE, "a weight of no inputs");
}

void frames() {
  for (int64_t dtype : {FERMT_FLOAT32, FERMT_BFLOAT16, FERMT_INT8}) {
    frame({dtype, FERMT_CENTER_HEAD, 0, 32, 2, 16, 32, 64, 1, {1, 1, 4, 4}}, 2);
    frame({dtype, FERMT_CENTER_HEAD, 0, 48, 3, 16, 48, 80, 1, {1, 4}}, 1);  // odd grids, 9 and 25 tokens
    frame({dtype, FERMT_CORNER_HEAD, 1, 32, 4, 8, 24, 56, 0, {0, 2, 3}}, 3);
    frame({dtype, FERMT_CORNER_HEAD, 1, 16, 1, 4, 12, 20, 0, {1, 1}}, 1);
    frame({dtype, FERMT_CORNER_HEAD, 1, 192, 12, 16, 16, 16, 0, {1}}, 1);  // tokens wider than the maps are large
    frame({dtype, FERMT_CORNER_HEAD, 0, 80, 2, 5, 35, 45, 1, {3}}, 1);
    frame({dtype, FERMT_CENTER_HEAD, 0, 64, 4, 16, 128, 272, 1, {4}}, 1);
    frame({dtype, FERMT_CENTER_HEAD, 0, 32, 2, 16, 16, 16, 1, {2, 0}}, 0);
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

using Sizes = std::vector<int64_t>;

// What the shapes are made of: all combinations of an op's sizes.
struct Grid {
  Sizes template_tokens, search_tokens, head_dims;  // attention
  Sizes heights, widths, kernels;                   // the Dual Attention Unit
  Sizes rows, inputs, outputs;                      // linear layers
};

const Grid kAll = {{0, 1, 15, 33, 64}, {0, 1, 31, 65, 257}, {1, 8, 16, 40, 128}, {1, 2, 11, 13, 40}, {1, 3, 16, 33, 70},
                   {1, 3, 5, 7},       {0, 1, 7, 100},      {1, 16, 99, 390},    {1, 16, 67}};
const Grid kQuick = {{0, 1, 33}, {0, 31, 65}, {1, 16, 40}, {1, 11, 13}, {1, 33}, {1, 5}, {0, 7}, {1, 99}, {1, 67}};

}  // namespace

int main(int argc, char** argv) {
  const auto start = std::chrono::steady_clock::now();
  const Grid& grid = argc > 1 && std::strcmp(argv[1], "quick") == 0 ? kQuick : kAll;
  expect(fermt_attention_forward(nullptr), FERMT_NULL_POINTER, "no arguments");
  expect(fermt_isa_select("sse9"), FERMT_UNKNOWN_ISA, "an unknown instruction set");
  for (int32_t row = 0; fermt_isa_name(row); ++row) {
    if (!fermt_isa_supported(row)) continue;
    expect(fermt_isa_select(fermt_isa_name(row)), FERMT_OK, fermt_isa_name(row));
    for (int dtype = FERMT_FLOAT32; dtype <= FERMT_FLOAT16; ++dtype) {
      for (int pattern = 0; pattern < 5; ++pattern)
        for (int64_t n : grid.template_tokens)
          for (int64_t m : grid.search_tokens)
            for (int64_t dim : grid.head_dims) attention(1 + (n + m) % 2, 2, n, m, dim, pattern, dtype);
      for (int64_t height : grid.heights)
        for (int64_t width : grid.widths)
          for (int64_t kernel : grid.kernels)
            unit(2, 1 + (height + kernel) % 4, height, width, kernel, 1 + width % 2, dtype);
    }
    for (int64_t rows : grid.rows)
      for (int64_t inputs : grid.inputs)
        for (int64_t outputs : grid.outputs)
          for (int dtype = FERMT_FLOAT32; dtype <= FERMT_FLOAT16; ++dtype)
            for (int other : {static_cast<int>(FERMT_FLOAT32), dtype})
              linear(rows, inputs, outputs, (rows + inputs) % 2, dtype, other, outputs % 2 ? dtype : 0);
    frames();
    std::printf("%s: ok\n", fermt_isa_name(row));
  }
  frames_while_another_thread_selects();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%d calls passed, 0 failed, in %.0f s\n", g_calls, seconds.count());
}
