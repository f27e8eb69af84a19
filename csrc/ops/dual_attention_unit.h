// What forward and backward of the Dual Attention Unit share.
//
//   u = GELU(proj_1 x)   a = conv0 u   d = conv_spatial a   f = conv1 d   s = sigmoid(fc2 relu(fc0 mean(u)))
//   out = proj_2(s f u) + x
//
// Samples are taken one at a time, in a few passes over strips of rows. Between passes feature maps are stored in
// planes with zero padding, so that convolutions need no bounds checks. Each strip has its own partial sums, which are
// added in the strips' order: the same bits for any number of threads.

#pragma once

#include <math.h>

#include "abi/arena.h"
#include "abi/fermt.h"
#include "abi/parallel.h"
#include "ops/depthwise.h"
#include "simd/dtypes.h"
#include "simd/math.h"
#include "simd/vector.h"

namespace {

enum DauWeight { kP1W, kP1B, kC0W, kC0B, kCsW, kCsB, kC1W, kC1B, kFc0W, kFc2W, kP2W, kP2B };

// Sizes of one sample's planes. A plane has pad_rows rows and (at least) pad_rows columns of zeros around the image.
struct DauLayout {
  int64_t channels, height, width, kernel, dilated_kernel, dilation, hidden;
  int64_t columns;  // the width, rounded up to whole vectors
  int64_t pad_rows, pad_columns, pitch, plane, strip_rows, strips;

  explicit DauLayout(const fermt_unit_shape& s)
      : channels(s.channels),
        height(s.height),
        width(s.width),
        kernel(s.kernel),
        dilated_kernel(s.dilated_kernel),
        dilation((s.kernel + 1) / 2),
        hidden(s.hidden) {
    const int64_t reach = kernel / 2, dilated_reach = dilated_kernel / 2 * dilation;
    pad_rows = reach > dilated_reach ? reach : dilated_reach;
    pad_columns = round_up(pad_rows, kLanes);
    columns = round_up(width, kLanes);
    pitch = columns + 2 * pad_columns;
    plane = (height + 2 * pad_rows) * pitch;
    strip_rows = 6 * dilation;
    strips = (height + strip_rows - 1) / strip_rows;
  }
};

// One plane for each channel, addressed by image coordinates.
struct Planes {
  float* data;
  const DauLayout* layout;

  float* row(int64_t channel, int64_t y) const {
    return data + channel * layout->plane + (y + layout->pad_rows) * layout->pitch + layout->pad_columns;
  }
  // Zeroes row y beyond the image.
  void clear_pad_columns(int64_t channel, int64_t y) const {
    float* begin = row(channel, y);
    memset(begin - layout->pad_columns, 0, sizeof(float) * layout->pad_columns);
    memset(begin + layout->width, 0, sizeof(float) * (layout->columns + layout->pad_columns - layout->width));
  }
  void clear_pad_rows() const {
    for (int64_t c = 0; c < layout->channels; ++c)
      for (int64_t i = 0; i < layout->pad_rows; ++i) {
        memset(row(c, -1 - i) - layout->pad_columns, 0, sizeof(float) * layout->pitch);
        memset(row(c, layout->height + i) - layout->pad_columns, 0, sizeof(float) * layout->pitch);
      }
  }
};

// A strip of rows of one sample.
struct Strip {
  int64_t index, start, stop;
  Strip(const DauLayout& l, int64_t i)
      : index(i), start(i * l.strip_rows), stop(start + l.strip_rows < l.height ? start + l.strip_rows : l.height) {}
};

inline Window window(const Planes& planes, int64_t channel, const Strip& strip) {
  return {planes.row(channel, strip.start), planes.layout->pitch, strip.stop - strip.start, planes.layout->columns};
}

// A row of the image in all channels, `pitch` floats from one to the next.
struct Row {
  float* data;
  int64_t pitch;
  float* channel(int64_t c) const { return data + c * pitch; }
};

inline Row row_of(const Planes& planes, int64_t y) { return {planes.row(0, y), planes.layout->plane}; }

// A thread's buffers for a strip: d of the whole strip, single rows, and single vectors, each of all channels.
struct StripScratch {
  float* d;
  float* rows[4];
  float* pixels[3];
  int64_t d_pitch, columns;

