// The kernels of each instruction set, and which of them this CPU runs: one table row an instruction set, chosen once.
//
// Every file of csrc/ops and csrc/frame is compiled once a row, with the row's name as FERMT_ISA and its flags. The
// build passes the rows it compiles, best first, as FERMT_ROWS(ROW, HAS, TILES): ROW(name, HAS(feature) ...), with
// TILES among the features where the row needs AMX.

#pragma once

#include "abi/fermt.h"
#include "abi/packed_model.h"

#ifndef FERMT_ROWS
#define FERMT_ROWS(ROW, HAS, TILES) ROW(generic, )
#endif

namespace fermt {

// A frame's kernels for one precision of packed models.
struct FrameKernels {
  fermt_status (*info)(const PackedModel&, int64_t batch, int64_t* cache_bytes, int64_t* workspace_bytes);
  fermt_status (*encode_template)(const PackedModel&, const fermt_encode_template_args&);
  fermt_status (*track_frame)(const PackedModel&, const fermt_track_frame_args&);
};

struct KernelTable {
  const char* name;
  bool (*supported)();
  fermt_status (*attention_forward)(const fermt_attention_forward_args&);
  fermt_status (*attention_backward)(const fermt_attention_backward_args&);
  fermt_status (*dual_attention_unit_forward)(const fermt_dual_attention_unit_forward_args&);
  fermt_status (*dual_attention_unit_backward)(const fermt_dual_attention_unit_backward_args&);
  fermt_status (*linear_forward)(const fermt_linear_forward_args&);
  fermt_status (*linear_backward)(const fermt_linear_backward_args&);
  fermt_status (*fma_peak)(fermt_fma_peak_args*);
  const FrameKernels *frame_float32, *frame_bfloat16, *frame_int8;

  const FrameKernels& frame(const PackedModel& model) const;
};

#define FERMT_NOTHING(feature)
#define FERMT_DECLARE_KERNELS(name, features)                                                \
  namespace name {                                                                           \
  fermt_status attention_forward(const fermt_attention_forward_args&);                       \
  fermt_status attention_backward(const fermt_attention_backward_args&);                     \
  fermt_status dual_attention_unit_forward(const fermt_dual_attention_unit_forward_args&);   \
  fermt_status dual_attention_unit_backward(const fermt_dual_attention_unit_backward_args&); \
  fermt_status linear_forward(const fermt_linear_forward_args&);                             \
  fermt_status linear_backward(const fermt_linear_backward_args&);                           \
  fermt_status fma_peak(fermt_fma_peak_args*);                                               \
  extern const FrameKernels frame_float32, frame_bfloat16, frame_int8;                       \
  }
FERMT_ROWS(FERMT_DECLARE_KERNELS, FERMT_NOTHING, )

const KernelTable* table_row(int row);  // in order of preference, null past the last
const KernelTable& selected_table();
fermt_status select_table(const char* name);

}  // namespace fermt
