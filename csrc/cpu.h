// Which kernels this CPU can run: one table row an instruction set, chosen once.

#pragma once

#include "abi.h"
#include "frame_model.h"

namespace fermt {

struct KernelTable {
  const char* name;
  bool (*supported)();
  fermt_status (*attention_forward)(const fermt_attention_forward_args&);
  fermt_status (*attention_backward)(const fermt_attention_backward_args&);
  fermt_status (*dual_attention_unit_forward)(const fermt_dual_attention_unit_forward_args&);
  fermt_status (*dual_attention_unit_backward)(const fermt_dual_attention_unit_backward_args&);
  fermt_status (*linear_forward)(const fermt_linear_forward_args&);
  fermt_status (*linear_backward)(const fermt_linear_backward_args&);
  fermt_status (*frame_info)(const PackedModel&, int64_t batch, int64_t* cache_bytes, int64_t* workspace_bytes);
  fermt_status (*encode_template)(const PackedModel&, const fermt_encode_template_args&);
  fermt_status (*track_frame)(const PackedModel&, const fermt_track_frame_args&);
  fermt_status (*fma_peak)(fermt_fma_peak_args*);
};

extern const KernelTable kGenericTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512Bf16Table;

const KernelTable* table_row(int row);  // in order of preference, null past the last
const KernelTable& selected_table();
fermt_status select_table(const char* name);

}  // namespace fermt
