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
  FERMT_OUT_OF_MEMORY,
  FERMT_THREADS_FAILED,
  FERMT_UNKNOWN_ISA,
  FERMT_UNSUPPORTED_ISA,
} fermt_status;

// The caller's threads: runs body over disjoint chunks that cover [begin, end), returns when all are done.
// The signature is that of torch_parallel_for. Null means: run on the calling thread.
typedef void (*fermt_parallel_body)(int64_t begin, int64_t end, void* context);
typedef int32_t (*fermt_parallel_for)(int64_t begin, int64_t end, int64_t grain, fermt_parallel_body body,
                                      void* context);

// Attention in which the queries of a group see one contiguous span of keys.
// Tokens 0 .. num_template - 1 are the template group, the rest the search group.
typedef struct {
  int64_t struct_size;
  fermt_parallel_for parallel_for;
  const float* q;
  const float* k;
  const float* v;
  float* out;
  float* lse;  // (batch, heads, tokens), contiguous
  int64_t batch, heads, tokens, head_dim, num_template;
  int64_t template_keys[2], search_keys[2];                               // start, stop
  int64_t q_strides[3], k_strides[3], v_strides[3], out_strides[3];       // batch, head, token
  float scale;
} fermt_attention_forward_args;

FERMT_EXPORT int32_t fermt_abi_version(void);
FERMT_EXPORT const char* fermt_status_text(int32_t status);

// Rows of the kernel table in order of preference; null past the last. A row may be more than this CPU can run.
FERMT_EXPORT const char* fermt_isa_name(int32_t row);
FERMT_EXPORT int32_t fermt_isa_supported(int32_t row);
FERMT_EXPORT const char* fermt_isa_selected(void);
FERMT_EXPORT int32_t fermt_isa_select(const char* name);

FERMT_EXPORT int32_t fermt_attention_forward(const fermt_attention_forward_args* args);

#ifdef __cplusplus
}
#endif
