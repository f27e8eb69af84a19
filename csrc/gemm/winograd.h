// 3 x 3 convolution by Winograd's F(2 x 2, 3 x 3): a tile of 4 x 4 inputs gives 2 x 2 outputs with 16 products where
// the direct way has 36. Inputs B^T d B and outputs A^T m A are sums; the weights' G g G^T was computed when they were
// packed.

#pragma once

#include "gemm/gemm.h"
#include "simd/vector.h"

namespace {

// Rows of B^T: (a - c, b + c, c - b, b - d).
inline void winograd_input_line(Vec a, Vec b, Vec c, Vec d, Vec (&out)[4]) {
  out[0] = a - c;
  out[1] = b + c;
  out[2] = c - b;
  out[3] = b - d;
}

// B^T d B of a vector of channels. `from` is the tile's first pixel; to[16], `position_stride` apart.
inline void winograd_input_tile(const float* from, int64_t pixel, int64_t row, float* to, int64_t position_stride) {
  Vec columns[4][4];
  for (int x = 0; x < 4; ++x)
    winograd_input_line(load(from + x * pixel), load(from + row + x * pixel), load(from + 2 * row + x * pixel),
                        load(from + 3 * row + x * pixel), columns[x]);
  for (int y = 0; y < 4; ++y) {
    Vec line[4];
    winograd_input_line(columns[0][y], columns[1][y], columns[2][y], columns[3][y], line);
    for (int x = 0; x < 4; ++x) store(to + (4 * y + x) * position_stride, line[x]);
  }
}

// A^T m A of a vector of channels: 2 x 2 sums from 16 positions, `position_stride` apart.
inline void winograd_output_tile(const float* from, int64_t position_stride, Vec (&out)[2][2]) {
  Vec rows[2][4];
  for (int x = 0; x < 4; ++x) {
    const Vec m0 = load(from + x * position_stride), m1 = load(from + (4 + x) * position_stride),
              m2 = load(from + (8 + x) * position_stride), m3 = load(from + (12 + x) * position_stride);
    rows[0][x] = m0 + m1 + m2;
    rows[1][x] = m1 - m2 - m3;
  }
  for (int y = 0; y < 2; ++y) {
    out[y][0] = rows[y][0] + rows[y][1] + rows[y][2];
    out[y][1] = rows[y][1] - rows[y][2] - rows[y][3];
  }
}

}  // namespace
