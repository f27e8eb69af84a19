#include "ops/linear.h"

#include "isa/kernel_table.h"

fermt_status fermt::FERMT_ISA::linear_forward(const fermt_linear_forward_args& args) {
  return args.shape.dtype == FERMT_BFLOAT16 ? linear_forward_as<NumberOf<BFloat16>::type>(args)
                                            : linear_forward_as<float>(args);
}

fermt_status fermt::FERMT_ISA::linear_backward(const fermt_linear_backward_args& args) {
  return args.shape.dtype == FERMT_BFLOAT16 ? linear_backward_as<NumberOf<BFloat16>::type>(args)
                                            : linear_backward_as<float>(args);
}
