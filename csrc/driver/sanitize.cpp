// Runs every entry point over odd shapes, in buffers with nothing to spare: built with AddressSanitizer and
// UndefinedBehaviorSanitizer by `make sanitize`, whatever reads or writes a byte too far stops here.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "abi.h"

namespace {

// Two halves, one after the other, the second first: threads in miniature, and an order that nobody expects.
int32_t halves(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  const int64_t middle = begin + (end - begin) / 2;
  if (middle < end) body(middle, end, context);
  if (begin < middle) body(begin, middle, context);
  return 0;
}

int g_calls = 0;

void expect(int32_t status, int32_t wanted, const char* what) {
  ++g_calls;
  if (status == wanted) return;
  std::printf("%s: %s, expected %s\n", what, fermt_status_text(status), fermt_status_text(wanted));
  std::exit(1);
}

// A tensor of exactly the bytes that its shape needs, filled with small numbers.
struct Buffer {
  std::vector<char> bytes;
  fermt_tensor tensor;

  Buffer(int64_t a, int64_t b, int64_t c, int64_t d, int dtype) : bytes(a * b * c * d * (dtype ? 2 : 4)) {
    tensor = {bytes.data(), {b * c * d, c * d, d}};
    for (int64_t i = 0; i < a * b * c * d; ++i) {
      const float value = static_cast<float>((i * 37 % 101) - 50) / 40.0f;
      if (dtype)
        __builtin_memcpy(&bytes[2 * i], reinterpret_cast<const char*>(&value) + 2, 2);
      else
        __builtin_memcpy(&bytes[4 * i], &value, 4);
    }
  }
};

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
  forward.weights[3] = nullptr;
  expect(fermt_dual_attention_unit_forward(&forward), FERMT_NULL_POINTER, "unit without a weight");
}

}  // namespace

int main() {
  expect(fermt_attention_forward(nullptr), FERMT_NULL_POINTER, "no arguments");
  expect(fermt_isa_select("sse9"), FERMT_UNKNOWN_ISA, "an unknown instruction set");
  for (int32_t row = 0; fermt_isa_name(row); ++row) {
    if (!fermt_isa_supported(row)) continue;
    expect(fermt_isa_select(fermt_isa_name(row)), FERMT_OK, fermt_isa_name(row));
    for (int dtype = FERMT_FLOAT32; dtype <= FERMT_FLOAT16; ++dtype) {
      for (int pattern = 0; pattern < 5; ++pattern)
        for (int64_t n : {0, 1, 15, 33, 64})
          for (int64_t m : {0, 1, 31, 65, 257})
            for (int64_t dim : {1, 8, 16, 40, 128}) attention(1 + (n + m) % 2, 2, n, m, dim, pattern, dtype);
      for (int64_t height : {1, 2, 11, 13, 40})
        for (int64_t width : {1, 3, 16, 33, 70})
          for (int64_t kernel : {1, 3, 5, 7})
            unit(2, 1 + (height + kernel) % 4, height, width, kernel, 1 + width % 2, dtype);
    }
    std::printf("%s: ok\n", fermt_isa_name(row));
  }
  std::printf("%d calls passed, 0 failed\n", g_calls);
}
