// The Dual Attention Unit backward: five passes over a sample. With g the gradient of out and y = s f u:
//
//   1, 2  recompute u and a
//   3     dy = proj_2^T g;  df = dy s u;  dd = conv1^T df;  ds = sum(dy f u);  du = dy s f
//   4     da = conv_spatial^T dd
//   5     du += conv0^T da + (gradient of the mean);  dp = du gelu'(p);  dx = proj_1^T dp + g
//
// Each pass accumulates weight gradients of its strip in vectors; strips and samples are added up in double.

#pragma once

#include "ops/dual_attention_unit.h"

namespace {

// Layout of a strip's accumulators of weight gradients (slots of one vector each).
struct DauGradSlots {
  int64_t offset[FERMT_UNIT_WEIGHTS], size[FERMT_UNIT_WEIGHTS];
  int64_t channel, compensation;  // the gradient of s, and the rounding errors of its sums
  int64_t count;

  explicit DauGradSlots(const DauLayout& l) : count(0) {
    const int64_t c = l.channels, taps = l.kernel * l.kernel, dilated_taps = l.dilated_kernel * l.dilated_kernel;
    const int64_t sizes[FERMT_UNIT_WEIGHTS] = {
        c * c, c, c * taps, c, c * dilated_taps, c, c * c, c, l.hidden * c, c * l.hidden, c * c, c};
    for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) {
      size[i] = sizes[i];
      offset[i] = count;
      if (i != kFc0W && i != kFc2W) count += sizes[i];
    }
    channel = count;
    compensation = channel + c;
    count += 2 * c;
  }
};

struct DauBackwardPlanes {
  Planes u, slope, a, grad_d, grad_a, grad_u;  // slope: GELU's derivative at proj_1 x
  float *u_sums, *strip_sums, *grad_mean, *gate;
  float *flipped_conv0, *flipped_spatial;  // kernels flipped: their convolutions are the transposes
  double *pooled, *hidden, *s;
  double* totals;        // of this sample, over strips and lanes
  double* grad_weights;  // of all samples

  DauBackwardPlanes(Arena arena, const DauLayout& l, const DauGradSlots& sums, size_t* bytes = nullptr) {
    Planes* const all[] = {&u, &slope, &a, &grad_d, &grad_a, &grad_u};
    for (Planes* planes : all) *planes = {arena.floats(l.channels * l.plane), &l};
    strip_sums = arena.floats(l.strips * sums.count * kLanes);
    u_sums = arena.floats(l.strips * l.channels);
    grad_mean = arena.floats(l.channels);
    gate = arena.floats(l.channels);
    flipped_conv0 = arena.floats(sums.size[kC0W]);
    flipped_spatial = arena.floats(sums.size[kCsW]);
    pooled = arena.doubles(l.channels);
    hidden = arena.doubles(l.hidden);
    s = arena.doubles(l.channels);
    totals = arena.doubles(sums.count);
    grad_weights = arena.doubles(sums.count + 2 * l.hidden * l.channels);
    if (bytes) *bytes = arena.used;
  }
};

// Reverses each channel's `taps` weights.
inline void flip(const float* weights, int64_t channels, int64_t taps, float* to) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < taps; ++i) to[c * taps + i] = weights[(c + 1) * taps - 1 - i];
}

// Slot `sum` += the vectors of a row, and slot `compensation` += the rounding errors (two-sum): terms of either sign
// cancel here.
inline void add_row_compensated(const float* row, int64_t columns, float* slots, int64_t sum, int64_t compensation) {
  Vec total = load(slots + sum * kLanes), errors = load(slots + compensation * kLanes);
  for (int64_t x = 0; x < columns; x += kLanes) {
    const Vec value = load(row + x), after = total + value;
    const Vec added = after - total;
    errors += (total - (after - added)) + (value - added);
    total = after;
  }
  store(slots + sum * kLanes, total);
  store(slots + compensation * kLanes, errors);
}

