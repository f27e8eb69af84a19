#include "abi.h"

#include "cpu.h"

namespace {

constexpr const char* kStatusText[] = {
    "ok",
    "the caller's struct has another size: library and caller are of different versions",
    "a pointer is null",
    "a size is negative or too large",
    "a stride is negative",
    "a span of keys or the number of template tokens lies outside the tokens",
    "out of memory",
    "the caller's threads reported a failure",
    "no such instruction set",
    "this CPU does not have that instruction set",
};
static_assert(sizeof(kStatusText) / sizeof(kStatusText[0]) == FERMT_UNSUPPORTED_ISA + 1, "a text for each status");

bool span_outside(const int64_t (&span)[2], int64_t tokens) {
  return span[0] < 0 || span[1] < span[0] || span[1] > tokens;
}

bool negative(const int64_t (&strides)[3]) { return strides[0] < 0 || strides[1] < 0 || strides[2] < 0; }

fermt_status check(const fermt_attention_forward_args& a) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  const int64_t sizes[] = {a.batch, a.heads, a.tokens, a.head_dim};
  int64_t elements = 1;
  for (int64_t size : sizes) {
    if (size < 0 || size > kLargest) return FERMT_BAD_SIZE;
    if (size > 0 && elements > kLargest / size) return FERMT_BAD_SIZE;
    elements *= size;
  }
  if (a.head_dim == 0) return FERMT_BAD_SIZE;
  if (a.num_template < 0 || a.num_template > a.tokens) return FERMT_BAD_SPAN;
  if (span_outside(a.template_keys, a.tokens) || span_outside(a.search_keys, a.tokens)) return FERMT_BAD_SPAN;
  if (negative(a.q_strides) || negative(a.k_strides) || negative(a.v_strides) || negative(a.out_strides))
    return FERMT_BAD_STRIDE;
  if (elements > 0 && !(a.q && a.k && a.v && a.out && a.lse)) return FERMT_NULL_POINTER;
  return FERMT_OK;
}

}  // namespace

extern "C" {

int32_t fermt_abi_version(void) { return FERMT_ABI_VERSION; }

const char* fermt_status_text(int32_t status) {
  return status >= 0 && status <= FERMT_UNSUPPORTED_ISA ? kStatusText[status] : "unknown status";
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

int32_t fermt_attention_forward(const fermt_attention_forward_args* args) {
  if (!args) return FERMT_NULL_POINTER;
  if (args->struct_size != sizeof(*args)) return FERMT_BAD_STRUCT_SIZE;
  if (fermt_status status = check(*args)) return status;
  return fermt::selected_table().attention_forward(*args);
}

}  // extern "C"
