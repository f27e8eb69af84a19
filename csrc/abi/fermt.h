// The C API of the library, which Python calls through ctypes.
//
// Each call takes one plain struct whose first member is its size, checks its arguments, and returns a status; nothing
// throws and nothing is kept between calls. Strides are in elements and the last dimension is contiguous.

#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FERMT_ABI_VERSION 3
#define FERMT_MODEL_VERSION 1
#define FERMT_EXPORT __attribute__((visibility("default")))

typedef enum {
  FERMT_OK = 0,
  FERMT_BAD_STRUCT_SIZE,
  FERMT_NULL_POINTER,
  FERMT_BAD_SIZE,
  FERMT_BAD_STRIDE,
  FERMT_BAD_SPAN,
  FERMT_BAD_DTYPE,
  FERMT_OUT_OF_MEMORY,
  FERMT_THREADS_FAILED,
  FERMT_UNKNOWN_ISA,
  FERMT_UNSUPPORTED_ISA,
  FERMT_BAD_ALIGNMENT,
  FERMT_BAD_MODEL,
  FERMT_BAD_MODEL_VERSION,
  FERMT_BAD_MODEL_CHECKSUM,
  FERMT_BAD_CACHE,
  FERMT_SMALL_WORKSPACE,
} fermt_status;

// FERMT_INT8 is for packed models only: products in int8, the rest in bfloat16 and float32.
typedef enum { FERMT_FLOAT32 = 0, FERMT_BFLOAT16 = 1, FERMT_FLOAT16 = 2, FERMT_INT8 = 3 } fermt_dtype;

// The caller's threads: runs body over disjoint chunks that cover [begin, end), returns when all are done.
// The signature is that of torch_parallel_for. Null means: run on the calling thread.
typedef void (*fermt_parallel_body)(int64_t begin, int64_t end, void* context);
typedef int32_t (*fermt_parallel_for)(int64_t begin, int64_t end, int64_t grain, fermt_parallel_body body,
                                      void* context);

// A tensor of four dimensions by its first three strides: (batch, head, token) or (batch, channel, row).
typedef struct {
  void* data;
  int64_t strides[3];
} fermt_tensor;

// Attention in which the queries of a group see one contiguous span of keys.
// Tokens 0 .. num_template - 1 are the template group, the rest the search group.
typedef struct {
  int64_t batch, heads, tokens, head_dim, num_template;
  int64_t template_keys[2], search_keys[2];  // start, stop
  double scale;
  int64_t dtype;  // fermt_dtype of every fermt_tensor
} fermt_attention_shape;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_attention_shape shape;
  fermt_tensor q, k, v, out;
  float* lse;  // (batch, heads, tokens), contiguous
} fermt_attention_forward_args;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_attention_shape shape;
  fermt_tensor grad_out, q, k, v, out;
  const float* lse;
  fermt_tensor grad_q, grad_k, grad_v;
} fermt_attention_backward_args;

// The Dual Attention Unit. Weights are contiguous float32 in the order of DAUWeights: proj_1, conv0, conv_spatial and
// conv1, each weight then bias; fc.0, fc.2; proj_2, weight then bias. conv_spatial's dilation is (kernel + 1) / 2.
typedef struct {
  int64_t batch, channels, height, width, kernel, dilated_kernel, hidden;
  int64_t dtype;  // fermt_dtype of every fermt_tensor
} fermt_unit_shape;

enum { FERMT_UNIT_WEIGHTS = 12 };

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_unit_shape shape;
  fermt_tensor x;
  const float* weights[FERMT_UNIT_WEIGHTS];
  fermt_tensor out;
} fermt_dual_attention_unit_forward_args;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_unit_shape shape;
  fermt_tensor grad_out, x;
  const float* weights[FERMT_UNIT_WEIGHTS];
  fermt_tensor grad_x;
  float* grad_weights[FERMT_UNIT_WEIGHTS];
} fermt_dual_attention_unit_backward_args;

// A linear layer on `rows` rows of x, `x_stride` elements apart, optionally of GELU(x). The rest is contiguous: weight
// (outputs, inputs), bias (outputs) or null, out (rows, outputs). Operands are rounded to `dtype` and multiplied.
typedef struct {
  int64_t rows, inputs, outputs;
  int64_t x_stride;
  int64_t gelu;                                     // 1: of GELU(x); 0: of x
  int64_t dtype, x_dtype, weight_dtype, out_dtype;  // fermt_dtype; weight_dtype is also bias's
} fermt_linear_shape;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_linear_shape shape;
  const void *x, *weight, *bias;
  void* out;
} fermt_linear_forward_args;

