#include "isa/kernel_table.h"

#include <atomic>
#include <cstring>

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__APPLE__) && defined(__aarch64__)
#include <sys/sysctl.h>
#endif

namespace fermt {
namespace {

// Whether the CPU has AMX for bfloat16 and int8, and the kernel lets this process use it, which it does when asked.
[[maybe_unused]] bool has_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBFloat16 | kTile | kInt8;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kAll) != kAll) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

#if defined(__aarch64__)

// Whether the CPU has an extension, of which Linux has a bit and macOS a name.
[[maybe_unused]] bool has_extension([[maybe_unused]] unsigned long entry, [[maybe_unused]] unsigned long bit,
                                    [[maybe_unused]] const char* name) {
#if defined(__linux__)
  return (getauxval(entry) & bit) != 0;
#elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
#else
  return false;
#endif
}

constexpr unsigned long kHwcap = 16, kHwcap2 = 26;  // AT_HWCAP, AT_HWCAP2
[[maybe_unused]] bool has_neon() { return true; }
[[maybe_unused]] bool has_dotprod() { return has_extension(kHwcap, 1ul << 20, "hw.optional.arm.FEAT_DotProd"); }
[[maybe_unused]] bool has_i8mm() { return has_extension(kHwcap2, 1ul << 13, "hw.optional.arm.FEAT_I8MM"); }

#define FERMT_HAS(feature) &&has_##feature()
#else
#define FERMT_HAS(feature) &&__builtin_cpu_supports(#feature)
#endif

#define FERMT_SUPPORTED(name, base, features) \
  bool name##_supported() { return true features; }
FERMT_ROWS(FERMT_SUPPORTED, FERMT_HAS, &&has_tiles())

#define FERMT_TABLE_ROW(name, base, features) \
  {#name,                                     \
   name##_supported,                          \
   base::attention_forward,                   \
   base::attention_backward,                  \
   base::dual_attention_unit_forward,         \
   base::dual_attention_unit_backward,        \
   base::linear_forward,                      \
   base::linear_backward,                     \
   base::fma_peak,                            \
   &base::frame_float32,                      \
   &base::frame_bfloat16,                     \
   &name::frame_int8},
const KernelTable kRows[] = {FERMT_ROWS(FERMT_TABLE_ROW, FERMT_NOTHING, )};
constexpr int kRowCount = sizeof(kRows) / sizeof(kRows[0]);

// The last row, which any CPU can run, if none before it is supported.
const KernelTable* best_row() {
  for (const KernelTable& row : kRows)
    if (row.supported()) return &row;
  return &kRows[kRowCount - 1];
}

std::atomic<const KernelTable*> g_selected{nullptr};

}  // namespace

const FrameKernels& KernelTable::frame(const PackedModel& model) const {
  switch (model.header->dtype) {
    case FERMT_FLOAT32:
      return *frame_float32;
    case FERMT_BFLOAT16:
      return *frame_bfloat16;
    default:
      return *frame_int8;
  }
}

const KernelTable* table_row(int row) { return row >= 0 && row < kRowCount ? &kRows[row] : nullptr; }

const KernelTable& selected_table() {
  const KernelTable* row = g_selected.load(std::memory_order_relaxed);
  if (row) return *row;
  // Another thread may have selected a row since: then that one is taken, and `row` is set to it.
  const KernelTable* best = best_row();
  return *(g_selected.compare_exchange_strong(row, best, std::memory_order_relaxed) ? best : row);
}

fermt_status select_table(const char* name) {
  for (const KernelTable& row : kRows) {
    if (std::strcmp(row.name, name) != 0) continue;
    if (!row.supported()) return FERMT_UNSUPPORTED_ISA;
    g_selected.store(&row, std::memory_order_relaxed);
    return FERMT_OK;
  }
  return FERMT_UNKNOWN_ISA;
}

}  // namespace fermt
