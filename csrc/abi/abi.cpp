#include <initializer_list>

#include "abi/fermt.h"
#include "abi/team.h"
#include "isa/kernel_table.h"

namespace {

constexpr const char* kStatusText[] = {
    "ok",
    "the caller's struct has another size: library and caller are of different versions",
    "a pointer is null",
    "a size is negative, zero where it may not be, or too large",
    "a stride is negative",
    "a span of keys or the number of template tokens lies outside the tokens",
    "no such dtype",
    "out of memory",
    "the caller's threads reported a failure",
    "no such instruction set",
    "this CPU does not have that instruction set",
    "a buffer is not aligned to 64 bytes",
    "this is not a packed model, or it is damaged",
    "the packed model is of another version",
    "the packed model is damaged: its checksum is wrong",
    "a template cache was made by another model, another instruction set or another version",
    "the workspace or a cache is too small",
};
static_assert(sizeof(kStatusText) / sizeof(kStatusText[0]) == FERMT_SMALL_WORKSPACE + 1, "a text for each status");

constexpr int64_t kMaxElements = int64_t{1} << 40;  // of a tensor

// The product of `sizes`, or -1 if one is negative or the product is too large.
template <int Count>
int64_t element_count(const int64_t (&sizes)[Count]) {
  int64_t elements = 1;
  bool empty = false;
  for (int64_t size : sizes) {
    if (size < 0 || size > kMaxElements) return -1;
    empty = empty || size == 0;
    if (size > 0 && elements > kMaxElements / size) return -1;
    if (size > 0) elements *= size;
  }
  return empty ? 0 : elements;
}

bool span_outside(const int64_t (&span)[2], int64_t tokens) {
  return span[0] < 0 || span[1] < span[0] || span[1] > tokens;
}

template <int Count>
fermt_status check_tensors(const fermt_tensor (&tensors)[Count], bool empty) {
  for (const fermt_tensor& tensor : tensors) {
    for (int64_t stride : tensor.strides)
      if (stride < 0) return FERMT_BAD_STRIDE;
    if (!empty && !tensor.data) return FERMT_NULL_POINTER;
  }
  return FERMT_OK;
}

template <int Count>
fermt_status check_attention(const fermt_attention_shape& s, const fermt_tensor (&tensors)[Count], const float* lse) {
  const int64_t elements = element_count({s.batch, s.heads, s.tokens, s.head_dim});
  if (elements < 0 || s.head_dim == 0) return FERMT_BAD_SIZE;
  if (s.num_template < 0 || s.num_template > s.tokens) return FERMT_BAD_SPAN;
  if (span_outside(s.template_keys, s.tokens) || span_outside(s.search_keys, s.tokens)) return FERMT_BAD_SPAN;
  if (s.dtype < FERMT_FLOAT32 || s.dtype > FERMT_FLOAT16) return FERMT_BAD_DTYPE;
  if (elements > 0 && !lse) return FERMT_NULL_POINTER;
  return check_tensors(tensors, elements == 0);
}

bool is_odd_size(int64_t kernel) { return kernel > 0 && kernel < 1024 && kernel % 2 == 1; }

template <int Count>
fermt_status check_unit(const fermt_unit_shape& s, const fermt_tensor (&tensors)[Count], const float* const* weights,
                        const float* const* grad_weights) {
  const int64_t elements = element_count({s.batch, s.channels, s.height, s.width});
  if (elements < 0 || s.channels == 0 || s.height == 0 || s.width == 0) return FERMT_BAD_SIZE;
  if (s.channels > 4096 || s.hidden < 1 || s.hidden > 4096) return FERMT_BAD_SIZE;
  if (!is_odd_size(s.kernel) || !is_odd_size(s.dilated_kernel)) return FERMT_BAD_SIZE;
  if (s.dtype < FERMT_FLOAT32 || s.dtype > FERMT_FLOAT16) return FERMT_BAD_DTYPE;
  for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i)
    if (!weights[i] || (grad_weights && !grad_weights[i])) return FERMT_NULL_POINTER;
  return check_tensors(tensors, elements == 0);
}

fermt_status check(const fermt_attention_forward_args& a) {
  return check_attention(a.shape, {a.q, a.k, a.v, a.out}, a.lse);
}

