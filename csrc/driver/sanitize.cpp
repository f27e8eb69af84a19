// Runs every entry point over odd shapes, in buffers with nothing to spare: built with AddressSanitizer and
// UndefinedBehaviorSanitizer by `make sanitize`, whatever reads or writes a byte too far stops here. With the argument
// `quick` it runs fewer shapes, still on both sides of the edges of blocks. What an instruction set computes must agree
// with the generic row's numbers, and these, where that is quick, with float64.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "abi/fermt.h"
#include "driver/cases.h"
#include "driver/frames.h"

namespace {

// Attention's output in double.
std::vector<double> attended(const fermt_attention_shape& shape, const Buffer& q, const Buffer& k, const Buffer& v) {
  const int64_t dim = shape.head_dim;
  std::vector<double> out(q.count), scores(shape.tokens);
  for (int64_t row = 0; row < shape.batch * shape.heads * shape.tokens; ++row) {
    const int64_t token = row % shape.tokens, first = row - token;
    const int64_t* keys = token < shape.num_template ? shape.template_keys : shape.search_keys;
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = keys[0]; j < keys[1]; ++j) {
      scores[j] = 0;
      for (int64_t d = 0; d < dim; ++d) scores[j] += shape.scale * q[row * dim + d] * k[(first + j) * dim + d];
      maximum = std::fmax(maximum, scores[j]);
    }
    for (int64_t j = keys[0]; j < keys[1]; ++j) sum += std::exp(scores[j] - maximum);
    for (int64_t j = keys[0]; j < keys[1]; ++j)
      for (int64_t d = 0; d < dim; ++d)
        out[row * dim + d] += std::exp(scores[j] - maximum) / sum * v[(first + j) * dim + d];
  }
  return out;
}

void attention(int64_t batch, int64_t heads, int64_t n, int64_t m, int64_t dim, int pattern, int dtype) {
  const int64_t tokens = n + m;
  const int64_t spans[][4] = {
      {0, n, n, tokens}, {0, n, 0, tokens}, {0, tokens, 0, tokens}, {0, 0, 0, n}, {n, tokens, 0, n}};
  const int64_t* span = spans[pattern];
  const fermt_attention_shape shape = {batch, heads, tokens, dim, n, {span[0], span[1]}, {span[2], span[3]},
                                       0.3,   dtype};
  auto make = [&] { return Buffer(batch, heads, tokens, dim, dtype); };
  Buffer q = make(), k = make(), v = make(), out = make(), grad = make(), grad_q = make(), grad_k = make(),
         grad_v = make();
  std::vector<float> lse(batch * heads * tokens);
  fermt_attention_forward_args forward = {sizeof forward, halves,   shape,      q.tensor,
                                          k.tensor,       v.tensor, out.tensor, lse.data()};
  expect(fermt_attention_forward(&forward), FERMT_OK, "attention forward");
  fermt_attention_backward_args backward = {sizeof backward, nullptr,       shape,         grad.tensor,
                                            q.tensor,        k.tensor,      v.tensor,      out.tensor,
                                            lse.data(),      grad_q.tensor, grad_k.tensor, grad_v.tensor};
  expect(fermt_attention_backward(&backward), FERMT_OK, "attention backward");
  const double tolerance = kProductTolerance[dtype];
  if (g_agreement.is_reference() && static_cast<double>(batch * heads * tokens * tokens * dim) <= kMostProducts) {
    std::vector<double> numbers(out.count);
    for (int64_t i = 0; i < out.count; ++i) numbers[i] = out[i];
    g_agreement.compare("attention forward, beside float64", numbers, attended(shape, q, k, v), tolerance);
  }
  out.check("attention forward", tolerance);
  g_agreement.check("attention's lse", lse.data(), static_cast<int64_t>(lse.size()), FERMT_FLOAT32, tolerance, 1.0);
  grad_q.check("attention backward, dq", tolerance);
  grad_k.check("attention backward, dk", tolerance);
  grad_v.check("attention backward, dv", tolerance);
  forward.shape.num_template = tokens + 1;
  expect(fermt_attention_forward(&forward), FERMT_BAD_SPAN, "attention with too many template tokens");
}

