// Depth-wise convolution of one channel, and its weight gradient.
//
// Rows are `pitch` floats apart with zero padding around the image, so that no tap needs a bounds check. `step` is the
// dilation. 5 x 5 kernels are unrolled; others take a general path.

#pragma once

#include "simd/vector.h"

namespace {

// A window of a larger image; `columns` is a multiple of a vector.
struct Window {
  const float* data;
  int64_t pitch, rows, columns;
};

// Output rows and vectors of columns of a tile. A step loads each vector of an input row once and each weight once a
// row, so that loads do not outnumber multiply-adds; both sums of each output fit the registers.
constexpr int kDepthwiseRows = 3;
constexpr int kDepthwiseVectors = kManyRegisters ? 4 : 2;

// Vectors of columns of Rows output rows, `step` apart. Even and odd kernel rows are summed separately, for
// accuracy. Not inlined: GCC would hoist the broadcasts of all weights out of the caller's loop and run out of
// registers.
template <int Rows, int Vectors, int K, bool Add>
__attribute__((noinline)) void depthwise_tile(const float* from, int64_t pitch, int64_t step, int64_t kernel,
                                              const float* weights, float bias, float* to, int64_t to_pitch) {
  if (K > 0) kernel = K;
  Vec acc[2][Rows][Vectors] = {};
  const auto add_tap = [&](int64_t t, int64_t kx) {  // t: input row of the tile, where `from` is
    Vec values[Vectors];
    FERMT_UNROLL
    for (int c = 0; c < Vectors; ++c) values[c] = load_once(from + kx * step + c * kLanes);
    FERMT_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const int64_t ky = t - r;
      if (ky < 0 || ky >= kernel) continue;
      const Vec weight = splat(weights[ky * kernel + kx]);
      FERMT_UNROLL
      for (int c = 0; c < Vectors; ++c) acc[ky % 2][r][c] += weight * values[c];
    }
  };
  if constexpr (K > 0) {
    FERMT_UNROLL
    for (int t = 0; t < K + Rows - 1; ++t, from += step * pitch) {
      FERMT_HIDE(from);
      FERMT_HIDE(weights);  // else GCC keeps the weights of all taps, on the stack
      FERMT_UNROLL
      for (int kx = 0; kx < K; ++kx) add_tap(t, kx);
    }
  } else {
    for (int64_t t = 0; t < kernel + Rows - 1; ++t, from += step * pitch)
      for (int64_t kx = 0; kx < kernel; ++kx) add_tap(t, kx);
  }
  FERMT_UNROLL
  for (int r = 0; r < Rows; ++r) {
    FERMT_UNROLL
    for (int c = 0; c < Vectors; ++c) {
      float* out = to + r * step * to_pitch + c * kLanes;
      const Vec sum = (acc[0][r][c] + acc[1][r][c]) + bias;
      store(out, Add ? load(out) + sum : sum);
    }
  }
}

// Rows first, first + step, ... of the window, by tiles of Rows x Vectors; what is left by smaller ones.
template <int Rows, int Vectors, int K, bool Add>
inline void depthwise_rows(const Window& in, int64_t first, int64_t step, int64_t kernel, const float* weights,
                           float bias, float* out, int64_t out_pitch) {
  const int64_t half = kernel / 2 * step;
  for (; first + (Rows - 1) * step < in.rows; first += Rows * step) {
    const float* from = in.data + (first - half) * in.pitch - half;
    float* to = out + first * out_pitch;
    int64_t x = 0;
    for (; x + Vectors * kLanes <= in.columns; x += Vectors * kLanes)
      depthwise_tile<Rows, Vectors, K, Add>(from + x, in.pitch, step, kernel, weights, bias, to + x, out_pitch);
    for (; x < in.columns; x += kLanes)
      depthwise_tile<Rows, 1, K, Add>(from + x, in.pitch, step, kernel, weights, bias, to + x, out_pitch);
  }
  if constexpr (Rows > 1)
    depthwise_rows<Rows - 1, Vectors, K, Add>(in, first, step, kernel, weights, bias, out, out_pitch);
}

// out = bias + convolution of the window with kernel x kernel weights; with Add it is added to `out`.
template <bool Add>
inline void depthwise(const Window& in, int64_t step, int64_t kernel, const float* weights, float bias, float* out,
                      int64_t out_pitch) {
  const auto rows =
      kernel == 5 ? depthwise_rows<kDepthwiseRows, kDepthwiseVectors, 5, Add> : depthwise_rows<1, 1, 0, Add>;
  for (int64_t first = 0; first < step && first < in.rows; ++first)
    rows(in, first, step, kernel, weights, bias, out, out_pitch);
}

constexpr int kWeightTaps = kManyRegisters ? 5 : 2;  // kernel rows of a tile, whose sums fit the registers

// For Taps of K kernel rows and Rows gradient rows, `step` apart: adds the sums over those rows of
// grad[y][x] * in[y + ky step][x + kx step] to slots[ky][kx].
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
        const Vec value = load_once(from + kx * step);
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

// The same for all kernel rows, Taps at a time, and the window's rows from `first` on; advances `first` past the rows
// that were taken.
template <int Rows, int Taps, int K>
inline void weight_sums_rows(const Window& grad, const Window& in, int64_t* first, int64_t step, float* slots) {
  const int64_t half = K / 2 * step;
  for (; *first + (Rows - 1) * step < grad.rows; *first += Rows * step) {
    const float *of_grad = grad.data + *first * grad.pitch, *of_in = in.data + (*first - half) * in.pitch - half;
    int ky = 0;
    for (; ky + Taps <= K; ky += Taps)
      weight_sums_tile<Rows, Taps, K>(of_grad, grad.pitch, of_in + ky * step * in.pitch, in.pitch, grad.columns, step,
                                      slots + ky * K * kLanes);
    if constexpr (K % Taps > 0)
      weight_sums_tile<Rows, K % Taps, K>(of_grad, grad.pitch, of_in + ky * step * in.pitch, in.pitch, grad.columns,
                                          step, slots + ky * K * kLanes);
  }
}

// Adds to slots[ky][kx] the sums over the window of grad[y][x] * in[y + (ky - half) step][x + (kx - half) step].
inline void depthwise_weight_sums(const Window& grad, const Window& in, int64_t step, int64_t kernel, float* slots) {
  if (kernel == 5) {
    for (int64_t residue = 0; residue < step && residue < grad.rows; ++residue) {
      int64_t first = residue;
      weight_sums_rows<4, kWeightTaps, 5>(grad, in, &first, step, slots);
      weight_sums_rows<1, kWeightTaps, 5>(grad, in, &first, step, slots);
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