fermt_status check(const fermt_attention_backward_args& a) {
  return check_attention(a.shape, {a.grad_out, a.q, a.k, a.v, a.out, a.grad_q, a.grad_k, a.grad_v}, a.lse);
}

fermt_status check(const fermt_dual_attention_unit_forward_args& a) {
  return check_unit(a.shape, {a.x, a.out}, a.weights, nullptr);
}

fermt_status check(const fermt_dual_attention_unit_backward_args& a) {
  return check_unit(a.shape, {a.grad_out, a.x, a.grad_x}, a.weights, a.grad_weights);
}

fermt_status check_linear(const fermt_linear_shape& s, int64_t grad_out_stride,
                          std::initializer_list<const void*> required) {
  const int64_t counts[] = {element_count({s.rows, s.inputs}), element_count({s.rows, s.outputs}),
                            element_count({s.inputs, s.outputs})};
  if (counts[0] < 0 || counts[1] < 0 || counts[2] <= 0) return FERMT_BAD_SIZE;
  if (s.x_stride < 0 || grad_out_stride < 0) return FERMT_BAD_STRIDE;
  for (int64_t dtype : {s.dtype, s.x_dtype, s.weight_dtype, s.out_dtype})
    if (dtype < FERMT_FLOAT32 || dtype > FERMT_FLOAT16) return FERMT_BAD_DTYPE;
  for (const void* pointer : required)
    if (!pointer && s.rows > 0) return FERMT_NULL_POINTER;
  return FERMT_OK;
}

fermt_status check(const fermt_linear_forward_args& a) { return check_linear(a.shape, 0, {a.x, a.weight, a.out}); }

fermt_status check(const fermt_linear_backward_args& a) {
  if (a.grad_bias && !a.grad_weight) return FERMT_NULL_POINTER;
  const bool needs_activated = a.shape.gelu || (a.grad_weight && a.shape.x_dtype != a.shape.dtype);
  if (a.shape.rows > 0 && ((needs_activated && !a.activated) || (a.shape.gelu && !a.grad_x))) return FERMT_NULL_POINTER;
  return check_linear(a.shape, a.grad_out_stride, {a.grad_out, a.x, a.weight});
}

template <class Args>
int32_t checked_call(const Args* args, fermt_status (*fermt::KernelTable::*kernel)(const Args&)) {
  if (!args) return FERMT_NULL_POINTER;
  if (args->struct_size != static_cast<int64_t>(sizeof(Args))) return FERMT_BAD_STRUCT_SIZE;
  if (const fermt_status status = check(*args)) return status;
  return (fermt::selected_table().*kernel)(*args);
}

constexpr int64_t kMaxBatch = 4096;

bool misaligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 64 != 0; }

// Checks that a frame's buffers are not null, aligned, and as large as the kernels need for the model.
template <class Args>
fermt_status check_frame(const fermt::FrameKernels& kernels, const fermt::PackedModel& model, const Args& a) {
  if (a.batch < 0 || a.batch > kMaxBatch) return FERMT_BAD_SIZE;
  int64_t cache_bytes = 0, workspace_bytes = 0;
  kernels.info(model, a.batch, &cache_bytes, &workspace_bytes);
  if (a.cache_bytes < cache_bytes || a.workspace_bytes < workspace_bytes) return FERMT_SMALL_WORKSPACE;
  if (a.batch == 0) return FERMT_OK;
  if (!a.workspace || !a.crops || !a.caches) return FERMT_NULL_POINTER;
  if (misaligned(a.workspace)) return FERMT_BAD_ALIGNMENT;
  for (int64_t b = 0; b < a.batch; ++b) {
    if (!a.crops[b] || !a.caches[b]) return FERMT_NULL_POINTER;
    if (misaligned(a.caches[b])) return FERMT_BAD_ALIGNMENT;
  }
  return FERMT_OK;
}

template <class Args>
int32_t frame_call(const Args* args,
                   fermt_status (*fermt::FrameKernels::*kernel)(const fermt::PackedModel&, const Args&)) {
  if (!args) return FERMT_NULL_POINTER;
  if (args->struct_size != static_cast<int64_t>(sizeof(Args))) return FERMT_BAD_STRUCT_SIZE;
  fermt::PackedModel model;
  if (const fermt_status status = fermt::open_model(args->model, args->model_bytes, &model)) return status;
  // Read once: another thread may select an instruction set, whose buffers have other sizes, at any time.
  const fermt::FrameKernels& kernels = fermt::selected_table().frame(model);
  if (const fermt_status status = check_frame(kernels, model, *args)) return status;
  return args->batch == 0 ? FERMT_OK : (kernels.*kernel)(model, *args);
}

}  // namespace

