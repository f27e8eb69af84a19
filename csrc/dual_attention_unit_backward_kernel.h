// The Dual Attention Unit backward: five passes over a sample. With g the gradient of out and y = s f u:
//
//   1, 2  u and a again
//   3     dy = proj_2^T g;  df = dy s u;  dd = conv1^T df;  ds = sum(dy f u);  du = dy s f
//   4     da = conv_spatial^T dd
//   5     du += conv0^T da + (gradient of the mean);  dp = du gelu'(p);  dx = proj_1^T dp + g
//
// Each pass adds to the weights' sums of its strip, in vectors; they are added up over strips and samples in double.

#pragma once

#include "dual_attention_unit_kernel.h"

namespace {

// Where the sums of each weight's gradient lie in a strip's slots, a vector each.
struct UnitSums {
  int64_t offset[FERMT_UNIT_WEIGHTS], size[FERMT_UNIT_WEIGHTS];
  int64_t channel, lost;  // the gradient of s, before the sigmoid's own; and what its additions lost
  int64_t count;

  explicit UnitSums(const UnitLayout& l) : count(0) {
    const int64_t c = l.channels, taps = l.kernel * l.kernel, dilated_taps = l.dilated_kernel * l.dilated_kernel;
    const int64_t sizes[FERMT_UNIT_WEIGHTS] = {
        c * c, c, c * taps, c, c * dilated_taps, c, c * c, c, l.hidden * c, c * l.hidden, c * c, c};
    for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) {
      size[i] = sizes[i];
      offset[i] = count;
      if (i != kFc0W && i != kFc2W) count += sizes[i];
    }
    channel = count;
    lost = channel + c;
    count += 2 * c;
  }
};

struct UnitBackwardPlanes {
  Planes u, a, grad_d, grad_a, grad_u;
  float *u_sums, *strip_sums, *grad_mean;
  double *pooled, *hidden, *s;
  double* totals;        // of this sample's vectors
  double* grad_weights;  // of all samples

  UnitBackwardPlanes(fermt::Carver carver, const UnitLayout& l, const UnitSums& sums, size_t* bytes = nullptr) {
    Planes* const all[] = {&u, &a, &grad_d, &grad_a, &grad_u};
    for (Planes* planes : all) *planes = {carver.floats(l.channels * l.plane), &l};
    strip_sums = carver.floats(l.strips * sums.count * kLanes);
    u_sums = carver.floats(l.strips * l.channels);
    pooled = carver.doubles(l.channels);
    hidden = carver.doubles(l.hidden);
    s = carver.doubles(l.channels);
    grad_mean = carver.floats(l.channels);
    totals = carver.doubles(sums.count);
    grad_weights = carver.doubles(sums.count + 2 * l.hidden * l.channels);
    if (bytes) *bytes = carver.used;
  }
};

inline void add_to(float* slots, int64_t slot, Vec value) {
  float* to = slots + slot * kLanes;
  store(to, load(to) + value);
}

// The same, and what the addition rounds off goes to another slot: terms of either sign cancel in this sum.
inline void add_exactly_to(float* slots, int64_t slot, int64_t lost_slot, Vec value) {
  const Vec before = load(slots + slot * kLanes), after = before + value;
  const Vec added = after - before;
  store(slots + slot * kLanes, after);
  add_to(slots, lost_slot, (before - (after - added)) + (value - added));
}

// Adds a row's slots to its strip's and empties them: sums of short sums keep float32's error small.
inline void flush_row(int64_t count, float* row_slots, float* slots) {
  for (int64_t i = 0; i < count; ++i) add_to(slots, i, load(row_slots + i * kLanes));
  memset(row_slots, 0, sizeof(float) * count * kLanes);
}

// sums[tap] += sum over the strip of grad[y][x] * in[y + ky][x + kx] for each tap of a depth-wise kernel.
template <int K>
inline void depthwise_weight_sums(const Planes& grad, const Planes& in, int64_t channel, const Strip& strip,
                                  int64_t step, int64_t kernel, float* slots) {
  if (K > 0) kernel = K;
  constexpr int64_t kAtOnce = K > 0 ? K : 1;
  const int64_t half = kernel / 2;
  for (int64_t ky = 0; ky < kernel; ++ky)
    for (int64_t first = 0; first < kernel; first += kAtOnce) {
      Vec total[kAtOnce] = {};
      for (int64_t y = strip.start; y < strip.stop; ++y) {
        Vec acc[kAtOnce] = {};
        const float* g = grad.row(channel, y);
        const float* from = in.row(channel, y + (ky - half) * step) + (first - half) * step;
        for (int64_t x = 0; x < in.layout->columns; x += kLanes) {
          const Vec value = load(g + x);
          for (int64_t i = 0; i < kAtOnce; ++i) acc[i] += value * load(from + x + i * step);
        }
        for (int64_t i = 0; i < kAtOnce; ++i) total[i] += acc[i];
      }
      for (int64_t i = 0; i < kAtOnce; ++i) add_to(slots, ky * kernel + first + i, total[i]);
    }
}

