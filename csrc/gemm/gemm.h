// Matrix products with packed weights: rows of activations times panels of up to 64 outputs.
//
// Operands are packed along the reduction dimension K into 4-byte elements: one float, two bfloat16, two int16 or four
// int8. A panel is K-major: for each packed k, one element for each of its outputs. A tile of a few rows by up to 64
// outputs keeps its sums in registers while it runs down a panel; the caller's `epilogue` takes the sums: bias, GELU,
// residual, layout. Where the instruction set cannot multiply what the model stores, gemm/strip.h widens it first.

#pragma once

#include "abi/packed_model.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "gemm/strip.h"
#include "gemm/tiles.h"
#include "simd/vector.h"

namespace {

constexpr int64_t kBlockK = 192;  // packed k of a count_k: its part of a panel stays in L1

// Rows of a tile whose sums fit the registers beside Vectors weights and an activation. Remaining rows go by 4, 2
// and 1.
template <int Vectors>
constexpr int kTileRows = kLanes == 16 ? (Vectors == 4 ? 6 : 8) : 6;

// The precision of a frame: Value is the type of activations between products (and of attention's operands), Stored the
// packed type of the model's weights, Operand the one that products multiply.
template <class V, class S, class O>
struct Precision {
  typedef V Value;
  typedef S Stored;
  typedef O Operand;
};
#if defined(__AVX512BF16__)
using NarrowValue = BFloat16;
using BFloat16Precision = Precision<BFloat16, BFloat16Pair, BFloat16Pair>;
#else
using NarrowValue = float;  // rounding activations would cost more than it saves
using BFloat16Precision = Precision<float, BFloat16Pair, float>;
#endif
using Float32Precision = Precision<float, float, float>;
using Int8Precision = Precision<NarrowValue, Int8Quad, ByteOperand>;

template <class P>
constexpr bool kQuantized = false;
template <>
constexpr bool kQuantized<Int8Precision> = true;

// Packed rows of activations, `stride` packed elements apart; rows of int8 have a scale and a zero point each.
template <class Packed>
struct PackedRows {
  const Packed* data;
  int64_t stride;
  const QuantParams* quant;

  PackedRows from_row(int64_t row) const { return {data + row * stride, stride, quant ? quant + row : nullptr}; }
};

// A sum as a float: of int8, with the zero point's share subtracted and scaled.
template <class Packed>
inline Vec dequantize(const PackedRows<Packed>&, const fermt::PackedMatrix&, int64_t, int64_t, Vec sum) {
  return sum;
}
inline Vec dequantize(const PackedRows<ByteOperand>& a, const fermt::PackedMatrix& matrix, int64_t row, int64_t column,
                      VecInt sum) {
  const QuantParams q = a.quant[row];
  const Vec whole = to_floats(of_unsigned(sum, matrix.sums + column));
  return (whole - q.zero * load(matrix.sums + column)) * (q.scale * load(matrix.scales + column));
}

// The sums of a tile: out[r * Vectors + c] = sum over k of a[r][k] * panel[k][c]. Prefetches from `line` on,
// `line_step` bytes for each k. Not inlined: one copy serves all epilogues, which are cheap beside it.
template <int Rows, int Vectors, class Packed>
__attribute__((noinline)) void gemm_tile(const Packed* a, int64_t stride, const Packed* panel, int64_t width,
                                         int64_t packed_k, const char* line, int64_t line_step,
                                         typename SumOf<Packed>::type* out) {
  product_tile<Rows, Vectors, 1>(
      a, stride, 1, panel, width, packed_k, [=](int r, int c, auto sum) { out[r * Vectors + c] = sum; },
      [=](int64_t i) { __builtin_prefetch(line + i * line_step, 0, 2); });
}

// What will be read after some columns of a panel: cache lines, `step` bytes apart. The first tiles prefetch them, one
// for each k.
struct NextLines {
  const char* line;
  int64_t step, count;
};

// epilogue(row, column, sum) for all rows of Vectors vectors of a panel's columns.
template <int Rows, int Vectors, class Packed, class Epilogue>
inline void gemm_rows(const Packed* a, int64_t stride, int64_t rows, const Packed* panel, int64_t width,
                      int64_t packed_k, NextLines& next, const Epilogue& epilogue) {
  typename SumOf<Packed>::type sums[Rows * Vectors];
  for (int64_t first = 0; first < rows;) {
    const int64_t left = rows - first;
    const int count = left >= Rows ? Rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const auto tile = count == Rows ? gemm_tile<Rows, Vectors, Packed>
                      : count == 4  ? gemm_tile<4, Vectors, Packed>
                      : count == 2  ? gemm_tile<2, Vectors, Packed>
                                    : gemm_tile<1, Vectors, Packed>;
    const int64_t step = next.count > 0 ? next.step : 0;
    tile(a + first * stride, stride, panel, width, packed_k, next.line, step, sums);
    next.line += step * packed_k;
    next.count -= packed_k;
    FERMT_ROLLED
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < Vectors; ++c) epilogue(first + r, c * kLanes, sums[r * Vectors + c]);
    first += count;
  }
}

