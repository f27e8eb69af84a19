// Transforms of Winograd's F(2 x 2, 3 x 3) convolution: a tile of 4 x 4 inputs gives 2 x 2 outputs with 16 products
// instead of 36. Inputs are transformed by B^T d B, filters by G g G^T, outputs by A^T m A.
//
// With integers all three are exact: filters are transformed by 2 G, and outputs divided by 4. Inputs of up to 255
// become at most 1020, filters of up to 127 at most 9 * 127, and 4 times an output fits 32 bits
// (fermt::kMaxByteChannels).

#pragma once

#include "gemm/gemm.h"
#include "simd/vector.h"

namespace {

// The 16-bit integers that bytes of activations are transformed as: a vector of channels, which are multiples of 16.
constexpr int kShortLanes = kLanes == 4 ? 8 : 16;
typedef uint8_t ByteLanes __attribute__((vector_size(kShortLanes)));
typedef int16_t ShortLanes __attribute__((vector_size(2 * kShortLanes)));

// Channels of a map in a vector, and such a vector.
template <class Map>
constexpr int kChannelLanes = kLanes;
template <>
constexpr int kChannelLanes<uint8_t> = kShortLanes;

inline Vec load_channels(const float* from) { return load(from); }
inline ShortLanes load_channels(const uint8_t* from) {
  ByteLanes bytes;
  memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, ShortLanes);
}

// Rows of B^T: (a - c, b + c, c - b, b - d).
template <class V>
inline void winograd_input_line(V a, V b, V c, V d, V (&out)[4]) {
  out[0] = a - c;
  out[1] = b + c;
  out[2] = c - b;
  out[3] = b - d;
}

// B^T d B of a vector of channels. `from` is the tile's first pixel; to[16], `position_stride` apart.
template <class Map, class Operand>
inline void winograd_input_tile(const Map* from, int64_t pixel, int64_t row, Operand* to, int64_t position_stride) {
  decltype(load_channels(from)) columns[4][4];
  for (int x = 0; x < 4; ++x)
    winograd_input_line(load_channels(from + x * pixel), load_channels(from + row + x * pixel),
                        load_channels(from + 2 * row + x * pixel), load_channels(from + 3 * row + x * pixel),
                        columns[x]);
  for (int y = 0; y < 4; ++y) {
    decltype(load_channels(from)) line[4];
    winograd_input_line(columns[0][y], columns[1][y], columns[2][y], columns[3][y], line);
    for (int x = 0; x < 4; ++x) memcpy(to + (4 * y + x) * position_stride, &line[x], sizeof line[x]);
  }
}

// Element Row of G (a, b, c), or of 2 G of integers. G's rows are (1, 0, 0), (1, 1, 1) / 2, (1, -1, 1) / 2, (0, 0, 1).
template <int Row>
inline Vec winograd_filter_element(Vec a, Vec b, Vec c) {
  return Row == 0 ? a : Row == 1 ? 0.5f * (a + c) + 0.5f * b : Row == 2 ? 0.5f * (a + c) - 0.5f * b : c;
}
template <int Row>
inline VecShort winograd_filter_element(VecShort a, VecShort b, VecShort c) {
  return Row == 0 ? a + a : Row == 1 ? a + c + b : Row == 2 ? a + c - b : c + c;
}

// The four products of a row of positions, for one half of a vector of stored elements.
template <int Row, class V, class Operand>
inline void winograd_filter_line(const V (&taps)[9], Operand* to, int64_t position_stride) {
  V line[3];
  for (int x = 0; x < 3; ++x) line[x] = winograd_filter_element<Row>(taps[x], taps[3 + x], taps[6 + x]);
  store(to, winograd_filter_element<0>(line[0], line[1], line[2]));
  store(to + position_stride, winograd_filter_element<1>(line[0], line[1], line[2]));
  store(to + 2 * position_stride, winograd_filter_element<2>(line[0], line[1], line[2]));
  store(to + 3 * position_stride, winograd_filter_element<3>(line[0], line[1], line[2]));
}

// Row `Row` of the positions of G g G^T: four strips of `columns` columns, from stored filters: nine taps of `stored_k`
// elements each, in a panel of `width` columns. Not inlined: it is long.
template <int Row, class Stored, class Operand>
__attribute__((noinline)) void winograd_filter_strips(const Stored* filters, int64_t width, int64_t stored_k,
                                                      int64_t columns, Operand* to) {
  const int64_t position_stride = 2 * stored_k * columns;
  for (int64_t k = 0; k < stored_k; ++k)
    for (int64_t c = 0; c < columns; c += kLanes) {
      decltype(widened(filters).first) first[9], second[9];
      for (int tap = 0; tap < 9; ++tap) {
        const auto wide = widened(filters + (tap * stored_k + k) * width + c);
        first[tap] = wide.first;
        second[tap] = wide.second;
      }
      winograd_filter_line<Row>(first, to + 2 * k * columns + c, position_stride);
      winograd_filter_line<Row>(second, to + (2 * k + 1) * columns + c, position_stride);
    }
}

// A^T m A of a vector of channels: 2 x 2 sums from 16 positions, `position_stride` apart.
template <class V>
inline void winograd_output_sums(const float* from, int64_t position_stride, V (&out)[2][2]) {
  V rows[2][4];
  for (int x = 0; x < 4; ++x) {
    const V m0 = load_as<V>(from + x * position_stride), m1 = load_as<V>(from + (4 + x) * position_stride),
            m2 = load_as<V>(from + (8 + x) * position_stride), m3 = load_as<V>(from + (12 + x) * position_stride);
    rows[0][x] = m0 + m1 + m2;
    rows[1][x] = m1 - m2 - m3;
  }
  for (int y = 0; y < 2; ++y) {
    out[y][0] = rows[y][0] + rows[y][1] + rows[y][2];
    out[y][1] = rows[y][1] - rows[y][2] - rows[y][3];
  }
}

inline void winograd_output_tile(const float* from, int64_t position_stride, Vec (&out)[2][2]) {
  winograd_output_sums(from, position_stride, out);
}

// Unsigned, for a sum on the way may not fit.
inline void winograd_output_tile(const float* from, int64_t position_stride, VecInt (&out)[2][2]) {
  typedef uint32_t VecUint __attribute__((vector_size(FERMT_VECTOR_BYTES)));
  VecUint sums[2][2];
  winograd_output_sums(from, position_stride, sums);
  for (int y = 0; y < 2; ++y)
    for (int x = 0; x < 2; ++x) out[y][x] = (VecInt)sums[y][x] >> 2;
}

}  // namespace