inline void depthwise_weight_sums(const Planes& grad, const Planes& in, int64_t channel, const Strip& strip,
                                  int64_t step, int64_t kernel, float* slots, float* bias_slot) {
  if (kernel == 5)
    depthwise_weight_sums<5>(grad, in, channel, strip, step, kernel, slots);
  else
    depthwise_weight_sums<0>(grad, in, channel, strip, step, kernel, slots);
  Vec total = Vec{};
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    Vec in_row = Vec{};
    for (int64_t x = 0; x < in.layout->columns; x += kLanes) in_row += load(grad.row(channel, y) + x);
    total += in_row;
  }
  add_to(bias_slot, 0, total);
}

// Pass 3 on a strip; rows: d, then one row each of y, g and df, all channels, then a row's sums.
template <class T, int Channels>
inline void backward_gate(const fermt_dual_attention_unit_backward_args& args, const UnitLayout& l,
                          const UnitSums& sums, int64_t b, const Strip& strip, const UnitBackwardPlanes& planes,
                          float* rows, float* slots) {
  const float* const* w = args.weights;
  const int64_t channels = Channels ? Channels : l.channels;
  float* gated = rows + l.strip_rows * channels * l.columns;
  float* grad = gated + channels * l.columns;
  float* grad_f = grad + channels * l.columns;
  float* row_slots = grad_f + channels * l.columns;
  memset(row_slots, 0, sizeof(float) * sums.channel * kLanes);
  compute_d(l, w, strip, planes.a, rows);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const float* d = rows + (y - strip.start) * channels * l.columns;
    for (int64_t c = 0; c < channels; ++c) load_row<T>(args.grad_out, l, b, c, y, grad + c * l.columns);
    for (int64_t x = 0; x < l.columns; x += kLanes) {
      for (int64_t c = 0; c < channels; ++c) {
        const Vec u = load(planes.u.row(c, y) + x);
        const Vec f = pointwise<Channels>(w[kC1W] + c * channels, w[kC1B][c], d, l.columns, channels, x);
        Vec grad_y = Vec{};
        for (int64_t o = 0; o < channels; ++o) grad_y += w[kP2W][o * channels + c] * load(grad + o * l.columns + x);
        const Vec fu = f * u, s = splat(static_cast<float>(planes.s[c]));
        store(gated + c * l.columns + x, s * fu);
        store(grad_f + c * l.columns + x, grad_y * s * u);
        store(planes.grad_u.row(c, y) + x, grad_y * s * f);
        add_exactly_to(slots, sums.channel + c, sums.lost + c, grad_y * fu);
      }
      for (int64_t o = 0; o < channels; ++o) {
        const Vec g = load(grad + o * l.columns + x), df = load(grad_f + o * l.columns + x);
        for (int64_t i = 0; i < channels; ++i) {
          add_to(row_slots, sums.offset[kP2W] + o * channels + i, g * load(gated + i * l.columns + x));
          add_to(row_slots, sums.offset[kC1W] + o * channels + i, df * load(d + i * l.columns + x));
        }
        add_to(row_slots, sums.offset[kP2B] + o, g);
        add_to(row_slots, sums.offset[kC1B] + o, df);
        Vec grad_d = Vec{};
        for (int64_t i = 0; i < channels; ++i) grad_d += w[kC1W][i * channels + o] * load(grad_f + i * l.columns + x);
        store(planes.grad_d.row(o, y) + x, grad_d);
      }
    }
    for (int64_t c = 0; c < channels; ++c) planes.grad_d.clear_sides(c, y);
    flush_row(sums.channel, row_slots, slots);
  }
}

