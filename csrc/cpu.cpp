#include "cpu.h"

#include <atomic>
#include <cstring>

namespace fermt {
namespace {

const KernelTable* const kRows[] = {
#ifdef FERMT_HAVE_AVX512_BF16
    &kAvx512Bf16Table,
#endif
#ifdef FERMT_HAVE_AVX512
    &kAvx512Table,
#endif
#ifdef FERMT_HAVE_AVX2
    &kAvx2Table,
#endif
    &kGenericTable,
};
constexpr int kRowCount = sizeof(kRows) / sizeof(kRows[0]);

const KernelTable* best_row() {
  for (const KernelTable* row : kRows)
    if (row->supported()) return row;
  return &kGenericTable;
}

std::atomic<const KernelTable*> g_selected{nullptr};

}  // namespace

const KernelTable* table_row(int row) { return row >= 0 && row < kRowCount ? kRows[row] : nullptr; }

const KernelTable& selected_table() {
  const KernelTable* row = g_selected.load(std::memory_order_relaxed);
  if (!row) {
    row = best_row();
    g_selected.store(row, std::memory_order_relaxed);
  }
  return *row;
}

fermt_status select_table(const char* name) {
  for (const KernelTable* row : kRows) {
    if (std::strcmp(row->name, name) != 0) continue;
    if (!row->supported()) return FERMT_UNSUPPORTED_ISA;
    g_selected.store(row, std::memory_order_relaxed);
    return FERMT_OK;
  }
  return FERMT_UNKNOWN_ISA;
}

}  // namespace fermt
