// From a crop's bytes to the patch embedding's operand: normalization, Dual Attention Unit, reordering into patches.

#pragma once

#include "abi/packed_model.h"
#include "abi/team.h"
#include "gemm/gemm.h"
#include "ops/dual_attention_unit_forward.h"

namespace {

// Buffers of one crop: normalized planes, the Dual Attention Unit's, and patches (tokens, 3 x patch x patch).
template <class P>
struct InputPlanes {
  float *image, *out;
  DauForwardPlanes dau;
  char* strips;  // a StripScratch for each strip
  size_t strip_bytes;
  typename P::Value* patches;
};

template <class P>
struct Input {
  using Value = typename P::Value;
  const fermt::PackedModel& model;
  DauLayout layout;
  int64_t size, patch, grid, inputs, stride;  // stride: between patches, in values; whole stored elements

  Input(const fermt::PackedModel& m, int64_t crop_size)
      : model(m),
        layout(shape_of(*m.header, crop_size)),
        size(crop_size),
        patch(m.header->patch),
        grid(size / patch),
        inputs(3 * patch * patch),
        stride(round_up(inputs, kPackFactor<typename P::Stored>)) {
    // Strips are whole rows of patches, so that a patch is written at once.
    layout.strip_rows = layout.strip_rows < patch ? patch : layout.strip_rows / patch * patch;
    layout.strips = (size + layout.strip_rows - 1) / layout.strip_rows;
  }

  static fermt_unit_shape shape_of(const fermt::PackedHeader& h, int64_t size) {
    return {
        1, 3, size, size, h.dau ? h.kernel : 1, h.dau ? h.dilated_kernel : 1, h.dau ? h.dau_hidden : 1, FERMT_FLOAT32};
  }

  InputPlanes<P> allocate(Arena& arena) const {
    InputPlanes<P> planes{};
    planes.image = arena.floats(3 * size * size);
    StripScratch(Arena{}, layout, &planes.strip_bytes);
    if (model.header->dau) {
      planes.out = arena.floats(3 * size * size);
      size_t dau_bytes = 0;
      DauForwardPlanes(Arena{}, layout, &dau_bytes);
      planes.dau = DauForwardPlanes(Arena{arena.bytes(dau_bytes)}, layout);
      planes.strips = arena.bytes(layout.strips * planes.strip_bytes);
    } else {
      planes.out = planes.image;
    }
    planes.patches = reinterpret_cast<Value*>(arena.bytes(grid * grid * stride * sizeof(Value)));
    return planes;
  }

  Image image(float* planes) const { return {{planes, {3 * size * size, size * size, size}}, FERMT_FLOAT32}; }

  // Interleaved RGB bytes of a strip -> normalized planes.
  void normalize(const uint8_t* crop, const Strip& strip, const InputPlanes<P>& planes) const {
    for (int64_t y = strip.start; y < strip.stop; ++y)
      for (int64_t c = 0; c < 3; ++c) {
        const uint8_t* from = crop + y * size * 3 + c;
        float* to = planes.image + (c * size + y) * size;
        const float factor = model.image_norm[c], offset = model.image_norm[3 + c];
        for (int64_t x = 0; x < size; ++x) to[x] = static_cast<float>(from[3 * x]) * factor + offset;
      }
  }

  // A strip of the Dual Attention Unit's output (or of the image), reordered into patches.
  void write_patches(const Strip& strip, const InputPlanes<P>& planes) const {
    for (int64_t y = strip.start; y < strip.stop; ++y)
      for (int64_t c = 0; c < 3; ++c) {
        const float* from = planes.out + (c * size + y) * size;
        Value* to = planes.patches + y / patch * grid * stride + (c * patch + y % patch) * patch;
        for (int64_t i = 0; i < grid; ++i, from += patch, to += stride) {
          for (int64_t x = 0; x < patch; x += kLanes) {
            if (x + kLanes <= patch)
              store_vector(load(from + x), to + x);
            else
              row_from_float(from + x, patch - x, to + x);
          }
          for (int64_t x = patch; c == 2 && y % patch == patch - 1 && x < patch + stride - inputs; ++x)
            from_float(0.0f, to + x);
        }
      }
  }

  static constexpr int64_t kLoops = 4;  // of run, at most

  // body(planes, b, strip, scratch) for each strip of each crop, by a team; planes_of(b) is a crop's.
  template <class PlanesOf, class Body>
  void for_strips(fermt::Team& team, int64_t batch, PlanesOf&& planes_of, Body&& body) const {
    const int64_t count = batch * layout.strips;
    team.loop(count, team.share(count), [&](int64_t begin, int64_t end) {
      const InputPlanes<P>& own = planes_of(begin / layout.strips);
      const StripScratch scratch(Arena{own.strips ? own.strips + begin % layout.strips * own.strip_bytes : nullptr},
                                 layout);
      for (int64_t i = begin; i < end; ++i)
        body(planes_of(i / layout.strips), i / layout.strips, Strip(layout, i % layout.strips), scratch);
    });
  }

  // All crops of a batch.
  template <class PlanesOf>
  void run(fermt::Team& team, int64_t batch, const uint8_t* const* crops, PlanesOf&& planes_of) const {
    const float* const* w = model.dau;
    if (!model.header->dau)
      return for_strips(team, batch, planes_of,
                        [&](const InputPlanes<P>& planes, int64_t b, const Strip& strip, const StripScratch&) {
                          normalize(crops[b], strip, planes);
                          write_patches(strip, planes);
                        });
    for_strips(team, batch, planes_of,
               [&](const InputPlanes<P>& planes, int64_t b, const Strip& strip, const StripScratch& scratch) {
                 if (strip.index == 0) {
                   planes.dau.u.clear_pad_rows();
                   planes.dau.a.clear_pad_rows();
                 }
                 normalize(crops[b], strip, planes);
                 compute_u<3, false>(image(planes.image), layout, w, 0, strip, planes.dau.u, {}, scratch);
                 sum_u(layout, strip, planes.dau.u, planes.dau.strip_sums + strip.index * 3);
               });
    for_strips(team, batch, planes_of,
               [&](const InputPlanes<P>& planes, int64_t, const Strip& strip, const StripScratch&) {
                 compute_a(layout, w, strip, planes.dau.u, planes.dau.a);
               });
    team.loop(batch, 1, [&](int64_t b, int64_t) {
      const DauForwardPlanes& dau = planes_of(b).dau;
      mean_of_u(layout, dau.strip_sums, dau.pooled);
      channel_attention(layout, w, dau.pooled, dau.hidden, dau.s, dau.gate);
    });
    for_strips(team, batch, planes_of,
               [&](const InputPlanes<P>& planes, int64_t, const Strip& strip, const StripScratch& scratch) {
                 compute_out<3>(image(planes.image), image(planes.out), layout, w, 0, strip, planes.dau, scratch);
                 write_patches(strip, planes);
               });
  }
};

}  // namespace
