// The Dual Attention Unit: what forward and backward share.
//
//   u = GELU(proj_1 x)   a = conv0 u   d = conv_spatial a   f = conv1 d   s = sigmoid(fc2 relu(fc0 mean(u)))
//   out = proj_2(s f u) + x
//
// One sample at a time goes through a few passes over strips of rows; between passes its maps lie in planes with
// margins of zeros, so that no convolution asks where the image ends and each sees zeros outside it. A strip's sums
// go to a slot of their own and are added in the strips' order: the same bits for any number of threads.

#pragma once

#include <math.h>

#include "abi.h"
#include "parallel.h"
#include "simd.h"

namespace {

enum UnitWeight { kP1W, kP1B, kC0W, kC0B, kCsW, kCsB, kC1W, kC1B, kFc0W, kFc2W, kP2W, kP2B };

constexpr int kRowsTogether = kAccumulators / 4;  // output rows of a depth-wise tile, which share the rows they load

// Sizes of one sample's planes. A plane has `margin` rows and columns of zeros (at least) around the image.
struct UnitLayout {
  int64_t channels, height, width, kernel, dilated_kernel, dilation, hidden;
  int64_t columns;  // the width, up to whole vectors
  int64_t margin_rows, margin_columns, pitch, plane, strip_rows, strips;

  explicit UnitLayout(const fermt_unit_shape& s)
      : channels(s.channels),
        height(s.height),
        width(s.width),
        kernel(s.kernel),
        dilated_kernel(s.dilated_kernel),
        dilation((s.kernel + 1) / 2),
        hidden(s.hidden) {
    const int64_t reach = kernel / 2, dilated_reach = dilated_kernel / 2 * dilation;
    margin_rows = reach > dilated_reach ? reach : dilated_reach;
    margin_columns = round_up(margin_rows, kLanes);
    columns = round_up(width, 2 * kLanes);
    pitch = columns + 2 * margin_columns;
    plane = (height + 2 * margin_rows) * pitch;
    strip_rows = 4 * dilation;
    strips = (height + strip_rows - 1) / strip_rows;
  }
};

// C planes, addressed by image coordinates.
struct Planes {
  float* data;
  const UnitLayout* layout;