void unit(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t kernel, int64_t hidden, int dtype) {
  const fermt_unit_shape shape = {batch, channels, height, width, kernel, kernel, hidden, dtype};
  auto make = [&] { return Buffer(batch, channels, height, width, dtype); };
  Buffer x = make(), out = make(), grad = make(), grad_x = make();
  const int64_t c = channels, taps = kernel * kernel;
  const int64_t sizes[FERMT_UNIT_WEIGHTS] = {c * c, c, c * taps,   c,          c * taps, c,
                                             c * c, c, hidden * c, c * hidden, c * c,    c};
  std::vector<std::vector<float>> weights, grads;
  for (int64_t size : sizes) {
    weights.emplace_back(size, 0.1f);
    grads.emplace_back(size);
  }
  fermt_dual_attention_unit_forward_args forward = {sizeof forward, halves, shape, x.tensor, {}, out.tensor};
  fermt_dual_attention_unit_backward_args backward = {sizeof backward, halves, shape,         grad.tensor,
                                                      x.tensor,        {},     grad_x.tensor, {}};
  for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) {
    forward.weights[i] = backward.weights[i] = weights[i].data();
    backward.grad_weights[i] = grads[i].data();
  }
  expect(fermt_dual_attention_unit_forward(&forward), FERMT_OK, "unit forward");
  expect(fermt_dual_attention_unit_backward(&backward), FERMT_OK, "unit backward");
  const double tolerance = kProductTolerance[dtype];
  out.check("unit forward", tolerance);
  grad_x.check("unit backward, dx", tolerance);
  for (const std::vector<float>& weight : grads)
    g_agreement.check("unit backward, a weight", weight.data(), static_cast<int64_t>(weight.size()), FERMT_FLOAT32,
                      tolerance, 1.0);
  forward.weights[3] = nullptr;
  expect(fermt_dual_attention_unit_forward(&forward), FERMT_NULL_POINTER, "unit without a weight");
}

void linear(int64_t rows, int64_t inputs, int64_t outputs, int64_t gelu, int dtype, int other, int out_dtype) {
  const fermt_linear_shape shape = {rows, inputs, outputs, inputs, gelu, dtype, other, other, out_dtype};
  Buffer x(1, 1, rows, inputs, other), weight(1, 1, outputs, inputs, other), bias(1, 1, 1, outputs, other),
      out(1, 1, rows, outputs, out_dtype), grad_out(1, 1, rows, outputs, out_dtype), grad_x(1, 1, rows, inputs, other),
      grad_weight(1, 1, outputs, inputs, other), grad_bias(1, 1, 1, outputs, other),
      activated(1, 1, rows, inputs, dtype);
  fermt_linear_forward_args forward = {sizeof forward,     halves,           shape,          x.tensor.data,
                                       weight.tensor.data, bias.tensor.data, out.tensor.data};
  expect(fermt_linear_forward(&forward), FERMT_OK, "linear forward");
  fermt_linear_backward_args backward = {sizeof backward,
                                         halves,
                                         shape,
                                         outputs,
                                         grad_out.tensor.data,
                                         x.tensor.data,
                                         weight.tensor.data,
                                         grad_x.tensor.data,
                                         grad_weight.tensor.data,
                                         grad_bias.tensor.data,
                                         activated.tensor.data};
  expect(fermt_linear_backward(&backward), FERMT_OK, "linear backward");
  const double tolerance = std::fmax(kProductTolerance[dtype], kProductTolerance[out_dtype]);
  if (g_agreement.is_reference() && static_cast<double>(rows * inputs * outputs) <= kMostProducts) {
    std::vector<double> numbers(out.count), truth(out.count);
    for (int64_t i = 0; i < out.count; ++i) {
      const int64_t row = i / outputs, column = i % outputs;
      numbers[i] = out[i];
      truth[i] = bias[column];
      for (int64_t k = 0; k < inputs; ++k) {
        const double value = x[row * inputs + k];
        truth[i] += (gelu ? value * std::erfc(-value / std::sqrt(2.0)) / 2 : value) * weight[column * inputs + k];
      }
    }
    g_agreement.compare("linear forward, beside float64", numbers, truth, tolerance);
  }
  out.check("linear forward", tolerance);
  grad_x.check("linear backward, dx", tolerance);
  grad_weight.check("linear backward, the weight", tolerance);
  grad_bias.check("linear backward, the bias", tolerance);
  backward.grad_weight = nullptr;
  expect(fermt_linear_backward(&backward), FERMT_NULL_POINTER, "a bias's gradient without the weight's");
  forward.shape.inputs = 0;
  expect(fermt_linear_forward(&forward), FERMT_BAD_SIZE, "a weight of no inputs");
}