extern "C" {

int32_t fermt_abi_version(void) { return FERMT_ABI_VERSION; }

const char* fermt_status_text(int32_t status) {
  return status >= 0 && status <= FERMT_SMALL_WORKSPACE ? kStatusText[status] : "unknown status";
}

const char* fermt_isa_name(int32_t row) {
  const fermt::KernelTable* table = fermt::table_row(row);
  return table ? table->name : nullptr;
}

int32_t fermt_isa_supported(int32_t row) {
  const fermt::KernelTable* table = fermt::table_row(row);
  return table && table->supported();
}

const char* fermt_isa_selected(void) { return fermt::selected_table().name; }

int32_t fermt_isa_select(const char* name) { return name ? fermt::select_table(name) : FERMT_NULL_POINTER; }

void fermt_trace_loops(fermt_loop_trace trace) { fermt::g_loop_trace.store(trace); }

int32_t fermt_attention_forward(const fermt_attention_forward_args* args) {
  return checked_call(args, &fermt::KernelTable::attention_forward);
}

int32_t fermt_attention_backward(const fermt_attention_backward_args* args) {
  return checked_call(args, &fermt::KernelTable::attention_backward);
}

int32_t fermt_dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args* args) {
  return checked_call(args, &fermt::KernelTable::dual_attention_unit_forward);
}

int32_t fermt_dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args* args) {
  return checked_call(args, &fermt::KernelTable::dual_attention_unit_backward);
}

int32_t fermt_linear_forward(const fermt_linear_forward_args* args) {
  return checked_call(args, &fermt::KernelTable::linear_forward);
}

int32_t fermt_linear_backward(const fermt_linear_backward_args* args) {
  return checked_call(args, &fermt::KernelTable::linear_backward);
}

int32_t fermt_frame_info(fermt_frame_info_args* args) {
  if (!args) return FERMT_NULL_POINTER;
  if (args->struct_size != static_cast<int64_t>(sizeof *args)) return FERMT_BAD_STRUCT_SIZE;
  fermt::PackedModel model;
  if (const fermt_status status = fermt::open_model(args->model, args->model_bytes, &model)) return status;
  if (args->batch < 0 || args->batch > kMaxBatch) return FERMT_BAD_SIZE;
  if (args->verify)
    if (const fermt_status status = fermt::verify_model(model)) return status;
  args->map_channels = model.map_channels();
  args->grid = model.grid;
  args->template_size = model.header->template_size;
  args->search_size = model.header->search_size;
  args->head = model.header->head;
  args->dtype = model.header->dtype;
  args->dim = model.header->dim;
  args->template_factor = model.header->template_factor;
  args->search_factor = model.header->search_factor;
  return fermt::selected_table().frame(model).info(model, args->batch, &args->cache_bytes, &args->workspace_bytes);
}

int32_t fermt_encode_template(const fermt_encode_template_args* args) {
  return frame_call(args, &fermt::FrameKernels::encode_template);
}

int32_t fermt_track_frame(const fermt_track_frame_args* args) {
  if (args && args->struct_size == static_cast<int64_t>(sizeof *args) && args->batch > 0 && !args->maps)
    return FERMT_NULL_POINTER;
  return frame_call(args, &fermt::FrameKernels::track_frame);
}

int32_t fermt_fma_peak(fermt_fma_peak_args* args) {
  if (!args) return FERMT_NULL_POINTER;
  if (args->struct_size != static_cast<int64_t>(sizeof *args)) return FERMT_BAD_STRUCT_SIZE;
  if (args->dtype != FERMT_FLOAT32 && args->dtype != FERMT_BFLOAT16) return FERMT_BAD_DTYPE;
  if (args->threads < 1 || args->threads > 65536 || args->iterations < 1 || args->iterations > kMaxElements)
    return FERMT_BAD_SIZE;
  return fermt::selected_table().fma_peak(args);
}

}  // extern "C"