// Gradients whose pointer is null are not computed; if gelu, the weight's needs x's. `activated` is a buffer of (rows,
// inputs) in `dtype`, required if gelu or dtype != x_dtype. Each gradient has its tensor's dtype.
typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  fermt_linear_shape shape;
  int64_t grad_out_stride;
  const void *grad_out, *x, *weight;
  void *grad_x, *grad_weight, *grad_bias, *activated;
} fermt_linear_backward_args;

// Whole frames, by a packed model (`fk.frame.pack`, or the bytes of a file that it saved). All buffers are the caller's
// and 64-byte aligned. Crops are (size, size, 3) bytes, RGB, one pointer for each target.
typedef enum { FERMT_CENTER_HEAD = 0, FERMT_CORNER_HEAD = 1 } fermt_head;

typedef struct {
  int64_t struct_size;
  const void* model;
  int64_t model_bytes;
  int64_t verify;  // 1: check the model's checksum, too; once, after loading
  int64_t batch;   // targets in a frame
  // Filled in by the call. Caches and workspaces depend on the selected instruction set.
  int64_t cache_bytes;  // of one target
  int64_t workspace_bytes;
  int64_t map_channels, grid, template_size, search_size, head, dtype, dim;
  double template_factor, search_factor;  // crop side / sqrt(target area)
} fermt_frame_info_args;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  const void* model;
  int64_t model_bytes, batch;
  const uint8_t* const* crops;  // template crops
  void* const* caches;          // one for each target
  int64_t cache_bytes;
  void* workspace;
  int64_t workspace_bytes;
} fermt_encode_template_args;

typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  const void* model;
  int64_t model_bytes, batch;
  const uint8_t* const* crops;  // search crops
  const void* const* caches;
  int64_t cache_bytes;
  void* workspace;
  int64_t workspace_bytes;
  // (batch, map_channels, grid, grid). Center head: score, width, height, offset x, offset y. Corner head: the
  // probabilities of the top left and the bottom right corner.
  float* maps;
  float* tokens;  // (batch, grid^2, dim), search tokens after the last norm, or null
} fermt_track_frame_args;

// Measures peak throughput: multiply-adds alone, `iterations` rounds on each of `threads` work items.
typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  int64_t dtype, threads, iterations;
  int64_t operations;  // filled in: floating-point operations done
} fermt_fma_peak_args;

FERMT_EXPORT int32_t fermt_abi_version(void);
FERMT_EXPORT const char* fermt_status_text(int32_t status);

// Instruction sets in order of preference; null past the last. This CPU may not support all of them.
FERMT_EXPORT const char* fermt_isa_name(int32_t row);
FERMT_EXPORT int32_t fermt_isa_supported(int32_t row);
FERMT_EXPORT const char* fermt_isa_selected(void);
FERMT_EXPORT int32_t fermt_isa_select(const char* name);

// For measurements: calls trace(loop, count, begin, end, nanoseconds) after each piece [begin, end) of the `count`
// items of a frame's loops, on the thread that computed it, until called with null. Loops count from 0 in each frame.
typedef void (*fermt_loop_trace)(int64_t loop, int64_t count, int64_t begin, int64_t end, int64_t nanoseconds);
FERMT_EXPORT void fermt_trace_loops(fermt_loop_trace trace);

FERMT_EXPORT int32_t fermt_attention_forward(const fermt_attention_forward_args* args);
FERMT_EXPORT int32_t fermt_attention_backward(const fermt_attention_backward_args* args);
FERMT_EXPORT int32_t fermt_dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args* args);
FERMT_EXPORT int32_t fermt_dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args* args);
FERMT_EXPORT int32_t fermt_linear_forward(const fermt_linear_forward_args* args);
FERMT_EXPORT int32_t fermt_linear_backward(const fermt_linear_backward_args* args);
FERMT_EXPORT int32_t fermt_frame_info(fermt_frame_info_args* args);
FERMT_EXPORT int32_t fermt_encode_template(const fermt_encode_template_args* args);
FERMT_EXPORT int32_t fermt_track_frame(const fermt_track_frame_args* args);
FERMT_EXPORT int32_t fermt_fma_peak(fermt_fma_peak_args* args);

#ifdef __cplusplus
}
#endif
