// The C functions of the library. Python reaches them through ctypes, C and C++ programs through this header.
//
// Every call takes one plain struct whose first member is its size, checks what it is given, and returns a status;
// nothing throws, nothing is kept between calls. Strides are in elements and the last dimension is contiguous.

#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FERMT_ABI_VERSION 1
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
} fermt_status;

typedef enum { FERMT_FLOAT32 = 0, FERMT_BFLOAT16 = 1, FERMT_FLOAT16 = 2 } fermt_dtype;

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

FERMT_EXPORT int32_t fermt_abi_version(void);
FERMT_EXPORT const char* fermt_status_text(int32_t status);

// Rows of the kernel table in order of preference; null past the last. A row may be more than this CPU can run.
FERMT_EXPORT const char* fermt_isa_name(int32_t row);
FERMT_EXPORT int32_t fermt_isa_supported(int32_t row);
FERMT_EXPORT const char* fermt_isa_selected(void);
FERMT_EXPORT int32_t fermt_isa_select(const char* name);

FERMT_EXPORT int32_t fermt_attention_forward(const fermt_attention_forward_args* args);
FERMT_EXPORT int32_t fermt_attention_backward(const fermt_attention_backward_args* args);
FERMT_EXPORT int32_t fermt_dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args* args);
FERMT_EXPORT int32_t fermt_dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args* args);

#ifdef __cplusplus
}
#endif
