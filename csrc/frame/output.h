// From the head's last layer to its maps: the 1 x 1 convolutions, sigmoids or soft-maxes.

#pragma once

#include "frame/head.h"

namespace {

constexpr float kLeastScore = 1e-4f;  // the centre head's sigmoids are kept this far from 0 and 1

inline float sigmoid_within_limits(float x) {
  const float small = sum_of_lanes(exp2_nonpositive(splat(-fabsf(x) * static_cast<float>(kLog2E)))) / kLanes;
  const float of_positive = 1.0f / (1.0f + small);
  const float value = x < 0 ? small * of_positive : of_positive;
  const float at_least = value > kLeastScore ? value : kLeastScore;
  return value != value ? value : at_least < 1.0f - kLeastScore ? at_least : 1.0f - kLeastScore;
}

// Soft-max in place, in double: two maps a frame.
inline void softmax(float* values, int64_t count) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
  for (int64_t i = 0; i < count; ++i) sum += exp(values[i] - largest);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(exp(values[i] - largest) / sum);
}

// One branch of one target: from its last map to `out`, (outputs, grid, grid).
template <class P>
inline void write_branch(const Head<P>& head, const HeadMaps<P>& maps, int64_t branch, float* out) {
  const fermt::PackedModel& model = head.model;
  const int64_t width = head.channels(fermt::kHeadLayers), cells = head.grid * head.grid;
  const int64_t outputs = fermt::PackedModel::branch_outputs(model.header->head, branch);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t cell = 0; cell < cells; ++cell) {
      const typename P::Value* pixel =
          head.pixel(maps.last, fermt::kHeadLayers, branch, cell / head.grid, cell % head.grid);
      Vec sum = {};
      for (int64_t c = 0; c < width; c += kLanes)
        sum += load_vector(pixel + c) * load(model.last_weight[branch] + o * width + c);
      out[o * cells + cell] = sum_of_lanes(sum) + model.last_bias[branch][o];
    }
  if (model.header->head == FERMT_CORNER_HEAD) return softmax(out, cells);
  constexpr int64_t kOffset = 1;  // the branch whose outputs are plain numbers
  if (branch == kOffset) return;
  for (int64_t i = 0; i < outputs * cells; ++i) out[i] = sigmoid_within_limits(out[i]);
}

// Where a branch's maps lie among a target's. Centre head: score, size, offset; its branches are score, offset, size.
inline int64_t branch_place(const fermt::PackedModel& model, int64_t branch) {
  constexpr int64_t kCenter[] = {0, 3, 1};
  return model.header->head == FERMT_CENTER_HEAD ? kCenter[branch] : branch;
}

}  // namespace
