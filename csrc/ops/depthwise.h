// Depth-wise convolution of one channel, and the sums that its weights' gradient is made of.
//
// Rows lie `pitch` floats apart with zeros around the image, so that no tap asks where the image ends. Taps lie `step`
// apart in both directions; kernels of 5 x 5 are unrolled, others take the general path.

#pragma once

#include "simd/vector.h"

namespace {

// A window of `rows` rows and `columns` columns, a whole number of vectors, of a larger image.
struct Window {
  const float* data;
  int64_t pitch, rows, columns;
};

constexpr int kDepthwiseRows = kAccumulators / 2;  // output rows of a tile, which share the rows that they read

// One vector of Rows rows, `step` apart. Even and odd rows of the kernel are summed apart, for float32's sake. Not
// inlined: GCC would broadcast all weights ahead of the caller's loop, and then has no registers left for the sums.
template <int Rows, int K, bool Add>
__attribute__((noinline)) void depthwise_tile(const float* from, int64_t pitch, int64_t step, int64_t kernel,
                                              const float* weights, float bias, float* to, int64_t to_pitch) {
  if (K > 0) kernel = K;
  Vec acc[2][Rows] = {};
  const auto add_tap = [&](int64_t t, int64_t kx) {  // t counts the rows that the tile reads, `from` is at row t
    const Vec value = load(from + kx * step);
    FERMT_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const int64_t ky = t - r;
      if (ky < 0 || ky >= kernel) continue;
      acc[ky % 2][r] += weights[ky * kernel + kx] * value;
    }
  };
  if constexpr (K > 0) {
    FERMT_UNROLL
    for (int t = 0; t < K + Rows - 1; ++t, from += step * pitch) {
      FERMT_HIDE(from);
      FERMT_UNROLL
      for (int kx = 0; kx < K; ++kx) add_tap(t, kx);
    }
  } else {
    for (int64_t t = 0; t < kernel + Rows - 1; ++t, from += step * pitch)
      for (int64_t kx = 0; kx < kernel; ++kx) add_tap(t, kx);
  }
  FERMT_UNROLL
  for (int r = 0; r < Rows; ++r) {
    float* row = to + r * step * to_pitch;
    const Vec sum = (acc[0][r] + acc[1][r]) + bias;
    store(row, Add ? load(row) + sum : sum);
  }
}

// Rows first, first + step, ... of the window; what Rows at a time leave over goes to half as many.
template <int Rows, int K, bool Add>
inline void depthwise_rows(const Window& in, int64_t first, int64_t step, int64_t kernel, const float* weights,
                           float bias, float* out, int64_t out_pitch) {
  const int64_t half = kernel / 2 * step;
  for (; first + (Rows - 1) * step < in.rows; first += Rows * step)
    for (int64_t x = 0; x < in.columns; x += kLanes)
      depthwise_tile<Rows, K, Add>(in.data + (first - half) * in.pitch + x - half, in.pitch, step, kernel, weights,
                                   bias, out + first * out_pitch + x, out_pitch);
  if constexpr (Rows > 1) depthwise_rows<Rows / 2, K, Add>(in, first, step, kernel, weights, bias, out, out_pitch);
}

// out = bias + the convolution of the window with kernel x kernel weights; Add adds it to `out` instead.
template <bool Add>
inline void depthwise(const Window& in, int64_t step, int64_t kernel, const float* weights, float bias, float* out,
                      int64_t out_pitch) {
  const auto rows = kernel == 5 ? depthwise_rows<kDepthwiseRows, 5, Add> : depthwise_rows<1, 0, Add>;
  for (int64_t first = 0; first < step && first < in.rows; ++first)
    rows(in, first, step, kernel, weights, bias, out, out_pitch);
}

// For Taps rows of the kernel, and Rows rows of the gradient, `step` apart: the sums over those rows of
// grad[y][x] * in[y + ky step][x + kx step], added to slots[ky][kx].
template <int Rows, int Taps, int K>
inline void weight_sums_tile(const float* grad, int64_t grad_pitch, const float* in, int64_t in_pitch, int64_t columns,
                             int64_t step, float* slots) {
  Vec acc[Taps][K] = {};
  for (int64_t x = 0; x < columns; x += kLanes) {
    Vec values[Rows];
    FERMT_UNROLL
    for (int r = 0; r < Rows; ++r) values[r] = load(grad + r * step * grad_pitch + x);
    const float* from = in + x;
    FERMT_UNROLL
    for (int t = 0; t < Taps + Rows - 1; ++t, from += step * in_pitch) {
      FERMT_HIDE(from);
      FERMT_UNROLL
      for (int kx = 0; kx < K; ++kx) {
        const Vec value = load(from + kx * step);
        FERMT_UNROLL
        for (int r = 0; r < Rows; ++r)
          if (t - r >= 0 && t - r < Taps) acc[t - r][kx] += values[r] * value;
      }
    }
  }
  FERMT_UNROLL
  for (int ky = 0; ky < Taps; ++ky) {
    FERMT_UNROLL
    for (int kx = 0; kx < K; ++kx) add_to(slots, ky * K + kx, acc[ky][kx]);
  }
}

// The same for all rows of the kernel, and the rows of a window from `first` on, which is left at the first not taken.
template <int Rows, int K>
inline void weight_sums_rows(const Window& grad, const Window& in, int64_t* first, int64_t step, float* slots) {
  constexpr int kTaps = kAccumulators > 8 ? K : 1;  // whose sums fit the registers
  const int64_t half = K / 2 * step;
  for (; *first + (Rows - 1) * step < grad.rows; *first += Rows * step)
    for (int ky = 0; ky < K; ky += kTaps)
      weight_sums_tile<Rows, kTaps, K>(grad.data + *first * grad.pitch, grad.pitch,
                                       in.data + (*first + ky * step - half) * in.pitch - half, in.pitch, grad.columns,
                                       step, slots + ky * K * kLanes);
}

// Adds to slots[ky][kx] the sums over the window of grad[y][x] * in[y + (ky - half) step][x + (kx - half) step].
inline void depthwise_weight_sums(const Window& grad, const Window& in, int64_t step, int64_t kernel, float* slots) {
  if (kernel == 5) {
    for (int64_t residue = 0; residue < step && residue < grad.rows; ++residue) {
      int64_t first = residue;
      weight_sums_rows<4, 5>(grad, in, &first, step, slots);
      weight_sums_rows<1, 5>(grad, in, &first, step, slots);
    }
    return;
  }
  for (int64_t tap = 0; tap < kernel * kernel; ++tap)
    for (int64_t y = 0; y < grad.rows; ++y) {
      const float* from =
          in.data + (y + (tap / kernel - kernel / 2) * step) * in.pitch + (tap % kernel - kernel / 2) * step;
      Vec sum = {};
      for (int64_t x = 0; x < grad.columns; x += kLanes) sum += load(grad.data + y * grad.pitch + x) * load(from + x);
      add_to(slots, tap, sum);
    }
}

}  // namespace
