#include "ops/attention_backward.h"

#include "isa/kernel_table.h"

fermt_status fermt::FERMT_ISA::attention_backward(const fermt_attention_backward_args& a) {
  return for_dtype(a.shape.dtype, [&](auto value) { return attention_backward_as<decltype(value)>(a); });
}
