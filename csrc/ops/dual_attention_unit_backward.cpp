#include "ops/dual_attention_unit_backward.h"

#include "isa/kernel_table.h"

fermt_status fermt::FERMT_ISA::dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args& args) {
  return args.shape.channels == 3 ? dual_attention_unit_backward_as<3>(args)
                                  : dual_attention_unit_backward_as<0>(args);
}
