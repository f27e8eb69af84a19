// Matrix products with packed weights: rows of activations times panels of up to 64 outputs.
//
// A panel holds, word of inputs after word, one 4-byte word for each of its outputs; activations are rows of such
// words: a float, or two bfloat16. A tile of a few rows by up to 64 outputs keeps its sums in registers while it runs
// down a panel. What becomes of the sums is the caller's `sink`: bias, GELU, residual, the next layer's layout.

#pragma once

#include "abi/packed_model.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "simd/vector.h"

namespace {

constexpr int kGemmVectors = kLanes == 16 ? 4 : 2;  // of outputs in a tile
constexpr int64_t kWordBlock = 192;                 // inputs' words between two visits of a result

// Rows of a tile whose sums, beside Vectors weights and an activation, fit the registers; rows that are left go by 4, 2
// and 1.
template <int Vectors>
constexpr int kTileRows = kLanes == 16 ? (Vectors == 4 ? 6 : 8) : 6;

// How a frame computes: Values are what lies between the products (attention's operands, too), Words what these take.
template <class V, class W>
struct Products {
  typedef V Value;
  typedef W Word;
};
using Float32Products = Products<float, float>;
using BFloat16Products = Products<BFloat16, BFloat16Pair>;
using Int8Products = Products<BFloat16, Int8Quad>;

template <class P>
constexpr bool kQuantised = false;
template <>
constexpr bool kQuantised<Int8Products> = true;

// Rows of activations, `stride` words apart; bytes have a scale each.
template <class Word>
struct Operand {
  const Word* words;
  int64_t stride;
  const ByteScale* scales;

  Operand from(int64_t row) const { return {words + row * stride, stride, scales ? scales + row : nullptr}; }
};

// A sum of an operand's row as the number that it stands for; bytes' zeros and scales are taken out.
template <class Word>
inline Vec as_numbers(const Operand<Word>&, const fermt::PackedMatrix&, int64_t, int64_t, Vec sum) {
  return sum;
}
inline Vec as_numbers(const Operand<Int8Quad>& a, const fermt::PackedMatrix& matrix, int64_t row, int64_t column,
                      VecInt sum) {
  const ByteScale s = a.scales[row];
  return (as_floats(sum) - s.zero * load(matrix.sums + column)) * (s.scale * load(matrix.scales + column));
}

// The sums of a tile: out[r * Vectors + c] = sum over i of a[r][i] * panel[i][c]. What will be read next is fetched
// from `line` on meanwhile, `line_step` bytes for each word. One copy serves all callers: what they do with the sums
// differs, and is cheap beside making them.
template <int Rows, int Vectors, class Word>
__attribute__((noinline)) void gemm_tile(const Word* a, int64_t stride, const Word* panel, int64_t width, int64_t words,
                                         const char* line, int64_t line_step, typename SumOf<Word>::type* out) {
  product_tile<Rows, Vectors, 1>(
      a, stride, 1, panel, width, words, [=](int r, int c, auto sum) { out[r * Vectors + c] = sum; },
      [=](int64_t i) { __builtin_prefetch(line + i * line_step, 0, 2); });
}

// What will be read after a panel. The panel's first tiles fetch it while they compute, a cache line a word.
struct NextPanel {
  const char* line;
  int64_t bytes;
};

// sink(row, column, sum) for all rows of Vectors vectors of a panel's columns.
template <int Rows, int Vectors, class Word, class Sink>
inline void gemm_rows(const Word* a, int64_t stride, int64_t rows, const Word* panel, int64_t width, int64_t words,
                      NextPanel& next, const Sink& sink) {
  typename SumOf<Word>::type sums[Rows * Vectors];
  for (int64_t first = 0; first < rows;) {
    const int64_t left = rows - first;
    const int count = left >= Rows ? Rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const auto tile = count == Rows ? gemm_tile<Rows, Vectors, Word>
                      : count == 4  ? gemm_tile<4, Vectors, Word>
                      : count == 2  ? gemm_tile<2, Vectors, Word>
                                    : gemm_tile<1, Vectors, Word>;
    const int64_t step = next.bytes > 0 ? 64 : 0;
    tile(a + first * stride, stride, panel, width, words, next.line, step, sums);
    next.line += step * words;
    next.bytes -= step * words;
    FERMT_ROLLED
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < Vectors; ++c) sink(first + r, c * kLanes, sums[r * Vectors + c]);
    first += count;
  }
}

// sink(row, column, sum over words of a[row] * panel[:, column]), a vector of columns at a time, for a panel's columns.
// `after` is what will be read next, as many bytes.
template <class Word, class Sink>
inline void gemm_panel(const Word* a, int64_t stride, int64_t rows, const Word* panel, int64_t width, int64_t words,
                       const Word* after, Sink sink) {
  int64_t column = 0;
  NextPanel next = {reinterpret_cast<const char*>(after), words * width * static_cast<int64_t>(sizeof(Word))};
  const auto from = [&](int64_t first) {
    return [&, first](int64_t row, int64_t c, auto sum) { sink(row, first + c, sum); };
  };
  for (; column + kGemmVectors * kLanes <= width; column += kGemmVectors * kLanes)
    gemm_rows<kTileRows<kGemmVectors>, kGemmVectors>(a, stride, rows, panel + column, width, words, next, from(column));
  if constexpr (kLanes == 16)
    for (; column < width; column += kLanes)
      gemm_rows<kTileRows<1>, 1>(a, stride, rows, panel + column, width, words, next, from(column));
}

inline int64_t panel_width(int64_t outputs, int64_t start) {
  return outputs - start < fermt::kPanel ? outputs - start : fermt::kPanel;
}

// sink(row, column, a[row] @ matrix[:, column]) for all of a matrix, without its bias. Matrices lie in the order in
// which they are used, so what comes next is what lies behind.
template <class Word, class Sink>
inline void gemm(const Operand<Word>& a, int64_t rows, const fermt::PackedMatrix& matrix, Sink sink) {
  const int64_t words = numbers<Word>(matrix.inputs);
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const Word* panel = reinterpret_cast<const Word*>(matrix.panels) + start * words;
    const int64_t width = panel_width(matrix.outputs, start);
    gemm_panel(a.words, a.stride, rows, panel, width, words, panel + words * width,
               [=](int64_t row, int64_t column, auto sum) {
                 sink(row, start + column, as_numbers(a, matrix, row, start + column, sum));
               });
  }
}

// to[row] += a[row] @ matrix + bias. Many inputs are taken in blocks: their part of a panel stays in L1. (Bytes are so
// many to a word that one block does, and their zeros want it so.)
template <class Word>
inline void gemm_add(const Operand<Word>& a, int64_t rows, const fermt::PackedMatrix& matrix, float* to,
                     int64_t to_stride) {
  const int64_t words = numbers<Word>(matrix.inputs);
  const int64_t most = kValues<Word> == 4 ? words : kWordBlock;
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const int64_t width = panel_width(matrix.outputs, start);
    for (int64_t word = 0; word < words; word += most) {
      const int64_t block = words - word < most ? words - word : most;
      const Word* panel = reinterpret_cast<const Word*>(matrix.panels) + start * words + word * width;
      const bool with_bias = word == 0;
      const auto add = [=](int64_t row, int64_t column, auto sum) {
        float* place = to + row * to_stride + start + column;
        Vec more = as_numbers(a, matrix, row, start + column, sum);
        if (with_bias) more += load(matrix.bias + start + column);
        store(place, load(place) + more);
      };
      gemm_panel(a.words + word, a.stride, rows, panel, width, block, panel + block * width, add);
    }
  }
}

}  // namespace