  StripScratch(Arena arena, const DauLayout& l, size_t* bytes = nullptr)
      : d(arena.floats(l.channels * l.strip_rows * l.columns)), d_pitch(l.strip_rows * l.columns), columns(l.columns) {
    for (float*& row : rows) row = arena.floats(l.channels * l.columns);
    for (float*& pixel : pixels) pixel = arena.floats(l.channels * kLanes);
    if (bytes) *bytes = arena.used;
  }
  Row row(int i) const { return {rows[i], columns}; }
  Row d_row(const Strip& strip, int64_t y) const { return {d + (y - strip.start) * columns, d_pitch}; }
};

// body(strip, scratch) on the caller's threads.
template <class Body>
inline fermt_status for_strips(fermt_parallel_for parallel_for, const DauLayout& layout, Body&& body) {
  size_t bytes = 0;
  StripScratch(Arena{}, layout, &bytes);
  return fermt::run_items(parallel_for, layout.strips, [&](int64_t index) {
    char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kItemScratch));
    if (!base) return FERMT_OUT_OF_MEMORY;
    body(Strip(layout, index), StripScratch(Arena{base}, layout));
    return FERMT_OK;
  });
}

// An image and its dtype.
struct Image {
  fermt_tensor tensor;
  int64_t dtype;

  // Whether rows can be accessed in place, as whole vectors of floats.
  bool in_place(const DauLayout& l) const { return dtype == FERMT_FLOAT32 && l.width == l.columns; }

  // Row y to write: in place, or `buffer`, which finish_row converts and copies.
  Row row_to_write(const DauLayout& l, int64_t b, int64_t y, float* buffer) const {
    return in_place(l) ? Row{at<float>(tensor, b, 0, y), tensor.strides[1]} : Row{buffer, l.columns};
  }

  // Row y to read, zeros past the width: in place, or converted into `buffer`.
  Row float_row(const DauLayout& l, int64_t b, int64_t y, float* buffer) const {
    const Row row = row_to_write(l, b, y, buffer);
    if (!in_place(l)) convert_row(l, b, y, row);
    return row;
  }
  void finish_row(const Row& row, const DauLayout& l, int64_t b, int64_t y) const {
    if (!in_place(l)) write_row(row, l, b, y);
  }

  __attribute__((noinline)) void convert_row(const DauLayout& l, int64_t b, int64_t y, const Row& row) const {
    for_dtype(dtype, [&](auto value) {
      for (int64_t c = 0; c < l.channels; ++c) {
        row_to_float(at<decltype(value)>(tensor, b, c, y), l.width, row.channel(c));
        memset(row.channel(c) + l.width, 0, sizeof(float) * (l.columns - l.width));
      }
      return FERMT_OK;
    });
  }
  __attribute__((noinline)) void write_row(const Row& row, const DauLayout& l, int64_t b, int64_t y) const {
    for_dtype(dtype, [&](auto value) {
      for (int64_t c = 0; c < l.channels; ++c)
        row_from_float(row.channel(c), l.width, at<decltype(value)>(tensor, b, c, y));
      return FERMT_OK;
    });
  }
};

// All channels' vectors at one position of the image: in registers if Channels is known at compile time.
template <int Channels>
struct Pixels {
  Vec vectors[Channels];
  explicit Pixels(float*) {}
  Vec& operator[](int64_t c) { return vectors[c]; }
};

template <>
struct Pixels<0> {
  float* buffer;  // channels x kLanes
  struct Slot {
    float* at;
    operator Vec() const { return load(at); }
    void operator=(Vec v) { store(at, v); }
  };
  explicit Pixels(float* b) : buffer(b) {}
  Slot operator[](int64_t c) { return {buffer + c * kLanes}; }
};

// bias[o] + sum over i of weight[o][i] * pixels[i].
template <int Channels>
inline Vec pointwise(const float* weight, const float* bias, int64_t channels, int64_t o, Pixels<Channels>& pixels) {
  Vec sum = splat(bias[o]);
  for (int64_t i = 0; i < (Channels ? Channels : channels); ++i) sum += weight[o * channels + i] * Vec(pixels[i]);
  return sum;
}

// sum over o of weight[o][i] * pixels[o].
template <int Channels>
inline Vec pointwise_transposed(const float* weight, int64_t channels, int64_t i, Pixels<Channels>& pixels) {
  Vec sum = {};
  for (int64_t o = 0; o < (Channels ? Channels : channels); ++o) sum += weight[o * channels + i] * Vec(pixels[o]);
  return sum;
}

