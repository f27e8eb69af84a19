// A linear layer, forward and backward, optionally with a GELU before it: three matrix products.
//
//   out = f(x) W^T + bias       rows of f(x) times panels of W's rows
//   grad_x = grad_out W f'(x)   rows of grad_out times panels of W's columns
//   grad_W = grad_out^T f(x)    columns of grad_out times columns of f(x), over blocks of tokens
//
// Panels are packed once for each call and read by all threads; a work item computes some rows of the result. Operands
// are converted when they are packed, and results when they are stored, so x and W may have other dtypes than the
// product.

#pragma once

#include "abi/arena.h"
#include "abi/parallel.h"
#include "gemm/gemm.h"
#include "gemm/matrix_view.h"

namespace {

constexpr int64_t kItemRows = 96;         // rows of the result in a work item
constexpr int64_t kMinItems = 8;          // work items: with fewer rows they are smaller, for as many threads
constexpr int64_t kTokenBlock = 128;      // packed tokens whose sums are added to a weight's gradient at once
constexpr int64_t kMaxItemColumns = 192;  // columns of a weight's gradient of a work item
constexpr int64_t kPanelColumns = kLanes == 16 ? fermt::kPanel : kStrip;  // so that a tile reads it in place
constexpr int64_t kColumnAlign = kLanes == 16 ? 16 : kStrip;              // of a panel's width
constexpr int64_t kNarrow = 16;        // columns that are fewer than a tile of the widest vectors
constexpr int64_t kNarrowBlockK = 16;  // block of K for them: PyTorch's sums are as short

// A matrix in panels of up to kPanelColumns columns, packed_k packed elements deep. Behind them: one float for each
// column.
template <class Packed>
struct Panels {
  Packed* data;
  int64_t packed_k, columns;

  int64_t count() const { return (columns + kPanelColumns - 1) / kPanelColumns; }
  int64_t columns_of(int64_t panel) const {
    const int64_t left = columns - panel * kPanelColumns;
    return left < kPanelColumns ? left : kPanelColumns;
  }
  int64_t width(int64_t panel) const { return round_up(columns_of(panel), kColumnAlign); }
  Packed* at(int64_t panel) const { return data + panel * kPanelColumns * packed_k; }
  // On any instruction set those of the last panel of fermt::kPanel columns.
  bool is_narrow(int64_t panel) const {
    return panel_width(columns, panel * kPanelColumns / fermt::kPanel * fermt::kPanel) <= kNarrow;
  }
  float* column_floats() const { return reinterpret_cast<float*>(data + packed_k * round_up(columns, kColumnAlign)); }
};

// Allocates panels in the calling thread's scratch memory and fills them by pack(start, columns, width, to), in
// parallel.
template <class Packed, class Pack>
fermt_status pack_panels(fermt_parallel_for run, int64_t packed_k, int64_t columns, Pack&& pack,
                         Panels<Packed>* panels) {
  const int64_t width = round_up(columns, kColumnAlign);
  const size_t bytes = static_cast<size_t>((packed_k + 1) * width) * sizeof(Packed);
  *panels = {static_cast<Packed*>(fermt::thread_scratch(bytes, fermt::kCallScratch)), packed_k, columns};
  if (!panels->data) return FERMT_OUT_OF_MEMORY;
  return fermt::run_items(run, panels->count(), [&](int64_t p) {
    pack(p * kPanelColumns, panels->columns_of(p), panels->width(p), panels->at(p));
    return FERMT_OK;
  });
}

// epilogue(row, column, a[row] @ panel). Blocks of K keep float32's sums short and their part of a panel in L1; partial
// sums are kept in `sums`, kPanelColumns floats for each row.
template <class Packed, class Epilogue>
inline void multiply_panel(const PackedRows<Packed>& a, int64_t rows, const Panels<Packed>& panels, int64_t p,
                           float* sums, Epilogue epilogue) {
  const int64_t width = panels.width(p), block_k = panels.is_narrow(p) ? kNarrowBlockK : kBlockK;
  for (int64_t k = 0; k < panels.packed_k; k += block_k) {
    const bool is_first = k == 0, is_last = panels.packed_k - k <= block_k;
    const int64_t block = is_last ? panels.packed_k - k : block_k;
    const Packed* panel = panels.at(p) + k * width;
    gemm_panel(a.data + k, a.stride, rows, panel, width, block, panel + block * width, static_cast<Packed*>(nullptr),
               [=](int64_t row, int64_t column, Vec sum) {
                 float* to = sums + row * kPanelColumns + column;
                 if (!is_first) sum += load(to);
                 if (is_last)
                   epilogue(row, column, sum);
                 else
                   store(to, sum);
               });
  }
}

inline int64_t rows_per_item(int64_t rows) {
  const int64_t rows_per_thread = round_up((rows + kMinItems - 1) / kMinItems, kTileRows<kGemmVectors>);
  return rows_per_thread > 0 && rows_per_thread < kItemRows ? rows_per_thread : kItemRows;
}

// One product on the caller's threads. For each block of rows, operand(first, rows, packed, aux) gives the packed rows,
// and epilogue(row, column, sum, aux) takes each vector of sums. With `with_aux`, there is an auxiliary float
// for each sum, which operand fills: `aux` is the block's buffer, or the pointer to a vector's own.
template <class Packed, class Rows, class Epilogue>
fermt_status multiply(fermt_parallel_for run, int64_t rows, const Panels<Packed>& panels, bool with_aux, Rows&& operand,
                      Epilogue epilogue) {
  const int64_t step = rows_per_item(rows), aux_stride = with_aux ? round_up(panels.columns, kLanes) : 0;
  return fermt::run_items(run, (rows + step - 1) / step, [&](int64_t item) {
    const int64_t first = item * step, count = rows - first < step ? rows - first : step;
    Arena sizes;
    sizes.floats(step * kPanelColumns), sizes.floats(step * aux_stride), sizes.floats(step * panels.packed_k);
    Arena arena{static_cast<char*>(fermt::thread_scratch(sizes.used, fermt::kItemScratch))};
    if (!arena.base) return FERMT_OUT_OF_MEMORY;
    const TileScope tiles;
    float *sums = arena.floats(step * kPanelColumns), *aux = arena.floats(step * aux_stride);
    const PackedRows<Packed> a = operand(first, count, allocate<Packed>(arena, step * panels.packed_k), aux);
    for (int64_t p = 0; p < panels.count(); ++p) {
      const int64_t start = p * kPanelColumns, columns = panels.columns_of(p);
      multiply_panel(a, count, panels, p, sums, [=](int64_t row, int64_t column, Vec sum) {
        if (column < columns) epilogue(first + row, start + column, sum, aux + row * aux_stride + start + column);
      });
    }
    return FERMT_OK;
  });
}

// Stores vectors of a result, row-major, of a dtype known at run time. Of floats it fetches the lines of the next tile
// first: a result is new memory, and a tile is long enough for it to arrive.
struct ResultWriter {
  void* data;
  int64_t dtype, columns;
  bool whole_floats;  // rows are whole vectors of floats

