#include "ops/dual_attention_unit_forward.h"

#include "isa/kernel_table.h"

fermt_status fermt::FERMT_ISA::dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args& args) {
  return args.shape.channels == 3 ? dual_attention_unit_forward_as<3>(args)
                                  : dual_attention_unit_forward_as<0>(args);
}