// u = GELU(proj_1 x) on a strip; with Derivative, GELU's derivative there, too.
template <int Channels, bool Derivative>
inline void compute_u(const Image& x, const DauLayout& l, const float* const* w, int64_t b, const Strip& strip,
                      const Planes& u, const Planes& derivative, const StripScratch& scratch) {
  const int64_t channels = Channels ? Channels : l.channels;
  Pixels<Channels> in(scratch.pixels[0]);
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    const Row row = x.float_row(l, b, y, scratch.rows[0]);
    for (int64_t i = 0; i < l.columns; i += kLanes) {
      for (int64_t c = 0; c < channels; ++c) in[c] = load(row.channel(c) + i);
      for (int64_t c = 0; c < channels; ++c) {
        const Vec p = pointwise(w[kP1W], w[kP1B], channels, c, in);
        if constexpr (Derivative) {
          Vec slope;
          store(u.row(c, y) + i, gelu(p, &slope));
          store(derivative.row(c, y) + i, slope);
        } else {
          store(u.row(c, y) + i, gelu(p));
        }
      }
    }
    for (int64_t c = 0; c < channels; ++c) u.clear_pad_columns(c, y);
  }
}

inline Vec sum_of_rows(const Window& window) {
  Vec total = Vec{};
  for (int64_t y = 0; y < window.rows; ++y) {
    Vec in_row = Vec{};
    for (int64_t x = 0; x < window.columns; x += kLanes) in_row += load(window.data + y * window.pitch + x);
    total += in_row;
  }
  return total;
}

// The sums over a strip of each channel of u.
inline void sum_u(const DauLayout& l, const Strip& strip, const Planes& u, float* sums) {
  for (int64_t c = 0; c < l.channels; ++c) sums[c] = sum_of_lanes(sum_of_rows(window(u, c, strip)));
}

// The mean of each channel of u over the image, from the strips' sums.
inline void mean_of_u(const DauLayout& l, const float* strip_sums, double* pooled) {
  for (int64_t c = 0; c < l.channels; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < l.strips; ++i) sum += strip_sums[i * l.channels + c];
    pooled[c] = sum / (static_cast<double>(l.height) * static_cast<double>(l.width));
  }
}

// a = conv0 u on a strip.
inline void compute_a(const DauLayout& l, const float* const* w, const Strip& strip, const Planes& u, const Planes& a) {
  const int64_t taps = l.kernel * l.kernel;
  for (int64_t c = 0; c < l.channels; ++c) {
    depthwise<false>(window(u, c, strip), 1, l.kernel, w[kC0W] + c * taps, w[kC0B][c], a.row(c, strip.start), l.pitch);
    for (int64_t y = strip.start; y < strip.stop; ++y) a.clear_pad_columns(c, y);
  }
}

// d = conv_spatial a on a strip, into the scratch.
inline void compute_d(const DauLayout& l, const float* const* w, const Strip& strip, const Planes& a,
                      const StripScratch& scratch) {
  const int64_t taps = l.dilated_kernel * l.dilated_kernel;
  for (int64_t c = 0; c < l.channels; ++c)
    depthwise<false>(window(a, c, strip), l.dilation, l.dilated_kernel, w[kCsW] + c * taps, w[kCsB][c],
                     scratch.d + c * scratch.d_pitch, scratch.columns);
}

// s = sigmoid(fc2 relu(fc0 pooled)), in double and as float, and hidden = fc0 pooled. In double, because these few
// values scale every pixel.
inline void channel_attention(const DauLayout& l, const float* const* w, const double* pooled, double* hidden,
                              double* s, float* gate) {
  for (int64_t i = 0; i < l.hidden; ++i) {
    hidden[i] = 0;
    for (int64_t c = 0; c < l.channels; ++c) hidden[i] += w[kFc0W][i * l.channels + c] * pooled[c];
  }
  for (int64_t c = 0; c < l.channels; ++c) {
    double logit = 0;
    for (int64_t i = 0; i < l.hidden; ++i) logit += w[kFc2W][c * l.hidden + i] * (hidden[i] < 0 ? 0 : hidden[i]);
    s[c] = 1 / (1 + exp(-logit));
    gate[c] = static_cast<float>(s[c]);
  }
}

}  // namespace
