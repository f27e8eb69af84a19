// Matrix products with packed weights: rows of activations times panels of up to 64 outputs.
//
// A panel holds, word of inputs after word, one 4-byte word for each of its outputs; activations are rows of such
// words: a float, or two bfloat16. A tile of a few rows by up to 64 outputs keeps its sums in registers while it runs
// down a panel. What becomes of the sums is the caller's `sink`: bias, GELU, residual, the next layer's layout.

#pragma once

#include "frame_model.h"
#include "product_kernel.h"
#include "simd.h"

namespace {

constexpr int kGemmVectors = kLanes == 16 ? 4 : 2;  // of outputs in a tile
constexpr int64_t kWordBlock = 192;                 // inputs' words between two visits of a result

// Rows of a tile whose sums, beside Vectors weights and an activation, fit the registers; and what is tried next for
// the rows that are left.
template <int Vectors>
constexpr int kTileRows = kLanes == 16 ? (Vectors == 4 ? 6 : 8) : 6;
constexpr int rows_after(int rows) { return rows > 4 ? 4 : rows / 2; }

// What activations and weights of a frame in T are multiplied as.
template <class T>
struct WordOf {
  typedef float type;
};
template <>
struct WordOf<BFloat16> {
  typedef BFloat16Pair type;
};

template <class T>
constexpr int64_t kValuesPerWord = sizeof(float) / sizeof(T);

template <class T>
inline const typename WordOf<T>::type* words_of(const T* values) {
  return reinterpret_cast<const typename WordOf<T>::type*>(values);
}

// What will be read after a panel. The panel's first tiles fetch it while they compute, a cache line a word.
struct NextPanel {
  const char* line;
  int64_t bytes;
};

template <int Rows, int Vectors, class Word, class Sink>
inline void gemm_rows(const Word* a, int64_t stride, int64_t first, int64_t rows, const Word* panel, int64_t width,
                      int64_t words, NextPanel& next, Sink sink) {
  for (; first + Rows <= rows; first += Rows) {
    const char* line = next.line;
    const int64_t step = next.bytes > 0 ? 64 : 0;
    next.line += step * words;
    next.bytes -= step * words;
    product_tile<Rows, Vectors, 1>(
        a + first * stride, stride, 1, panel, width, words,
        [=](int r, int c, Vec sum) { sink(first + r, c * kLanes, sum); },
        [=](int64_t i) { __builtin_prefetch(line + i * step, 0, 2); });
  }
  if constexpr (Rows > 1) gemm_rows<rows_after(Rows), Vectors>(a, stride, first, rows, panel, width, words, next, sink);
}

// sink(row, column, sum over words of a[row] * panel[:, column]), a vector of columns at a time, for a panel's columns.
// `after` is what will be read next, as many bytes.
template <class Word, class Sink>
inline void gemm_panel(const Word* a, int64_t stride, int64_t rows, const Word* panel, int64_t width, int64_t words,
                       const Word* after, Sink sink) {
  int64_t column = 0;
  NextPanel next = {reinterpret_cast<const char*>(after), words * width * static_cast<int64_t>(sizeof(Word))};
  const auto from = [=](int64_t first) { return [=](int64_t row, int64_t c, Vec sum) { sink(row, first + c, sum); }; };
  for (; column + kGemmVectors * kLanes <= width; column += kGemmVectors * kLanes)
    gemm_rows<kTileRows<kGemmVectors>, kGemmVectors>(a, stride, 0, rows, panel + column, width, words, next,
                                                     from(column));
  if constexpr (kGemmVectors > 2)
    for (; column + 2 * kLanes <= width; column += 2 * kLanes)
      gemm_rows<kTileRows<2>, 2>(a, stride, 0, rows, panel + column, width, words, next, from(column));
  if constexpr (kLanes == 16)
    for (; column < width; column += kLanes)
      gemm_rows<kTileRows<1>, 1>(a, stride, 0, rows, panel + column, width, words, next, from(column));
}

inline int64_t panel_width(int64_t outputs, int64_t start) {
  return outputs - start < fermt::kPanel ? outputs - start : fermt::kPanel;
}

// `rows` rows of T times all of a matrix, sums over all of its inputs. Matrices lie in the order in which they are
// used, so what comes next is what lies behind.
template <class T, class Sink>
inline void gemm(const T* a, int64_t stride, int64_t rows, const fermt::PackedMatrix& matrix, Sink sink) {
  using Word = typename WordOf<T>::type;
  const int64_t words = (matrix.inputs + kValuesPerWord<T> - 1) / kValuesPerWord<T>;
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const Word* panel = reinterpret_cast<const Word*>(matrix.panels) + start * words;
    const int64_t width = panel_width(matrix.outputs, start);
    gemm_panel(words_of(a), stride / kValuesPerWord<T>, rows, panel, width, words, panel + words * width,
               [=](int64_t row, int64_t column, Vec sum) { sink(row, start + column, sum); });
  }
}

// to[row] += a[row] @ matrix + bias. Many inputs are taken in blocks: their part of a panel stays in L1.
template <class T>
inline void gemm_add(const T* a, int64_t stride, int64_t rows, const fermt::PackedMatrix& matrix, float* to,
                     int64_t to_stride) {
  using Word = typename WordOf<T>::type;
  const int64_t words = (matrix.inputs + kValuesPerWord<T> - 1) / kValuesPerWord<T>;
  for (int64_t start = 0; start < matrix.outputs; start += fermt::kPanel) {
    const int64_t width = panel_width(matrix.outputs, start);
    for (int64_t word = 0; word < words; word += kWordBlock) {
      const int64_t block = words - word < kWordBlock ? words - word : kWordBlock;
      const Word* panel = reinterpret_cast<const Word*>(matrix.panels) + start * words + word * width;
      const float* bias = matrix.bias + start;
      const auto add = [=](int64_t row, int64_t column, Vec sum) {
        float* place = to + row * to_stride + start + column;
        if (word == 0) sum += load(bias + column);
        store(place, load(place) + sum);
      };
      gemm_panel(words_of(a) + word, stride / kValuesPerWord<T>, rows, panel, width, block, panel + block * width, add);
    }
  }
}

}  // namespace
