// A linear layer, forward and backward, with a GELU before it or none: three products of the same kind.
//
//   out = f(x) W^T + bias       rows of f(x) times panels of W's rows
//   grad_x = grad_out W f'(x)   rows of grad_out times panels of W's columns
//   grad_W = grad_out^T f(x)    columns of grad_out times columns of f(x), over blocks of tokens
//
// Panels are packed once a call and read by all threads; an item takes some rows of the result. Values are converted
// where they are packed, and sums where they are stored, so x and W may be of other dtypes than the product.

#pragma once

#include "abi/parallel.h"
#include "gemm/gemm.h"
#include "gemm/matrix_view.h"

namespace {

constexpr int64_t kLinearRows = 96;   // of a result, in an item
constexpr int64_t kLinearItems = 8;   // at least so many where there are rows enough, for as many threads
constexpr int64_t kTokenBlock = 128;  // Numbers of tokens between two visits of a weight's gradient
constexpr int64_t kWidestItem = 192;  // columns of a weight's gradient in an item
constexpr int64_t kColumnStep = 16;   // what a panel's width is a multiple of
constexpr int64_t kNarrowBlock = 16;  // words between two visits of a result of one step: eager sums such in many parts

// Panels of a matrix: `reduced` Numbers deep, `columns` wide, of which a panel has up to fermt::kPanel.
template <class Number>
struct Panels {
  Number* data;
  int64_t reduced, columns;

