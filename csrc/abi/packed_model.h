// The format of packed models, in memory and in files, and which parts of the model a frame has to compute.
//
// A packed model is one block: a header, then sections at multiples of 64 bytes whose order and sizes follow from it.

#pragma once

#include "abi/fermt.h"

namespace fermt {

constexpr int kMaxDepth = 64;
constexpr int kHeadLayers = 4;
constexpr int kMaxBranches = 3;
constexpr int64_t kHeaderBytes = 1024;
constexpr int64_t kPanel = 64;  // outputs of a panel of weights; the last may be narrower
// Channels of an int8 convolution: four times the sum of 9 products of each, up to 255 * 127, fits 32 bits, as exact
// transforms need.
constexpr int64_t kMaxByteChannels = 1840;
static_assert(4 * 9 * kMaxByteChannels * 255 * 127 < int64_t{1} << 31, "sums fit");

struct PackedHeader {
  char magic[8];
  int64_t version, total_bytes, checksum;
  int64_t dtype, head, reweight;
  int64_t dim, heads, depth, hidden, patch;
  int64_t template_size, search_size;
  int64_t dau, kernel, dilated_kernel, dau_hidden;
  int64_t widths[kHeadLayers];
  double eps, scale;
  double template_factor, search_factor;  // crop side / sqrt(target area)
  int64_t patterns[kMaxDepth];            // bits of PatternBit
};

enum PatternBit { kTemplateSeesTemplate = 1, kTemplateSeesSearch = 2, kSearchSeesTemplate = 4, kSearchSeesSearch = 8 };

// The weights of a linear layer in panels of up to 64 outputs: for each packed element of inputs, one of each output.
struct PackedMatrix {
  const float* bias;
  const float *scales, *sums;  // int8: each output's scale, and the sum of its weights' bytes
  const char* panels;
  int64_t outputs, inputs;
};

struct PackedLayer {
  PackedMatrix q, kv, proj, fc1, fc2;
};

struct PackedModel {
  const PackedHeader* header;
  int64_t grid, num_template, num_search, head_dim, branches;
  int64_t pack_factor;      // weights in a 4-byte element
  const float* image_norm;  // factor[3], offset[3]
  const float* dau[FERMT_UNIT_WEIGHTS];
  const float *pos_template, *pos_search;
  PackedMatrix patch_embed;
  PackedLayer layers[kMaxDepth];
  const float *norm_weight, *norm_bias;
  PackedMatrix head[kHeadLayers][kMaxBranches];  // float32: 16 Winograd positions of channels; else 9 x channels
  const float* head_input;                       // int8: 1 / scale and zero point of the head's input
  const float *last_weight[kMaxBranches], *last_bias[kMaxBranches];

  int64_t first_dynamic_layer;         // the first in which template queries see search keys; before it: cached
  bool template_input[kMaxDepth + 1];  // whether anything depends on template tokens before a layer, or after the last

  // Not inline: the linker keeps one copy of an inline function, maybe one compiled for another CPU.
  int64_t head_groups(int layer) const;
  int64_t map_channels() const;
  static int64_t branch_outputs(int64_t head, int64_t branch);
  bool sees(int layer, PatternBit bit) const;
  bool template_updated(int layer) const;
  bool template_queries(int layer) const;
  bool template_keys(int layer) const;
  bool search_keys(int layer) const;
};

// Lays out the sections that follow a valid header, and returns the bytes of header and sections.
int64_t lay_out_sections(const PackedHeader& header, PackedModel* model);

// Reads a packed model's header and lays out its sections; nothing outside [data, data + bytes) is touched.
fermt_status open_model(const void* data, int64_t bytes, PackedModel* model);

// Whether the model's checksum is that of its bytes; after open_model only.
fermt_status verify_model(const PackedModel& model);

}  // namespace fermt