// Pass 4 on a strip: da, and the sums of conv_spatial's weights.
inline void backward_dilated(const UnitLayout& l, const UnitSums& sums, const float* const* w, const Strip& strip,
                             const UnitBackwardPlanes& planes, float* slots) {
  const int64_t taps = l.dilated_kernel * l.dilated_kernel;
  for (int64_t c = 0; c < l.channels; ++c) {
    depthwise<true>(planes.grad_d, c, strip, l.dilation, l.dilated_kernel, w[kCsW] + c * taps, 0.0f,
                    [&](int64_t y, int64_t x, Vec sum) { store(planes.grad_a.row(c, y) + x, sum); });
    for (int64_t y = strip.start; y < strip.stop; ++y) planes.grad_a.clear_sides(c, y);
    depthwise_weight_sums(planes.grad_d, planes.a, c, strip, l.dilation, l.dilated_kernel,
                          slots + (sums.offset[kCsW] + c * taps) * kLanes, slots + (sums.offset[kCsB] + c) * kLanes);
  }
}

// Pass 5 on a strip; rows: one row each of x and dp, all channels, one row of the result, then a row's sums.
template <class T, int Channels>
inline void backward_input(const fermt_dual_attention_unit_backward_args& args, const UnitLayout& l,
                           const UnitSums& sums, int64_t b, const Strip& strip, const UnitBackwardPlanes& planes,
                           float* rows, float* slots) {
  const float* const* w = args.weights;
  const int64_t channels = Channels ? Channels : l.channels, taps = l.kernel * l.kernel;
  float* grad_p = rows + channels * l.columns;
  float* result = grad_p + channels * l.columns;
  float* row_slots = result + l.columns;
  memset(row_slots, 0, sizeof(float) * sums.channel * kLanes);
  for (int64_t c = 0; c < channels; ++c) {
    depthwise<true>(planes.grad_a, c, strip, 1, l.kernel, w[kC0W] + c * taps, planes.grad_mean[c],
                    [&](int64_t y, int64_t x, Vec sum) {
                      float* to = planes.grad_u.row(c, y) + x;
                      store(to, load(to) + sum);
                    });
    depthwise_weight_sums(planes.grad_a, planes.u, c, strip, 1, l.kernel,
                          slots + (sums.offset[kC0W] + c * taps) * kLanes, slots + (sums.offset[kC0B] + c) * kLanes);
  }
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    for (int64_t c = 0; c < channels; ++c) load_row<T>(args.x, l, b, c, y, rows + c * l.columns);
    for (int64_t c = 0; c < channels; ++c) {
      float* to = grad_p + c * l.columns;
      for (int64_t x = 0; x < l.columns; x += kLanes)
        store(to + x, load(planes.grad_u.row(c, y) + x) *
                          gelu_derivative(
                              pointwise<Channels>(w[kP1W] + c * channels, w[kP1B][c], rows, l.columns, channels, x)));
      memset(to + l.width, 0, sizeof(float) * (l.columns - l.width));
    }
    for (int64_t x = 0; x < l.columns; x += kLanes)
      for (int64_t c = 0; c < channels; ++c) {
        const Vec dp = load(grad_p + c * l.columns + x);
        add_to(row_slots, sums.offset[kP1B] + c, dp);
        for (int64_t i = 0; i < channels; ++i)
          add_to(row_slots, sums.offset[kP1W] + c * channels + i, dp * load(rows + i * l.columns + x));
      }
    for (int64_t i = 0; i < channels; ++i) {
      load_row<T>(args.grad_out, l, b, i, y, result);
      for (int64_t x = 0; x < l.columns; x += kLanes) {
        Vec sum = load(result + x);
        for (int64_t c = 0; c < channels; ++c) sum += w[kP1W][c * channels + i] * load(grad_p + c * l.columns + x);
        store(result + x, sum);
      }
      row_from_float(result, l.width, at<T>(args.grad_x, b, i, y));
    }
    flush_row(sums.channel, row_slots, slots);
  }
}

// The sums [first, last) of a sample over its strips.
inline void total_sums(const UnitLayout& l, const UnitSums& sums, const UnitBackwardPlanes& planes, int64_t first,
                       int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    planes.totals[i] = 0;
    for (int64_t strip = 0; strip < l.strips; ++strip)
      for (int lane = 0; lane < kLanes; ++lane)
        planes.totals[i] += planes.strip_sums[(strip * sums.count + i) * kLanes + lane];
  }
}