  int64_t count() const { return (columns + fermt::kPanel - 1) / fermt::kPanel; }
  int64_t width(int64_t panel) const { return round_up(panel_width(columns, panel * fermt::kPanel), kColumnStep); }
  Number* at(int64_t panel) const { return data + panel * fermt::kPanel * reduced; }
  float* behind() const { return reinterpret_cast<float*>(data + reduced * round_up(columns, kColumnStep)); }
};

// Panels that pack(start, columns, width, to) fills, in the calling thread's memory; without data where there is none.
// Behind them is room for a float a column.
template <class Number, class Pack>
fermt_status make_panels(fermt_parallel_for run, int64_t reduced, int64_t columns, Pack&& pack, Panels<Number>* made) {
  const int64_t width = round_up(columns, kColumnStep);
  const size_t bytes = static_cast<size_t>((reduced + 1) * width) * sizeof(Number);
  *made = {static_cast<Number*>(fermt::thread_scratch(bytes, fermt::kCallScratch)), reduced, columns};
  if (!made->data) return FERMT_OUT_OF_MEMORY;
  return fermt::run_items(run, made->count(), [&](int64_t p) {
    const int64_t start = p * fermt::kPanel;
    pack(start, panel_width(columns, start), made->width(p), made->at(p));
    return FERMT_OK;
  });
}

// finish(row, column, a[row] @ panel). Blocks of words keep float32's sums short, and their part of a panel in L1; what
// they give waits in `sums`, kPanel floats a row.
template <class Number, class Finish>
inline void multiply_panel(const Operand<Number>& a, int64_t rows, const Panels<Number>& panels, int64_t p, float* sums,
                           Finish finish) {
  const int64_t width = panels.width(p), most = width > kColumnStep ? kWordBlock : kNarrowBlock;
  for (int64_t word = 0; word < panels.reduced; word += most) {
    const bool is_first = word == 0, is_last = panels.reduced - word <= most;
    const int64_t block = is_last ? panels.reduced - word : most;
    const Number* panel = panels.at(p) + word * width;
    gemm_panel(a.words + word, a.stride, rows, panel, width, block, panel + block * width,
               [=](int64_t row, int64_t column, Vec sum) {
                 float* to = sums + row * fermt::kPanel + column;
                 if (!is_first) sum += load(to);
                 if (is_last)
                   finish(row, column, sum);
                 else
                   store(to, sum);
               });
  }
}

inline int64_t rows_of_item(int64_t rows) {
  const int64_t share = round_up((rows + kLinearItems - 1) / kLinearItems, kTileRows<kGemmVectors>);
  return share > 0 && share < kLinearRows ? share : kLinearRows;
}

// For every item of rows: operand(first, rows, packed, beside) gives them, and finish(row, column, count, sum, kept)
// takes each sum. `beside` is a float for each of the item's sums, where that is wanted, and `kept` a sum's own.
template <class Number, class Rows, class Finish>
fermt_status multiply(fermt_parallel_for run, int64_t rows, const Panels<Number>& panels, bool wanted, Rows&& operand,
                      Finish finish) {
  const int64_t step = rows_of_item(rows), stride = wanted ? round_up(panels.columns, kLanes) : 0;
  return fermt::run_items(run, (rows + step - 1) / step, [&](int64_t item) {
    const int64_t first = item * step, count = rows - first < step ? rows - first : step;
    fermt::Carver sizes;
    sizes.floats(step * fermt::kPanel), sizes.floats(step * stride), sizes.floats(step * panels.reduced);
    fermt::Carver carver{static_cast<char*>(fermt::thread_scratch(sizes.used, fermt::kItemScratch))};
    if (!carver.base) return FERMT_OUT_OF_MEMORY;
    float *sums = carver.floats(step * fermt::kPanel), *beside = carver.floats(step * stride);
    const Operand<Number> a = operand(first, count, carve<Number>(carver, step * panels.reduced), beside);
    for (int64_t p = 0; p < panels.count(); ++p) {
      const int64_t start = p * fermt::kPanel, wide = panel_width(panels.columns, start);
      multiply_panel(a, count, panels, p, sums, [=](int64_t row, int64_t column, Vec sum) {
        if (column < wide)
          finish(first + row, start + column, wide - column, sum, beside + row * stride + start + column);
      });
    }
    return FERMT_OK;
  });
}

template <class Number>
fermt_status linear_forward_as(const fermt_linear_forward_args& args) {
  const fermt_linear_shape s = args.shape;
  const Values x = {args.x, s.x_dtype, s.x_stride}, weight = {args.weight, s.weight_dtype, s.inputs};
  Panels<Number> panels;
  const fermt_status status = make_panels(
      args.parallel_for, numbers<Number>(s.inputs), s.outputs,
      [&](int64_t start, int64_t columns, int64_t width, Number* to) {
        pack_rows_as_columns(weight.from(start, 0), columns, s.inputs, width, to);
      },
      &panels);
  if (status) return status;
  float* bias = panels.behind();
  for (int64_t c = 0; c < s.outputs; c += kLanes)
    store(bias + c, args.bias ? load_some(Values{args.bias, s.weight_dtype, 0}, c, s.outputs - c) : Vec{});
  const auto operand = [&](int64_t first, int64_t rows, Number* packed, float*) -> Operand<Number> {
    if (!s.gelu) return operand_rows(x.from(first, 0), rows, s.inputs, packed);
    for (int64_t row = 0; row < rows; ++row)
      pack_gelu_row(x.from(first + row, 0), s.inputs, packed + row * panels.reduced);
    return {packed, panels.reduced, nullptr};
  };
  return multiply(args.parallel_for, s.rows, panels, false, operand,
                  [bias, out = args.out, dtype = s.out_dtype, outputs = s.outputs](
                      int64_t row, int64_t column, int64_t count, Vec sum, const float*) {
                    store_some(sum + load(bias + column), out, dtype, row * outputs + column, count);
                  });
}

// grad_x, and GELU(x) where there is one.
template <class Number>
fermt_status linear_grad_x(const fermt_linear_backward_args& args) {
  const fermt_linear_shape s = args.shape;
  const Values x = {args.x, s.x_dtype, s.x_stride}, weight = {args.weight, s.weight_dtype, s.inputs},
               grad_out = {args.grad_out, s.out_dtype, args.grad_out_stride},
               activated = {args.activated, s.dtype, s.inputs};
  Panels<Number> panels;
  const fermt_status status = make_panels(
      args.parallel_for, numbers<Number>(s.outputs), s.inputs,
      [&](int64_t start, int64_t columns, int64_t width, Number* to) {
        pack_columns_of(weight.from(0, start), s.outputs, columns, width, to);
      },
      &panels);
  if (status) return status;
  const auto operand = [&](int64_t first, int64_t rows, Number* packed, float* derivatives) {
    for (int64_t row = 0; s.gelu && row < rows; ++row)
      gelu_row(x.from(first + row, 0), s.inputs, s.dtype, const_cast<void*>(activated.from(first + row, 0).data),
               derivatives + row * round_up(s.inputs, kLanes));
    return operand_rows(grad_out.from(first, 0), rows, s.outputs, packed);
  };
  return multiply(args.parallel_for, s.rows, panels, s.gelu, operand,
                  [grad_x = args.grad_x, dtype = s.x_dtype, gelu = s.gelu != 0, inputs = s.inputs](
                      int64_t row, int64_t column, int64_t count, Vec sum, const float* derivative) {
                    if (gelu) sum *= load(derivative);
                    store_some(sum, grad_x, dtype, row * inputs + column, count);
                  });
}

// sums[r][c] += columns of a times columns of b over `words` Numbers of tokens; a is kLinearRows wide.
template <int Rows, int Vectors, class Number>
__attribute__((noinline)) void add_outer_tile(const Number* a, const Number* b, int64_t width, int64_t words,
                                              float* sums, int64_t stride) {
  product_tile<Rows, Vectors, 1>(
      a, 1, kLinearRows, b, width, words,
      [=](int r, int c, Vec sum) {
        float* to = sums + r * stride + c * kLanes;
        store(to, load(to) + sum);
      },
      [](int64_t) {});
}

template <int Rows, int Vectors, class Number>
inline void add_outer_rows(const Number* a, int64_t rows, const Number* b, int64_t width, int64_t words, float* sums,
                           int64_t stride) {
  for (int64_t first = 0; first < rows;) {
    const int64_t left = rows - first;
    const int count = left >= Rows ? Rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const auto tile = count == Rows ? add_outer_tile<Rows, Vectors, Number>
                      : count == 4  ? add_outer_tile<4, Vectors, Number>
                      : count == 2  ? add_outer_tile<2, Vectors, Number>
                                    : add_outer_tile<1, Vectors, Number>;
    tile(a + first, b, width, words, sums + first * stride, stride);
    first += count;
  }
}

template <class Number>
inline void add_outer(const Number* a, int64_t rows, const Number* b, int64_t width, int64_t words, float* sums,
                      int64_t stride) {
  int64_t column = 0;
  for (; column + kGemmVectors * kLanes <= width; column += kGemmVectors * kLanes)
    add_outer_rows<kTileRows<kGemmVectors>, kGemmVectors>(a, rows, b + column, width, words, sums + column, stride);
  if constexpr (kLanes == 16)
    for (; column < width; column += kLanes)
      add_outer_rows<kTileRows<1>, 1>(a, rows, b + column, width, words, sums + column, stride);
}

// total[c] += the sum of column c over `count` rows, made of four.
inline void add_columns(const Values& values, int64_t count, int64_t columns, float* total) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec sums[4] = {};
    for (int64_t row = 0; row < count; ++row) sums[row % 4] += load_some(values, row * values.stride + c, columns - c);
    store(total + c, load(total + c) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
}

// grad_weight and grad_bias, of inputs `f` = f(x).
template <class Number>
fermt_status linear_grad_weight(const fermt_linear_backward_args& args, const Values& f) {
  const fermt_linear_shape s = args.shape;
  const Values grad_out = {args.grad_out, s.out_dtype, args.grad_out_stride};
  const int64_t down = (s.outputs + kLinearRows - 1) / kLinearRows;
  const bool few = down * ((s.inputs + kWidestItem - 1) / kWidestItem) < kLinearItems;
  const int64_t wide = few ? fermt::kPanel : kWidestItem, across = (s.inputs + wide - 1) / wide;
  return fermt::run_items(args.parallel_for, down * across, [&](int64_t item) {
    const int64_t row = item / across * kLinearRows, column = item % across * wide;
    const int64_t rows = s.outputs - row < kLinearRows ? s.outputs - row : kLinearRows;
    const int64_t columns = s.inputs - column < wide ? s.inputs - column : wide;
    fermt::Carver sizes;
    sizes.floats(kLinearRows * (wide + 1)), sizes.floats(kTokenBlock * (kLinearRows + wide));
    fermt::Carver carver{static_cast<char*>(fermt::thread_scratch(sizes.used, fermt::kItemScratch))};
    if (!carver.base) return FERMT_OUT_OF_MEMORY;
    float *sums = carver.floats(kLinearRows * (wide + 1)), *bias_sums = sums + kLinearRows * wide;
    Number *a = carve<Number>(carver, kTokenBlock * (kLinearRows + wide)), *b = a + kTokenBlock * kLinearRows;
    memset(sums, 0, static_cast<size_t>(kLinearRows * (wide + 1)) * sizeof(float));
    const int64_t most = kTokenBlock * kValues<Number>;
    const bool with_bias = column == 0 && args.grad_bias;
    for (int64_t token = 0; token < s.rows; token += most) {
      const int64_t tokens = s.rows - token < most ? s.rows - token : most, words = numbers<Number>(tokens);
      const Values grads = grad_out.from(token, row);
      pack_columns_of(grads, tokens, rows, kLinearRows, a);
      for (int64_t c = 0; c < columns; c += fermt::kPanel) {
        const int64_t some = panel_width(columns, c), width = round_up(some, kColumnStep);
        pack_columns_of(f.from(token, column + c), tokens, some, width, b + c * kTokenBlock);
        add_outer(a, rows, b + c * kTokenBlock, width, words, sums + c, wide);
      }
      if (with_bias) add_columns(grads, tokens, rows, bias_sums);
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; c += kLanes)
        store_some(load(sums + r * wide + c), args.grad_weight, s.weight_dtype, (row + r) * s.inputs + column + c,
                   columns - c);
    for (int64_t r = 0; with_bias && r < rows; r += kLanes)
      store_some(load(bias_sums + r), args.grad_bias, s.weight_dtype, row + r, rows - r);
    return FERMT_OK;
  });
}

// x in the product's dtype: a block of it is packed once for each block of the weight's rows.
inline fermt_status convert(const fermt_linear_backward_args& args, const Values& x, const Values& to) {
  const int64_t step = rows_of_item(args.shape.rows);
  return fermt::run_items(args.parallel_for, (args.shape.rows + step - 1) / step, [&](int64_t item) {
    for (int64_t row = item * step; row < (item + 1) * step && row < args.shape.rows; ++row)
      for (int64_t i = 0; i < args.shape.inputs; i += kLanes)
        store_some(load_some(x, row * x.stride + i, args.shape.inputs - i), const_cast<void*>(to.data), to.dtype,
                   row * to.stride + i, args.shape.inputs - i);
    return FERMT_OK;
  });
}

template <class Number>
fermt_status linear_backward_as(const fermt_linear_backward_args& args) {
  const fermt_linear_shape& s = args.shape;
  if (args.grad_x)
    if (const fermt_status status = linear_grad_x<Number>(args)) return status;
  if (!args.grad_weight) return FERMT_OK;
  const Values x = {args.x, s.x_dtype, s.x_stride}, activated = {args.activated, s.dtype, s.inputs};
  const bool same = s.x_dtype == s.dtype;
  if (!s.gelu && !same)
    if (const fermt_status status = convert(args, x, activated)) return status;
  return linear_grad_weight<Number>(args, s.gelu || !same ? activated : x);
}

}  // namespace
