#include "ops/attention_forward.h"

#include "isa/kernel_table.h"

fermt_status fermt::FERMT_ISA::attention_forward(const fermt_attention_forward_args& a) {
  return for_dtype(a.shape.dtype, [&](auto value) { return attention_forward_as<decltype(value)>(a); });
}
