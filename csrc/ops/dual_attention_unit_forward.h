// The Dual Attention Unit forward: three passes over a sample (u and its mean; conv0; all the rest).

#pragma once

#include "ops/dual_attention_unit.h"

namespace {

struct UnitForwardPlanes {
  Planes u, a;
  float *strip_sums, *gate;  // gate: s in float
  double *pooled, *hidden, *s;

  UnitForwardPlanes() = default;
  UnitForwardPlanes(fermt::Carver carver, const UnitLayout& l, size_t* bytes = nullptr) {
    u = {carver.floats(l.channels * l.plane), &l};
    a = {carver.floats(l.channels * l.plane), &l};
    strip_sums = carver.floats(l.strips * l.channels);
    gate = carver.floats(l.channels);
    pooled = carver.doubles(l.channels);
    hidden = carver.doubles(l.hidden);
    s = carver.doubles(l.channels);
    if (bytes) *bytes = carver.used;
  }
};

// out = proj_2(s conv1(d) u) + x on a strip.
template <int Channels>
inline void compute_out(const Image& x, const Image& out, const UnitLayout& l, const float* const* w, int64_t b,
                        const Strip& strip, const UnitForwardPlanes& planes, const StripScratch& scratch) {
  const int64_t channels = Channels ? Channels : l.channels;
  Pixels<Channels> d(scratch.pixels[0]), gated(scratch.pixels[1]);
  compute_d(l, w, strip, planes.a, scratch);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const Row in_row = x.float_row(l, b, y, scratch.rows[0]), u = row_of(planes.u, y);
    const Row d_row = scratch.d_row(strip, y), out_row = out.row_to_write(l, b, y, scratch.rows[1]);
    for (int64_t i = 0; i < l.columns; i += kLanes) {
      for (int64_t c = 0; c < channels; ++c) d[c] = load(d_row.channel(c) + i);
      for (int64_t c = 0; c < channels; ++c)
        gated[c] = planes.gate[c] * load(u.channel(c) + i) * pointwise(w[kC1W], w[kC1B], channels, c, d);
      for (int64_t c = 0; c < channels; ++c)
        store(out_row.channel(c) + i, load(in_row.channel(c) + i) + pointwise(w[kP2W], w[kP2B], channels, c, gated));
    }
    out.finish_row(out_row, l, b, y);
  }
}

template <int Channels>
fermt_status dual_attention_unit_forward_as(const fermt_dual_attention_unit_forward_args& args) {
  const UnitLayout l(args.shape);
  const Image x = {args.x, args.shape.dtype}, out = {args.out, args.shape.dtype};
  const float* const* w = args.weights;
  size_t bytes = 0;
  UnitForwardPlanes(fermt::Carver{}, l, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kCallScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const UnitForwardPlanes planes(fermt::Carver{base}, l);
  planes.u.clear_margin_rows();
  planes.a.clear_margin_rows();

  const auto pass = [&](auto&& body) { return for_strips(args.parallel_for, l, body); };
  for (int64_t b = 0; b < args.shape.batch; ++b) {
    fermt_status status = pass([&](const Strip& strip, const StripScratch& scratch) {
      compute_u<Channels, false>(x, l, w, b, strip, planes.u, {}, scratch);
      sum_u(l, strip, planes.u, planes.strip_sums + strip.index * l.channels);
    });
    if (status) return status;
    mean_of_u(l, planes.strip_sums, planes.pooled);
    channel_attention(l, w, planes.pooled, planes.hidden, planes.s, planes.gate);
    status = pass([&](const Strip& strip, const StripScratch&) { compute_a(l, w, strip, planes.u, planes.a); });
    if (status) return status;
    status = pass([&](const Strip& strip, const StripScratch& scratch) {
      compute_out<Channels>(x, out, l, w, b, strip, planes, scratch);
    });
    if (status) return status;
  }
  return FERMT_OK;
}

}  // namespace