// Adds the sums over a row of a[o] * b[i] to weight slots [o][i], and of a[o] to bias slots [o].
template <int Channels>
inline void add_row_sums(const Row& a, const Row& b, int64_t columns, int64_t channels, float* weight_slots,
                         float* bias_slots) {
  if constexpr (Channels > 0) {
    Vec products[Channels][Channels] = {}, sums[Channels] = {};
    for (int64_t x = 0; x < columns; x += kLanes)
      for (int o = 0; o < Channels; ++o) {
        const Vec value = load(a.channel(o) + x);
        sums[o] += value;
        for (int i = 0; i < Channels; ++i) products[o][i] += value * load(b.channel(i) + x);
      }
    for (int o = 0; o < Channels; ++o) {
      add_to(bias_slots, o, sums[o]);
      for (int i = 0; i < Channels; ++i) add_to(weight_slots, o * Channels + i, products[o][i]);
    }
  } else {
    for (int64_t o = 0; o < channels; ++o) {
      add_to(bias_slots, o, sum_of_rows({a.channel(o), 0, 1, columns}));
      for (int64_t i = 0; i < channels; ++i) {
        Vec sum = {};
        for (int64_t x = 0; x < columns; x += kLanes) sum += load(a.channel(o) + x) * load(b.channel(i) + x);
        add_to(weight_slots, o * channels + i, sum);
      }
    }
  }
}

// Pass 3 on a strip.
template <int Channels>
inline void backward_gate(const Image& grad_out, const DauLayout& l, const float* const* w, const DauGradSlots& sums,
                          int64_t b, const Strip& strip, const DauBackwardPlanes& planes, const StripScratch& scratch,
                          float* slots) {
  const int64_t channels = Channels ? Channels : l.channels;
  Pixels<Channels> d(scratch.pixels[0]), g(scratch.pixels[1]), df(scratch.pixels[2]);
  const Row gated = scratch.row(0), grad_f = scratch.row(1), terms = scratch.row(2);
  compute_d(l, w, strip, planes.a, scratch);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const Row grad = grad_out.float_row(l, b, y, scratch.rows[3]), d_row = scratch.d_row(strip, y);
    const Row u = row_of(planes.u, y), grad_u = row_of(planes.grad_u, y), grad_d = row_of(planes.grad_d, y);
    for (int64_t x = 0; x < l.columns; x += kLanes) {
      for (int64_t c = 0; c < channels; ++c) {
        d[c] = load(d_row.channel(c) + x);
        g[c] = load(grad.channel(c) + x);
      }
      for (int64_t c = 0; c < channels; ++c) {
        const Vec u_c = load(u.channel(c) + x), f = pointwise(w[kC1W], w[kC1B], channels, c, d);
        const Vec grad_y = pointwise_transposed(w[kP2W], channels, c, g), grad_gated = grad_y * planes.gate[c];
        store(gated.channel(c) + x, planes.gate[c] * (f * u_c));
        store(grad_u.channel(c) + x, grad_gated * f);
        store(terms.channel(c) + x, grad_y * (f * u_c));
        df[c] = grad_gated * u_c;
        store(grad_f.channel(c) + x, df[c]);
      }
      for (int64_t c = 0; c < channels; ++c)
        store(grad_d.channel(c) + x, pointwise_transposed(w[kC1W], channels, c, df));
    }
    for (int64_t c = 0; c < channels; ++c) {
      planes.grad_d.clear_pad_columns(c, y);
      add_row_compensated(terms.channel(c), l.columns, slots, sums.channel + c, sums.compensation + c);
    }
    add_row_sums<Channels>(grad, gated, l.columns, channels, slots + sums.offset[kP2W] * kLanes,
                           slots + sums.offset[kP2B] * kLanes);
    add_row_sums<Channels>(grad_f, d_row, l.columns, channels, slots + sums.offset[kC1W] * kLanes,
                           slots + sums.offset[kC1B] * kLanes);
  }
}