// epilogue(row, column, sum over k of a[row][k] * panel[k][column]), a vector of columns at a time, for all of a panel.
// `packed_k` counts operands. `after` is what will be read next, as many bytes as the panel has; `strip` is a buffer
// for strip_size(packed_k) operands. Needs a TileScope around it.
template <class Packed, class Stored, class Epilogue>
inline void gemm_panel(const Packed* a, int64_t stride, int64_t rows, const Stored* panel, int64_t width,
                       int64_t packed_k, const Stored* after, Packed* strip, Epilogue epilogue) {
  if constexpr (kTiled<Packed>) return tile_panel(a, stride, rows, panel, width, packed_k, after, epilogue);
  constexpr int64_t kLine = 64 / sizeof(Stored);
  const int64_t stored_k = packed_k / kWidening<Stored, Packed>;
  NextLines next = {reinterpret_cast<const char*>(after), 64, stored_k * width / kLine};
  const auto take = [&](auto vectors, int64_t column) {
    constexpr int kVectors = decltype(vectors)::value;
    constexpr int64_t kColumns = kVectors * kLanes;
    const auto shifted = [&](int64_t row, int64_t c, auto sum) { epilogue(row, column + c, sum); };
    if (is_in_place<Stored, Packed, kColumns>(width)) {
      const Packed* columns = reinterpret_cast<const Packed*>(panel + column);
      gemm_rows<kTileRows<kVectors>, kVectors>(a, stride, rows, columns, width, packed_k, next, shifted);
      return;
    }
    pack_strip<kColumns>(panel + column, width, stored_k, strip);
    if (kColumns < width)
      next = {reinterpret_cast<const char*>(column + kColumns < width ? panel + column + kColumns : after),
              width * static_cast<int64_t>(sizeof(Stored)), stored_k};
    gemm_rows<kTileRows<kVectors>, kVectors>(a, stride, rows, strip, kColumns, packed_k, next, shifted);
  };
  int64_t column = 0;
  for (; column + kStrip <= width; column += kStrip) take(Constant<kGemmVectors>{}, column);
  if constexpr (kLanes == 16)
    for (; column < width; column += kLanes) take(Constant<1>{}, column);
}

inline int64_t panel_width(int64_t outputs, int64_t start) {
  return outputs - start < fermt::kPanel ? outputs - start : fermt::kPanel;
}

// Operands of a row that a matrix is multiplied by.
template <class Stored, class Packed>
inline int64_t operand_count(const fermt::PackedMatrix& matrix) {
  return packed_count<Stored>(matrix.inputs) * kWidening<Stored, Packed>;
}

// epilogue(row, column, a[row] @ matrix[:, column]) for a whole matrix, without its bias. A model's matrices are stored
// in the order in which they are used, so what follows in memory is prefetched.
template <class Stored, class Packed, class Epilogue>
inline void gemm(const PackedRows<Packed>& a, int64_t rows, const fermt::PackedMatrix& matrix, Packed* strip,
                 Epilogue epilogue) {
  const int64_t stored_k = packed_count<Stored>(matrix.inputs), packed_k = operand_count<Stored, Packed>(matrix);
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const Stored* panel = reinterpret_cast<const Stored*>(matrix.panels) + start * stored_k;
    const int64_t width = panel_width(matrix.outputs, start);
    gemm_panel(a.data, a.stride, rows, panel, width, packed_k, panel + stored_k * width, strip,
               [=](int64_t row, int64_t column, auto sum) {
                 epilogue(row, start + column, dequantize(a, matrix, row, start + column, sum));
               });
  }
}

// The operands of k that gemm_add takes at once: for int8 all of them, its zero point is subtracted once.
template <class Packed>
constexpr bool kWholeK = false;
template <>
constexpr bool kWholeK<ByteOperand> = true;

// to[row] += a[row] @ matrix + bias, in blocks of K.
template <class Stored, class Packed>
inline void gemm_add(const PackedRows<Packed>& a, int64_t rows, const fermt::PackedMatrix& matrix, Packed* strip,
                     float* to, int64_t to_stride) {
  constexpr int64_t kWide = kWidening<Stored, Packed>;
  const int64_t packed_k = operand_count<Stored, Packed>(matrix);
  const int64_t block_k = kWholeK<Packed> ? packed_k : kBlockK;
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const int64_t width = panel_width(matrix.outputs, start);
    for (int64_t k = 0; k < packed_k; k += block_k) {
      const int64_t count_k = packed_k - k < block_k ? packed_k - k : block_k;
      const Stored* panel =
          reinterpret_cast<const Stored*>(matrix.panels) + start * (packed_k / kWide) + k / kWide * width;
      const bool with_bias = k == 0;
      const auto add = [=](int64_t row, int64_t column, auto sum) {
        float* out = to + row * to_stride + start + column;
        Vec value = dequantize(a, matrix, row, start + column, sum);
        if (with_bias) value += load(matrix.bias + start + column);
        store(out, load(out) + value);
      };
      gemm_panel(a.data + k, a.stride, rows, panel, width, count_k, panel + count_k / kWide * width, strip, add);
    }
  }
}

}  // namespace