// The channel attention's gradients: fc0 and fc2, and, over the number of pixels, what the mean passes on to each u.
inline void backward_channel(const UnitLayout& l, const UnitSums& sums, const float* const* w,
                             const UnitBackwardPlanes& planes, double* grad_fc0, double* grad_fc2) {
  const double pixels = static_cast<double>(l.height) * static_cast<double>(l.width);
  for (int64_t c = 0; c < l.channels; ++c) planes.grad_mean[c] = 0.0f;
  for (int64_t i = 0; i < l.hidden; ++i) {
    double grad_hidden = 0;
    for (int64_t c = 0; c < l.channels; ++c) {
      const double s = planes.s[c], grad_s = planes.totals[sums.channel + c] + planes.totals[sums.lost + c];
      const double grad_logit = grad_s * s * (1 - s);
      if (planes.hidden[i] > 0) {
        grad_fc2[c * l.hidden + i] += grad_logit * planes.hidden[i];
        grad_hidden += grad_logit * w[kFc2W][c * l.hidden + i];
      }
    }
    for (int64_t c = 0; c < l.channels; ++c) {
      grad_fc0[i * l.channels + c] += grad_hidden * planes.pooled[c];
      planes.grad_mean[c] += static_cast<float>(grad_hidden * w[kFc0W][i * l.channels + c] / pixels);
    }
  }
}

template <class T, int Channels>
fermt_status dual_attention_unit_backward_as(const fermt_dual_attention_unit_backward_args& args) {
  const UnitLayout l(args.shape);
  const UnitSums sums(l);
  const float* const* w = args.weights;
  size_t bytes = 0;
  UnitBackwardPlanes(fermt::Carver{}, l, sums, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kCallScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const UnitBackwardPlanes planes(fermt::Carver{base}, l, sums);
  const Planes* const read_with_margins[] = {&planes.u, &planes.a, &planes.grad_d, &planes.grad_a};
  for (const Planes* p : read_with_margins) p->clear_margin_rows();
  double* grad_fc0 = planes.grad_weights + sums.count;
  double* grad_fc2 = grad_fc0 + l.hidden * l.channels;
  memset(planes.grad_weights, 0, sizeof(double) * (sums.count + 2 * l.hidden * l.channels));
  const size_t row_bytes = sizeof(float) * ((l.strip_rows + 3) * l.channels * l.columns + sums.channel * kLanes);
  auto slots_of = [&](const Strip& strip) { return planes.strip_sums + strip.index * sums.count * kLanes; };
  auto pass = [&](auto&& body) { return for_strips(args.parallel_for, l, row_bytes, body); };

  for (int64_t b = 0; b < args.shape.batch; ++b) {
    memset(planes.strip_sums, 0, sizeof(float) * l.strips * sums.count * kLanes);
    fermt_status status = pass([&](const Strip& strip, float* rows) {
      compute_u<T, Channels>(args.x, l, w, b, strip, planes.u, rows);
      sum_u(l, strip, planes.u, planes.u_sums + strip.index * l.channels);
    });
    if (status) return status;
    mean_of_u(l, planes.u_sums, planes.pooled);
    channel_attention(l, w, planes.pooled, planes.hidden, planes.s);
    status = pass([&](const Strip& strip, float*) { compute_a(l, w, strip, planes.u, planes.a); });
    if (status) return status;
    status = pass([&](const Strip& strip, float* rows) {
      backward_gate<T, Channels>(args, l, sums, b, strip, planes, rows, slots_of(strip));
    });
    if (status) return status;
    total_sums(l, sums, planes, sums.channel, sums.count);
    backward_channel(l, sums, w, planes, grad_fc0, grad_fc2);
    status = pass([&](const Strip& strip, float*) { backward_dilated(l, sums, w, strip, planes, slots_of(strip)); });
    if (status) return status;
    status = pass([&](const Strip& strip, float* rows) {
      backward_input<T, Channels>(args, l, sums, b, strip, planes, rows, slots_of(strip));
    });
    if (status) return status;
    total_sums(l, sums, planes, 0, sums.channel);
    for (int64_t i = 0; i < sums.channel; ++i) planes.grad_weights[i] += planes.totals[i];
  }
  for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) {
    const double* from = i == kFc0W ? grad_fc0 : i == kFc2W ? grad_fc2 : planes.grad_weights + sums.offset[i];
    for (int64_t j = 0; j < sums.size[i]; ++j) args.grad_weights[i][j] = static_cast<float>(from[j]);
  }
  return FERMT_OK;
}

fermt_status dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args& args) {
  const bool rgb = args.shape.channels == 3;
  if (args.shape.dtype == FERMT_FLOAT32)
    return rgb ? dual_attention_unit_backward_as<float, 3>(args) : dual_attention_unit_backward_as<float, 0>(args);
  return rgb ? dual_attention_unit_backward_as<BFloat16, 3>(args) : dual_attention_unit_backward_as<BFloat16, 0>(args);
}

}  // namespace
