// The Dual Attention Unit forward: three passes over a sample (u and its mean; conv0; all the rest).

#pragma once

#include "dual_attention_unit_kernel.h"

namespace {

struct UnitForwardPlanes {
  Planes u, a;
  float* strip_sums;
  double *pooled, *hidden, *s;

  UnitForwardPlanes(fermt::Carver carver, const UnitLayout& l, size_t* bytes = nullptr) {
    u = {carver.floats(l.channels * l.plane), &l};
    a = {carver.floats(l.channels * l.plane), &l};
    strip_sums = carver.floats(l.strips * l.channels);
    pooled = carver.doubles(l.channels);
    hidden = carver.doubles(l.hidden);
    s = carver.doubles(l.channels);
    if (bytes) *bytes = carver.used;
  }
};

// out = proj_2(s conv1(d) u) + x on a strip; rows: d, then one row's gated channels, then one row of the image.
template <class T, int Channels>
inline void compute_out(const fermt_dual_attention_unit_forward_args& args, const UnitLayout& l, int64_t b,
                        const Strip& strip, const UnitForwardPlanes& planes, float* rows) {
  const float* const* w = args.weights;
  const int64_t channels = Channels ? Channels : l.channels;
  float* gated = rows + l.strip_rows * channels * l.columns;
  float* image = gated + channels * l.columns;
  compute_d(l, w, strip, planes.a, rows);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const float* d = rows + (y - strip.start) * channels * l.columns;
    for (int64_t c = 0; c < channels; ++c) {
      const float* u = planes.u.row(c, y);
      for (int64_t x = 0; x < l.columns; x += kLanes)
        store(gated + c * l.columns + x,
              static_cast<float>(planes.s[c]) * load(u + x) *
                  pointwise<Channels>(w[kC1W] + c * channels, w[kC1B][c], d, l.columns, channels, x));
    }
    for (int64_t c = 0; c < channels; ++c) {
      load_row<T>(args.x, l, b, c, y, image);
      for (int64_t x = 0; x < l.columns; x += kLanes)
        store(image + x,
              load(image + x) + pointwise<Channels>(w[kP2W] + c * channels, w[kP2B][c], gated, l.columns, channels, x));
      row_from_float(image, l.width, at<T>(args.out, b, c, y));
    }
  }
}

template <class T, int Channels>
fermt_status dual_attention_unit_forward_as(const fermt_dual_attention_unit_forward_args& args) {
  const UnitLayout l(args.shape);
  const float* const* w = args.weights;
  size_t bytes = 0;
  UnitForwardPlanes(fermt::Carver{}, l, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kCallScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const UnitForwardPlanes planes(fermt::Carver{base}, l);
  planes.u.clear_margin_rows();
  planes.a.clear_margin_rows();
  const size_t row_bytes = sizeof(float) * (l.strip_rows + 2) * l.channels * l.columns;

  for (int64_t b = 0; b < args.shape.batch; ++b) {
    fermt_status status = for_strips(args.parallel_for, l, row_bytes, [&](const Strip& strip, float* rows) {
      compute_u<T, Channels>(args.x, l, w, b, strip, planes.u, rows);
      sum_u(l, strip, planes.u, planes.strip_sums + strip.index * l.channels);
    });
    if (status) return status;
    mean_of_u(l, planes.strip_sums, planes.pooled);
    channel_attention(l, w, planes.pooled, planes.hidden, planes.s);
    status = for_strips(args.parallel_for, l, 0,
                        [&](const Strip& strip, float*) { compute_a(l, w, strip, planes.u, planes.a); });
    if (status) return status;
    status = for_strips(args.parallel_for, l, row_bytes, [&](const Strip& strip, float* rows) {
      compute_out<T, Channels>(args, l, b, strip, planes, rows);
    });
    if (status) return status;
  }
  return FERMT_OK;
}

fermt_status dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args& args) {
  const bool rgb = args.shape.channels == 3;
  if (args.shape.dtype == FERMT_FLOAT32)
    return rgb ? dual_attention_unit_forward_as<float, 3>(args) : dual_attention_unit_forward_as<float, 0>(args);
  return rgb ? dual_attention_unit_forward_as<BFloat16, 3>(args) : dual_attention_unit_forward_as<BFloat16, 0>(args);
}

}  // namespace