// Pass 4 on a strip: da, and conv_spatial's weight gradient.
inline void backward_dilated(const DauLayout& l, const DauGradSlots& sums, const Strip& strip,
                             const DauBackwardPlanes& planes, float* slots) {
  const int64_t taps = l.dilated_kernel * l.dilated_kernel;
  for (int64_t c = 0; c < l.channels; ++c) {
    const Window grad = window(planes.grad_d, c, strip);
    depthwise<false>(grad, l.dilation, l.dilated_kernel, planes.flipped_spatial + c * taps, 0.0f,
                     planes.grad_a.row(c, strip.start), l.pitch);
    for (int64_t y = strip.start; y < strip.stop; ++y) planes.grad_a.clear_pad_columns(c, y);
    depthwise_weight_sums(grad, window(planes.a, c, strip), l.dilation, l.dilated_kernel,
                          slots + (sums.offset[kCsW] + c * taps) * kLanes);
    add_to(slots, sums.offset[kCsB] + c, sum_of_rows(grad));
  }
}

// Pass 5 on a strip.
template <int Channels>
inline void backward_input(const Image& x, const Image& grad_out, const Image& grad_x, const DauLayout& l,
                           const float* const* w, const DauGradSlots& sums, int64_t b, const Strip& strip,
                           const DauBackwardPlanes& planes, const StripScratch& scratch, float* slots) {
  const int64_t channels = Channels ? Channels : l.channels, taps = l.kernel * l.kernel;
  for (int64_t c = 0; c < channels; ++c) {
    const Window grad = window(planes.grad_a, c, strip);
    depthwise<true>(grad, 1, l.kernel, planes.flipped_conv0 + c * taps, planes.grad_mean[c],
                    planes.grad_u.row(c, strip.start), l.pitch);
    depthwise_weight_sums(grad, window(planes.u, c, strip), 1, l.kernel,
                          slots + (sums.offset[kC0W] + c * taps) * kLanes);
    add_to(slots, sums.offset[kC0B] + c, sum_of_rows(grad));
  }
  Pixels<Channels> grad_p(scratch.pixels[0]);
  const Row grad_p_row = scratch.row(0);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const Row image = x.float_row(l, b, y, scratch.rows[1]), grad_u = row_of(planes.grad_u, y);
    const Row slope = row_of(planes.slope, y);
    const Row grad = grad_out.float_row(l, b, y, scratch.rows[2]);
    const Row result = grad_x.row_to_write(l, b, y, scratch.rows[3]);
    for (int64_t i = 0; i < l.columns; i += kLanes) {
      for (int64_t c = 0; c < channels; ++c) {
        grad_p[c] = load(grad_u.channel(c) + i) * load(slope.channel(c) + i);
        store(grad_p_row.channel(c) + i, grad_p[c]);
      }
      for (int64_t c = 0; c < channels; ++c)
        store(result.channel(c) + i, load(grad.channel(c) + i) + pointwise_transposed(w[kP1W], channels, c, grad_p));
    }
    grad_x.finish_row(result, l, b, y);
    for (int64_t c = 0; c < channels; ++c)
      memset(grad_p_row.channel(c) + l.width, 0, sizeof(float) * (l.columns - l.width));
    add_row_sums<Channels>(grad_p_row, image, l.columns, channels, slots + sums.offset[kP1W] * kLanes,
                           slots + sums.offset[kP1B] * kLanes);
  }
}

// Adds up slots [first, last) over strips and lanes.
inline void total_sums(const DauLayout& l, const DauGradSlots& sums, const DauBackwardPlanes& planes, int64_t first,
                       int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    planes.totals[i] = 0;
    for (int64_t strip = 0; strip < l.strips; ++strip)
      for (int lane = 0; lane < kLanes; ++lane)
        planes.totals[i] += planes.strip_sums[(strip * sums.count + i) * kLanes + lane];
  }
}