  float* row(int64_t channel, int64_t y) const {
    return data + channel * layout->plane + (y + layout->margin_rows) * layout->pitch + layout->margin_columns;
  }
  // Sets to zero what lies beyond the image in row y.
  void clear_sides(int64_t channel, int64_t y) const {
    float* begin = row(channel, y);
    memset(begin - layout->margin_columns, 0, sizeof(float) * layout->margin_columns);
    memset(begin + layout->width, 0, sizeof(float) * (layout->columns + layout->margin_columns - layout->width));
  }
  void clear_margin_rows() const {
    for (int64_t c = 0; c < layout->channels; ++c)
      for (int64_t i = 0; i < layout->margin_rows; ++i) {
        memset(row(c, -1 - i) - layout->margin_columns, 0, sizeof(float) * layout->pitch);
        memset(row(c, layout->height + i) - layout->margin_columns, 0, sizeof(float) * layout->pitch);
      }
  }
};

// The rows of strip `index`, and those past its end.
struct Strip {
  int64_t index, start, stop;
  Strip(const UnitLayout& l, int64_t i)
      : index(i), start(i * l.strip_rows), stop(start + l.strip_rows < l.height ? start + l.strip_rows : l.height) {}
};

// body(strip, rows) on the caller's threads; rows are `row_bytes` of the running thread's own.
template <class Body>
inline fermt_status for_strips(fermt_parallel_for parallel_for, const UnitLayout& layout, size_t row_bytes,
                               Body&& body) {
  return fermt::run_items(parallel_for, layout.strips, [&](int64_t index) {
    float* rows = static_cast<float*>(fermt::thread_scratch(row_bytes, fermt::kItemScratch));
    if (!rows) return FERMT_OUT_OF_MEMORY;
    body(Strip(layout, index), rows);
    return FERMT_OK;
  });
}

// Rows y, y + step, ... of a depth-wise convolution, two vectors at x, plus `bias`. K > 0 is the kernel's size; taps
// lie `step` apart in both directions. Flip reads the kernel backwards, which transposes it. Even and odd rows of the
// kernel are summed apart, for float32's sake.
template <int Rows, int K, bool Flip>
inline void depthwise_tile(const Planes& in, int64_t channel, int64_t y, int64_t x, int64_t step, int64_t kernel,
                           const float* weights, float bias, Vec (&sums)[Rows][2]) {
  if (K > 0) kernel = K;
  const int64_t half = kernel / 2;
  Vec acc[2][Rows][2] = {};
  for (int64_t t = 0; t < kernel + Rows - 1; ++t) {
    const float* from = in.row(channel, y + (t - half) * step) + x;
    for (int64_t kx = 0; kx < kernel; ++kx) {
      const Vec left = load(from + (kx - half) * step), right = load(from + (kx - half) * step + kLanes);
      for (int r = 0; r < Rows; ++r) {
        const int64_t ky = t - r;
        if (ky < 0 || ky >= kernel) continue;
        const int64_t tap = ky * kernel + kx;
        const Vec weight = splat(weights[Flip ? kernel * kernel - 1 - tap : tap]);
        acc[ky % 2][r][0] += weight * left;
        acc[ky % 2][r][1] += weight * right;
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < 2; ++v) sums[r][v] = (acc[0][r][v] + acc[1][r][v]) + bias;
}

// One channel of a depth-wise convolution over the rows of a strip; sink(y, x, vector) takes each result.
template <bool Flip, class Sink>
inline void depthwise(const Planes& in, int64_t channel, const Strip& strip, int64_t step, int64_t kernel,
                      const float* weights, float bias, Sink&& sink) {
  const int64_t columns = in.layout->columns;
  for (int64_t first = strip.start; first < strip.start + step && first < strip.stop; ++first) {
    int64_t y = first;
    if (kernel == 5)
      for (; y + (kRowsTogether - 1) * step < strip.stop; y += kRowsTogether * step)
        for (int64_t x = 0; x < columns; x += 2 * kLanes) {
          Vec acc[kRowsTogether][2];
          depthwise_tile<kRowsTogether, 5, Flip>(in, channel, y, x, step, 5, weights, bias, acc);
          for (int r = 0; r < kRowsTogether; ++r)
            for (int v = 0; v < 2; ++v) sink(y + r * step, x + v * kLanes, acc[r][v]);
        }
    for (; y < strip.stop; y += step)
      for (int64_t x = 0; x < columns; x += 2 * kLanes) {
        Vec acc[1][2];
        depthwise_tile<1, 0, Flip>(in, channel, y, x, step, kernel, weights, bias, acc);
        for (int v = 0; v < 2; ++v) sink(y, x + v * kLanes, acc[0][v]);
      }
  }
}

// Row y of channel c of an image -> `columns` floats, zeros past the width.
template <class T>
inline void load_row(const fermt_tensor& image, const UnitLayout& l, int64_t b, int64_t c, int64_t y, float* to) {
  row_to_float(at<T>(image, b, c, y), l.width, to);
  memset(to + l.width, 0, sizeof(float) * (l.columns - l.width));
}

// bias[o] + sum over i of weight[o][i] * rows[i][x], rows `columns` apart.
template <int Channels>
inline Vec pointwise(const float* weight, float bias, const float* rows, int64_t columns, int64_t channels, int64_t x) {
  Vec sum = splat(bias);
  for (int64_t i = 0; i < (Channels ? Channels : channels); ++i) sum += weight[i] * load(rows + i * columns + x);
  return sum;
}

// u = GELU(proj_1 x) on a strip, into its planes.
template <class T, int Channels>
inline void compute_u(const fermt_tensor& x, const UnitLayout& l, const float* const* w, int64_t b, const Strip& strip,
                      const Planes& u, float* x_rows) {
  for (int64_t y = strip.start; y < strip.stop; ++y) {
    for (int64_t c = 0; c < l.channels; ++c) load_row<T>(x, l, b, c, y, x_rows + c * l.columns);
    for (int64_t c = 0; c < l.channels; ++c) {
      float* to = u.row(c, y);
      for (int64_t i = 0; i < l.columns; i += kLanes)
        store(to + i,
              gelu(pointwise<Channels>(w[kP1W] + c * l.channels, w[kP1B][c], x_rows, l.columns, l.channels, i)));
      u.clear_sides(c, y);
    }
  }
}

// The sums over a strip of each channel of u.
inline void sum_u(const UnitLayout& l, const Strip& strip, const Planes& u, float* sums) {
  for (int64_t c = 0; c < l.channels; ++c) {
    Vec total = Vec{};
    for (int64_t y = strip.start; y < strip.stop; ++y) {
      Vec in_row = Vec{};
      for (int64_t x = 0; x < l.columns; x += kLanes) in_row += load(u.row(c, y) + x);
      total += in_row;
    }
    sums[c] = sum_of_lanes(total);
  }
}

// The mean of each channel of u over the image, from its strips' sums.
inline void mean_of_u(const UnitLayout& l, const float* strip_sums, double* pooled) {
  for (int64_t c = 0; c < l.channels; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < l.strips; ++i) sum += strip_sums[i * l.channels + c];
    pooled[c] = sum / (static_cast<double>(l.height) * static_cast<double>(l.width));
  }
}

// a = conv0 u on a strip, into its planes.
inline void compute_a(const UnitLayout& l, const float* const* w, const Strip& strip, const Planes& u,
                      const Planes& a) {
  const int64_t taps = l.kernel * l.kernel;
  for (int64_t c = 0; c < l.channels; ++c) {
    depthwise<false>(u, c, strip, 1, l.kernel, w[kC0W] + c * taps, w[kC0B][c],
                     [&](int64_t y, int64_t x, Vec sum) { store(a.row(c, y) + x, sum); });
    for (int64_t y = strip.start; y < strip.stop; ++y) a.clear_sides(c, y);
  }
}

// d = conv_spatial a on a strip, into rows: row (y - strip.start, c), `columns` apart.
inline void compute_d(const UnitLayout& l, const float* const* w, const Strip& strip, const Planes& a, float* d_rows) {
  const int64_t taps = l.dilated_kernel * l.dilated_kernel;
  for (int64_t c = 0; c < l.channels; ++c)
    depthwise<false>(a, c, strip, l.dilation, l.dilated_kernel, w[kCsW] + c * taps, w[kCsB][c],
                     [&](int64_t y, int64_t x, Vec sum) {
                       store(d_rows + ((y - strip.start) * l.channels + c) * l.columns + x, sum);
                     });
}

// s = sigmoid(fc2 relu(fc0 pooled)), and fc0 pooled itself; in double, for these few numbers touch every pixel.
inline void channel_attention(const UnitLayout& l, const float* const* w, const double* pooled, double* hidden,
                              double* s) {
  for (int64_t i = 0; i < l.hidden; ++i) {
    hidden[i] = 0;
    for (int64_t c = 0; c < l.channels; ++c) hidden[i] += w[kFc0W][i * l.channels + c] * pooled[c];
  }
  for (int64_t c = 0; c < l.channels; ++c) {
    double logit = 0;
    for (int64_t i = 0; i < l.hidden; ++i) logit += w[kFc2W][c * l.hidden + i] * (hidden[i] > 0 ? hidden[i] : 0);
    s[c] = 1 / (1 + exp(-logit));
  }
}

}  // namespace
