// From the head's last layer to its maps: 1 x 1 convolutions, sigmoids or soft-maxes.

#pragma once

#include "frame/head.h"

namespace {

constexpr float kMinScore = 1e-4f;  // the center head's sigmoids are clamped this far from 0 and 1

inline float clamped_sigmoid(float x) {
  const float small = sum_of_lanes(exp2_nonpositive(splat(-fabsf(x) * static_cast<float>(kLog2E)))) / kLanes;
  const float of_positive = 1.0f / (1.0f + small);
  const float value = x < 0 ? small * of_positive : of_positive;
  const float lower_bounded = value > kMinScore ? value : kMinScore;
  return value != value ? value : lower_bounded < 1.0f - kMinScore ? lower_bounded : 1.0f - kMinScore;
}

// In-place soft-max, in double.
inline void softmax(float* values, int64_t count) {
  double maximum = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; ++i) maximum = values[i] > maximum ? values[i] : maximum;
  for (int64_t i = 0; i < count; ++i) sum += exp(values[i] - maximum);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(exp(values[i] - maximum) / sum);
}

// One branch of one target: from its last feature map to `out`, (outputs, grid, grid).
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
  constexpr int64_t kOffset = 1;  // the branch without a sigmoid
  if (branch == kOffset) return;
  for (int64_t i = 0; i < outputs * cells; ++i) out[i] = clamped_sigmoid(out[i]);
}

// The first channel of a branch's maps. Center head: channels are score, size, offset; branches score, offset, size.
inline int64_t branch_channel(const fermt::PackedModel& model, int64_t branch) {
  constexpr int64_t kCenter[] = {0, 3, 1};
  return model.header->head == FERMT_CENTER_HEAD ? kCenter[branch] : branch;
}

}  // namespace