  ResultWriter(void* to, int64_t of_dtype, int64_t count)
      : data(to), dtype(of_dtype), columns(count), whole_floats(of_dtype == FERMT_FLOAT32 && count % kLanes == 0) {}
  void write(Vec v, int64_t row, int64_t column) const {
    if (!whole_floats) return store_partial(v, data, dtype, row * columns + column, columns - column);
    float* to = static_cast<float*>(data) + row * columns + column;
    __builtin_prefetch(to + kTileRows<kGemmVectors> * columns, 1, 3);
    store(to, v);
  }
};

template <class Packed>
fermt_status linear_forward_as(const fermt_linear_forward_args& args) {
  const fermt_linear_shape s = args.shape;
  const MatrixView x = {args.x, s.x_dtype, s.x_stride}, weight = {args.weight, s.weight_dtype, s.inputs};
  Panels<Packed> panels;
  const fermt_status status = pack_panels(
      args.parallel_for, packed_count<Packed>(s.inputs), s.outputs,
      [&](int64_t start, int64_t columns, int64_t width, Packed* to) {
        pack_rows_as_columns(weight.block(start, 0), columns, s.inputs, width, to);
      },
      &panels);
  if (status) return status;
  float* bias = panels.column_floats();
  for (int64_t c = 0; c < s.outputs; c += kLanes)
    store(bias + c, args.bias ? load_partial(MatrixView{args.bias, s.weight_dtype, 0}, c, s.outputs - c) : Vec{});
  const auto operand = [&](int64_t first, int64_t rows, Packed* packed, float*) -> PackedRows<Packed> {
    if (!s.gelu) return packed_rows(x.block(first, 0), rows, s.inputs, packed);
    for (int64_t row = 0; row < rows; ++row)
      pack_gelu_row(x.block(first + row, 0), s.inputs, packed + row * panels.packed_k);
    return {packed, panels.packed_k, nullptr};
  };
  return multiply(
      args.parallel_for, s.rows, panels, false, operand,
      [bias, out = ResultWriter(args.out, s.out_dtype, s.outputs)](int64_t row, int64_t column, Vec sum, const float*) {
        out.write(sum + load(bias + column), row, column);
      });
}

// grad_x, and GELU(x) into `activated`.
template <class Packed>
fermt_status linear_grad_x(const fermt_linear_backward_args& args) {
  const fermt_linear_shape s = args.shape;
  const MatrixView x = {args.x, s.x_dtype, s.x_stride}, weight = {args.weight, s.weight_dtype, s.inputs},
                   grad_out = {args.grad_out, s.out_dtype, args.grad_out_stride},
                   activated = {args.activated, s.dtype, s.inputs};
  Panels<Packed> panels;
  const fermt_status status = pack_panels(
      args.parallel_for, packed_count<Packed>(s.outputs), s.inputs,
      [&](int64_t start, int64_t columns, int64_t width, Packed* to) {
        pack_columns_of(weight.block(0, start), s.outputs, columns, width, to);
      },
      &panels);
  if (status) return status;
  const auto operand = [&](int64_t first, int64_t rows, Packed* packed, float* derivatives) {
    for (int64_t row = 0; s.gelu && row < rows; ++row)
      gelu_row(x.block(first + row, 0), s.inputs, s.dtype, const_cast<void*>(activated.block(first + row, 0).data),
               derivatives + row * round_up(s.inputs, kLanes));
    return packed_rows(grad_out.block(first, 0), rows, s.outputs, packed);
  };
  return multiply(args.parallel_for, s.rows, panels, s.gelu, operand,
                  [out = ResultWriter(args.grad_x, s.x_dtype, s.inputs), gelu = s.gelu != 0](
                      int64_t row, int64_t column, Vec sum, const float* derivative) {
                    if (gelu) sum *= load(derivative);
                    out.write(sum, row, column);
                  });
}

// sums[r][c] += a[:, r] @ b[:, c] over packed_k packed tokens; a is kItemRows wide. Not inlined: it is long.
template <int Rows, int Vectors, class Packed>
__attribute__((noinline)) void add_outer_tile(const Packed* a, const Packed* b, int64_t width, int64_t packed_k,
                                              float* sums, int64_t stride) {
  product_tile<Rows, Vectors, 1>(
      a, 1, kItemRows, b, width, packed_k,
      [=](int r, int c, Vec sum) {
        float* to = sums + r * stride + c * kLanes;
        store(to, load(to) + sum);
      },
      [](int64_t) {});
}

template <int Rows, int Vectors, class Packed>
inline void add_outer_rows(const Packed* a, int64_t rows, const Packed* b, int64_t width, int64_t packed_k, float* sums,
                           int64_t stride) {
  for (int64_t first = 0; first < rows;) {
    const int64_t left = rows - first;
    const int count = left >= Rows ? Rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const auto tile = count == Rows ? add_outer_tile<Rows, Vectors, Packed>
                      : count == 4  ? add_outer_tile<4, Vectors, Packed>
                      : count == 2  ? add_outer_tile<2, Vectors, Packed>
                                    : add_outer_tile<1, Vectors, Packed>;
    tile(a + first, b, width, packed_k, sums + first * stride, stride);
    first += count;
  }
}

// The same of all rows and columns. `transposed` is a's transpose, kTokenBlock wide, which tiles take instead.
template <class Packed>
inline void add_outer(const Packed* a, int64_t rows, const Packed* b, int64_t width, int64_t packed_k, float* sums,
                      int64_t stride, const Packed* transposed) {
  if constexpr (kTiled<Packed>)
    return tile_panel(transposed, kTokenBlock, rows, b, width, packed_k, b,
                      [=](int64_t row, int64_t column, Vec sum) { add_to(sums + row * stride + column, 0, sum); });
  int64_t column = 0;
  for (; column + kGemmVectors * kLanes <= width; column += kGemmVectors * kLanes)
    add_outer_rows<kTileRows<kGemmVectors>, kGemmVectors>(a, rows, b + column, width, packed_k, sums + column, stride);
  if constexpr (kLanes == 16)
    for (; column < width; column += kLanes)
      add_outer_rows<kTileRows<1>, 1>(a, rows, b + column, width, packed_k, sums + column, stride);
}

// total[c] += the sum of column c over `count` rows, in four independent sums.
inline void add_columns(const MatrixView& values, int64_t count, int64_t columns, float* total) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec sums[4] = {};
    for (int64_t row = 0; row < count; ++row)
      sums[row % 4] += load_partial(values, row * values.stride + c, columns - c);
    store(total + c, load(total + c) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
}

// grad_weight and grad_bias; `f` is f(x).
template <class Packed>
fermt_status linear_grad_weight(const fermt_linear_backward_args& args, const MatrixView& f) {
  const fermt_linear_shape s = args.shape;
  const MatrixView grad_out = {args.grad_out, s.out_dtype, args.grad_out_stride};
  const int64_t row_items = (s.outputs + kItemRows - 1) / kItemRows;
  const bool too_few = row_items * ((s.inputs + kMaxItemColumns - 1) / kMaxItemColumns) < kMinItems;
  const int64_t item_columns = too_few ? fermt::kPanel : kMaxItemColumns,
                column_items = (s.inputs + item_columns - 1) / item_columns;
  return fermt::run_items(args.parallel_for, row_items * column_items, [&](int64_t item) {
    const int64_t row = item / column_items * kItemRows, column = item % column_items * item_columns;
    const int64_t rows = s.outputs - row < kItemRows ? s.outputs - row : kItemRows;
    const int64_t columns = s.inputs - column < item_columns ? s.inputs - column : item_columns;
    Arena sizes;
    sizes.floats(kItemRows * (item_columns + 1)), sizes.floats(kTokenBlock * (2 * kItemRows + item_columns));
    Arena arena{static_cast<char*>(fermt::thread_scratch(sizes.used, fermt::kItemScratch))};
    if (!arena.base) return FERMT_OUT_OF_MEMORY;
    float *sums = arena.floats(kItemRows * (item_columns + 1)), *bias_sums = sums + kItemRows * item_columns;
    Packed *a = allocate<Packed>(arena, kTokenBlock * (2 * kItemRows + item_columns)),
           *transposed = a + kTokenBlock * kItemRows, *b = transposed + kTokenBlock * kItemRows;
    const TileScope tiles;
    memset(sums, 0, static_cast<size_t>(kItemRows * (item_columns + 1)) * sizeof(float));
    const int64_t max_tokens = kTokenBlock * kPackFactor<Packed>;
    const bool with_bias = column == 0 && args.grad_bias;
    for (int64_t token = 0; token < s.rows; token += max_tokens) {
      const int64_t tokens = s.rows - token < max_tokens ? s.rows - token : max_tokens,
                    packed_k = packed_count<Packed>(tokens);
      const MatrixView grads = grad_out.block(token, row);
      pack_columns_of(grads, tokens, rows, kItemRows, a);
      if constexpr (kTiled<Packed>)
        for (int64_t k = 0; k < packed_k; k += kLanes)
          for (int64_t r = 0; r < kItemRows; r += kLanes)
            transpose_words(a + k * kItemRows + r, kItemRows, packed_k - k, transposed + r * kTokenBlock + k,
                            kTokenBlock);
      for (int64_t c = 0; c < columns; c += kPanelColumns) {
        const int64_t count = columns - c < kPanelColumns ? columns - c : kPanelColumns,
                      width = round_up(count, kColumnAlign);
        pack_columns_of(f.block(token, column + c), tokens, count, width, b + c * kTokenBlock);
        add_outer(a, rows, b + c * kTokenBlock, width, packed_k, sums + c, item_columns, transposed);
      }
      if (with_bias) add_columns(grads, tokens, rows, bias_sums);
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; c += kLanes)
        store_partial(load(sums + r * item_columns + c), args.grad_weight, s.weight_dtype,
                      (row + r) * s.inputs + column + c, columns - c);
    for (int64_t r = 0; with_bias && r < rows; r += kLanes)
      store_partial(load(bias_sums + r), args.grad_bias, s.weight_dtype, row + r, rows - r);
    return FERMT_OK;
  });
}

// Converts x to the product's dtype: a block of it is packed once for each block of the weight's rows.
inline fermt_status convert(const fermt_linear_backward_args& args, const MatrixView& x, const MatrixView& to) {
  const int64_t step = rows_per_item(args.shape.rows);
  return fermt::run_items(args.parallel_for, (args.shape.rows + step - 1) / step, [&](int64_t item) {
    for (int64_t row = item * step; row < (item + 1) * step && row < args.shape.rows; ++row)
      for (int64_t i = 0; i < args.shape.inputs; i += kLanes)
        store_partial(load_partial(x, row * x.stride + i, args.shape.inputs - i), const_cast<void*>(to.data), to.dtype,
                      row * to.stride + i, args.shape.inputs - i);
    return FERMT_OK;
  });
}

template <class Packed>
fermt_status linear_backward_as(const fermt_linear_backward_args& args) {
  const fermt_linear_shape& s = args.shape;
  if (args.grad_x)
    if (const fermt_status status = linear_grad_x<Packed>(args)) return status;
  if (!args.grad_weight) return FERMT_OK;
  const MatrixView x = {args.x, s.x_dtype, s.x_stride}, activated = {args.activated, s.dtype, s.inputs};
  const bool same = s.x_dtype == s.dtype;
  if (!s.gelu && !same)
    if (const fermt_status status = convert(args, x, activated)) return status;
  return linear_grad_weight<Packed>(args, s.gelu || !same ? activated : x);
}

}  // namespace