using Sizes = std::vector<int64_t>;

// What the shapes are made of: all combinations of an op's sizes.
struct Grid {
  Sizes template_tokens, search_tokens, head_dims;  // attention
  Sizes heights, widths, kernels;                   // the Dual Attention Unit
  Sizes rows, inputs, outputs;                      // linear layers
};

const Grid kAll = {{0, 1, 15, 33, 64}, {0, 1, 31, 65, 257}, {1, 8, 16, 40, 128}, {1, 2, 11, 13, 40}, {1, 3, 16, 33, 70},
                   {1, 3, 5, 7},       {0, 1, 7, 100},      {1, 16, 99, 390},    {1, 16, 67}};
const Grid kQuick = {{0, 1, 33}, {0, 31, 65}, {1, 16, 40}, {1, 11, 13}, {1, 33}, {1, 5}, {0, 7}, {1, 99}, {1, 67}};

}  // namespace

int main(int argc, char** argv) {
  const auto start = std::chrono::steady_clock::now();
  const Grid& grid = argc > 1 && std::strcmp(argv[1], "quick") == 0 ? kQuick : kAll;
  expect(fermt_attention_forward(nullptr), FERMT_NULL_POINTER, "no arguments");
  expect(fermt_isa_select("sse9"), FERMT_UNKNOWN_ISA, "an unknown instruction set");
  for (int dtype = FERMT_FLOAT32; dtype <= FERMT_FLOAT16; ++dtype) {
    for (int pattern = 0; pattern < 5; ++pattern)
      for (int64_t n : grid.template_tokens)
        for (int64_t m : grid.search_tokens)
          for (int64_t dim : grid.head_dims)
            on_each_row([&] { attention(1 + (n + m) % 2, 2, n, m, dim, pattern, dtype); });
    for (int64_t height : grid.heights)
      for (int64_t width : grid.widths)
        for (int64_t kernel : grid.kernels)
          on_each_row([&] { unit(2, 1 + (height + kernel) % 4, height, width, kernel, 1 + width % 2, dtype); });
  }
  for (int64_t rows : grid.rows)
    for (int64_t inputs : grid.inputs)
      for (int64_t outputs : grid.outputs)
        for (int dtype = FERMT_FLOAT32; dtype <= FERMT_FLOAT16; ++dtype)
          for (int other : {static_cast<int>(FERMT_FLOAT32), dtype})
            on_each_row(
                [&] { linear(rows, inputs, outputs, (rows + inputs) % 2, dtype, other, outputs % 2 ? dtype : 0); });
  frames();
  on_each_row([] { std::printf("%s: ok\n", fermt_isa_selected()); });
  g_agreement.report();
  frames_while_another_thread_selects();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%d calls passed, 0 failed, in %.0f s\n", g_calls, seconds.count());
}
