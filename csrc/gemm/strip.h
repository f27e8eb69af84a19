// Strips of a panel: the columns that a tile takes at once, copied into memory without gaps and widened on the way,
// where the instruction set cannot multiply what the model stores. A strip is made once for all rows of a work item, so
// that it costs about a hundredth of the products; in place, the columns of a narrow tile would lie in a quarter of the
// L1's sets.

#pragma once

#include "gemm/pack.h"
#include "simd/bfloat16.h"
#include "simd/int8.h"
#include "simd/vector.h"

namespace {

constexpr int kGemmVectors = kManyRegisters ? 4 : 2;  // vectors of outputs in a tile
constexpr int64_t kStrip = kGemmVectors * kLanes;

// Operands that a stored element becomes.
template <class Stored, class Packed>
constexpr int64_t kWidening = kPackFactor<Stored> / kPackFactor<Packed>;

// Whether a tile reads `Columns` columns of a panel of `width` where they are.
template <class Stored, class Packed, int64_t Columns>
constexpr bool is_in_place(int64_t width) {
  return kWidening<Stored, Packed> == 1 && (kLanes == 16 || width == Columns);
}

// Size of a strip of packed_k operands, in operands.
template <class Stored, class Packed>
constexpr int64_t strip_size(int64_t packed_k) {
  return is_in_place<Stored, Packed, kStrip>(fermt::kPanel) ? 0 : packed_k * kStrip;
}

// `Columns` columns of `count` stored elements of k -> a strip.
template <int64_t Columns, class Stored, class Packed>
inline void pack_strip(const Stored* panel, int64_t width, int64_t count, Packed* to) {
  for (int64_t k = 0; k < count; ++k, panel += width) {
    if constexpr (kWidening<Stored, Packed> == 1) {
      memcpy(to, panel, Columns * sizeof(Packed));
      to += Columns;
    } else {
      FERMT_UNROLL
      for (int64_t c = 0; c < Columns; c += kLanes) {
        const auto wide = widened(panel + c);
        store(to + c, wide.first);
        store(to + Columns + c, wide.second);
      }
      to += 2 * Columns;
    }
  }
}

// Columns of a panel as a tile reads them, `width` packed elements apart.
template <class Packed>
struct Columns {
  const Packed* data;
  int64_t width;
};

// The first kStrip columns of `panel`, or as many as it has: in place or copied to `strip`.
template <class Packed>
inline Columns<Packed> columns_of(const Packed* panel, int64_t width, int64_t packed_k, Packed* strip) {
  if (is_in_place<Packed, Packed, kStrip>(width)) return {panel, width};
  pack_strip<kStrip>(panel, width, packed_k, strip);
  return {strip, kStrip};
}

}  // namespace