// Gradients of the channel attention: fc0, fc2, and of each channel's mean, divided by the number of pixels.
inline void backward_channel(const DauLayout& l, const DauGradSlots& sums, const float* const* w,
                             const DauBackwardPlanes& planes, double* grad_fc0, double* grad_fc2) {
  const double pixels = static_cast<double>(l.height) * static_cast<double>(l.width);
  for (int64_t c = 0; c < l.channels; ++c) planes.grad_mean[c] = 0.0f;
  for (int64_t i = 0; i < l.hidden; ++i) {
    double grad_hidden = 0;
    for (int64_t c = 0; c < l.channels; ++c) {
      const double s = planes.s[c], grad_s = planes.totals[sums.channel + c] + planes.totals[sums.compensation + c];
      const double grad_logit = grad_s * s * (1 - s);
      const bool passes = !(planes.hidden[i] <= 0);  // as PyTorch: NaN does
      grad_fc2[c * l.hidden + i] += grad_logit * (passes ? planes.hidden[i] : 0);
      if (passes) grad_hidden += grad_logit * w[kFc2W][c * l.hidden + i];
    }
    for (int64_t c = 0; c < l.channels; ++c) {
      grad_fc0[i * l.channels + c] += grad_hidden * planes.pooled[c];
      planes.grad_mean[c] += static_cast<float>(grad_hidden * w[kFc0W][i * l.channels + c] / pixels);
    }
  }
}

template <int Channels>
fermt_status dual_attention_unit_backward_as(const fermt_dual_attention_unit_backward_args& args) {
  const DauLayout l(args.shape);
  const DauGradSlots sums(l);
  const float* const* w = args.weights;
  const int64_t dtype = args.shape.dtype;
  const Image x = {args.x, dtype}, grad_out = {args.grad_out, dtype}, grad_x = {args.grad_x, dtype};
  size_t bytes = 0;
  DauBackwardPlanes(Arena{}, l, sums, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kCallScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const DauBackwardPlanes planes(Arena{base}, l, sums);
  const Planes* const read_with_margins[] = {&planes.u, &planes.a, &planes.grad_d, &planes.grad_a};
  for (const Planes* p : read_with_margins) p->clear_pad_rows();
  double* grad_fc0 = planes.grad_weights + sums.count;
  double* grad_fc2 = grad_fc0 + l.hidden * l.channels;
  memset(planes.grad_weights, 0, sizeof(double) * (sums.count + 2 * l.hidden * l.channels));
  flip(w[kC0W], l.channels, l.kernel * l.kernel, planes.flipped_conv0);
  flip(w[kCsW], l.channels, l.dilated_kernel * l.dilated_kernel, planes.flipped_spatial);
  const auto slots_of = [&](const Strip& strip) { return planes.strip_sums + strip.index * sums.count * kLanes; };
  const auto pass = [&](auto&& body) { return for_strips(args.parallel_for, l, body); };

  for (int64_t b = 0; b < args.shape.batch; ++b) {
    memset(planes.strip_sums, 0, sizeof(float) * l.strips * sums.count * kLanes);
    fermt_status status = pass([&](const Strip& strip, const StripScratch& scratch) {
      compute_u<Channels, true>(x, l, w, b, strip, planes.u, planes.slope, scratch);
      sum_u(l, strip, planes.u, planes.u_sums + strip.index * l.channels);
    });
    if (status) return status;
    mean_of_u(l, planes.u_sums, planes.pooled);
    channel_attention(l, w, planes.pooled, planes.hidden, planes.s, planes.gate);
    status = pass([&](const Strip& strip, const StripScratch&) { compute_a(l, w, strip, planes.u, planes.a); });
    if (status) return status;
    status = pass([&](const Strip& strip, const StripScratch& scratch) {
      backward_gate<Channels>(grad_out, l, w, sums, b, strip, planes, scratch, slots_of(strip));
    });
    if (status) return status;
    total_sums(l, sums, planes, sums.channel, sums.count);
    backward_channel(l, sums, w, planes, grad_fc0, grad_fc2);
    status = pass(
        [&](const Strip& strip, const StripScratch&) { backward_dilated(l, sums, strip, planes, slots_of(strip)); });
    if (status) return status;
    status = pass([&](const Strip& strip, const StripScratch& scratch) {
      backward_input<Channels>(x, grad_out, grad_x, l, w, sums, b, strip, planes, scratch, slots_of(strip));
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

}  // namespace
