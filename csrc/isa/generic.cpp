// The row that any CPU can run: 16-byte vectors as the compiler lowers them.

#define FERMT_VECTOR_BYTES 16

#include "attention_kernel.h"
#include "cpu.h"

namespace {

bool supported() {
  return true;
}

}  // namespace

const fermt::KernelTable fermt::kGenericTable = {"generic", supported, attention_forward};
