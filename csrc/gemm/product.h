// The inner loop of every matrix product: a tile of sums that stays in registers.

#pragma once

#include "simd/bfloat16.h"
#include "simd/int8.h"
#include "simd/neon.h"
#include "simd/vector.h"

namespace {

// The accumulator type of a packed type.
template <class Packed>
struct SumOf {
  typedef Vec type;
};
template <>
struct SumOf<ByteOperand> {
  typedef VecInt type;
};

// sums[c] += value * columns[c]; simd/neon.h has others, which broadcast without an instruction of its own.
template <int Vectors, class Packed, class Sum, class Column>
inline void add_products(const Packed* value, const Column (&columns)[Vectors], Sum (&sums)[Vectors]) {
  const auto factor = splat(*value);
  FERMT_UNROLL
  for (int c = 0; c < Vectors; ++c) sums[c] = multiply_add(sums[c], factor, columns[c]);
}

// For Rows rows and Vectors vectors of columns: epilogue(r, c, sum over i of rows[r][i] * columns[i][c]). The sum is
// made of Chains interleaved ones; two keep float32's error smaller than one does. The epilogue is a copy, so that its
// pointers stay in registers: the compiler would otherwise assume that its stores change them. prefetch(i) is called in
// the loop.
template <int Rows, int Vectors, int Chains, class Packed, class Epilogue, class Prefetch>
inline void product_tile(const Packed* rows, int64_t row_stride, int64_t inner_stride, const Packed* columns,
                         int64_t column_stride, int64_t inner, Epilogue epilogue, Prefetch prefetch) {
  typename SumOf<Packed>::type acc[Chains][Rows][Vectors] = {};
  const auto step = [&](int64_t i, int chain) {
    decltype(load(columns)) column[Vectors];
    FERMT_UNROLL
    for (int c = 0; c < Vectors; ++c) column[c] = load(columns + i * column_stride + c * kLanes);
    FERMT_UNROLL
    for (int r = 0; r < Rows; ++r) add_products(rows + r * row_stride + i * inner_stride, column, acc[chain][r]);
  };
  for (int64_t i = 0; i + Chains <= inner; i += Chains) {
    prefetch(i);
    FERMT_UNROLL
    for (int chain = 0; chain < Chains; ++chain) step(i + chain, chain);
  }
  if (inner % Chains) step(inner - 1, 0);
  FERMT_UNROLL
  for (int r = 0; r < Rows; ++r) {
    FERMT_UNROLL
    for (int c = 0; c < Vectors; ++c) epilogue(r, c, Chains == 2 ? acc[0][r][c] + acc[Chains - 1][r][c] : acc[0][r][c]);
  }
}

}  // namespace
