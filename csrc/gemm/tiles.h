// Matrix products by AMX: a tile register holds 16 rows of 64 bytes, and one instruction multiplies two of them and
// adds the product to a third.
//
// Packed operands have the layout that the instructions take: 16 packed elements of 16 rows of activations are one
// tile, and 16 packed k of 16 columns of a panel another. Their sums are 16 x 16 floats, or int32 of int8.

#pragma once

#include <string.h>

#include "gemm/product.h"
#include "simd/vector.h"

namespace {

// Whether products of a packed type are made by tiles.
template <class Packed>
constexpr bool kTiled = false;

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)

template <>
constexpr bool kTiled<BFloat16Pair> = true;
template <>
constexpr bool kTiled<Int8Quad> = true;

constexpr int64_t kTileSide = 16;  // rows of a tile, and its 4-byte elements in a row

// Gives the calling thread eight tiles while it lives: full ones, or with tile 2 cut to `depth` elements a row and
// tiles 3 and 4 to as many rows, for products of rows that short. The previous configuration is put back, for
// other libraries may keep theirs between calls.
class TileScope {
 public:
  explicit TileScope(int64_t depth = kTileSide) {
    Config config = {};
    config.palette = 1;
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = kTileSide;
    config.row_bytes[2] = static_cast<uint16_t>(4 * depth);
    config.rows[3] = config.rows[4] = static_cast<uint8_t>(depth);
    __asm__ volatile("sttilecfg %0" : "=m"(before_));
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileScope() { __asm__ volatile("ldtilecfg %0" : : "m"(before_)); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Config) == 64, "as the instructions take it");
  Config before_;
};

template <int Tile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
template <int Tile>
inline void tile_load(const void* from, int64_t row_bytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int Tile>
inline void tile_store(void* to, int64_t row_bytes) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int Sum, int A, int B>
inline void tile_multiply_add(BFloat16Pair) {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}
template <int Sum, int A, int B>
inline void tile_multiply_add(Int8Quad) {  // unsigned bytes of A, signed of B
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}

// Sums of Rows x Columns tiles: a rectangle of 16 Rows rows by 16 Columns columns.
template <int Rows, int Columns>
struct TileBlock {
  static constexpr int kA = Rows * Columns, kB = kA + Rows;  // the first tile of each operand
  static_assert(kB < 8, "eight tiles are all there are");

  template <int R, int C>
  static constexpr int kSum = R * Columns + C;
  template <int C>
  static constexpr int kColumn = kB + C % (8 - kB);

  template <class Body>
  static void for_columns(Body&& body) {
    body(Constant<0>{});
    if constexpr (Columns > 1) body(Constant<1>{});
    if constexpr (Columns > 2) body(Constant<2>{});
    if constexpr (Columns > 3) body(Constant<3>{});
  }
  static void clear() {
    for_columns([](auto c) {
      tile_zero<kSum<0, c.value>>();
      if constexpr (Rows > 1) tile_zero<kSum<Rows - 1, c.value>>();
    });
  }

  // Adds the product of 16 packed k: `a` and `b` are the first elements, their rows the given bytes apart.
  template <class Packed>
  static void add(const Packed* a, int64_t a_bytes, const Packed* b, int64_t b_bytes) {
    tile_load<kA>(a, a_bytes);
    if constexpr (Rows > 1) tile_load<kA + 1>(reinterpret_cast<const char*>(a) + kTileSide * a_bytes, a_bytes);
    for_columns([&](auto c) {
      tile_load<kColumn<c.value>>(b + c.value * kTileSide, b_bytes);
      tile_multiply_add<kSum<0, c.value>, kA, kColumn<c.value>>(Packed{});
      if constexpr (Rows > 1) tile_multiply_add<kSum<Rows - 1, c.value>, kA + Rows - 1, kColumn<c.value>>(Packed{});
    });
  }

  // Sums in rows of 16 Columns elements.
  static void store(float* to) {
    constexpr int64_t kBytes = Columns * kTileSide * sizeof(float);
    for_columns([&](auto c) {
      tile_store<kSum<0, c.value>>(to + c.value * kTileSide, kBytes);
      if constexpr (Rows > 1)
        tile_store<kSum<Rows - 1, c.value>>(to + (kTileSide * Columns + c.value) * kTileSide, kBytes);
    });
  }
};

// Copies `rows` x `count` packed elements into `padded_rows` rows of 16; the rest is 0.
template <class Packed>
inline void pad_tile(const Packed* from, int64_t stride, int64_t rows, int64_t count, int64_t padded_rows, Packed* to) {
  const __mmask16 lanes = static_cast<__mmask16>((1u << count) - 1);
  for (int64_t r = 0; r < padded_rows; ++r)
    _mm512_store_si512(to + r * kTileSide,
                       r < rows ? _mm512_maskz_loadu_epi32(lanes, from + r * stride) : _mm512_setzero_si512());
}

// out[r][c] = sum over k of a[r][k] * panel[k][c] of up to 16 Rows rows and 16 Columns columns, out in rows of
// 16 Columns. Missing rows and k count as 0. Prefetches `lines` cache lines from `line` on with every 16 packed k.
template <int Rows, int Columns, class Packed>
__attribute__((noinline)) void tile_product(const Packed* a, int64_t stride, int64_t rows, const Packed* panel,
                                            int64_t width, int64_t packed_k, const char* line, int64_t lines,
                                            float* out) {
  using Block = TileBlock<Rows, Columns>;
  constexpr int64_t kRows = Rows * kTileSide, kWidth = Columns * kTileSide;
  alignas(64) Packed padded_a[kRows * kTileSide], padded_b[kTileSide * kWidth];
  Block::clear();
  for (int64_t k = 0; k < packed_k; k += kTileSide) {
    const int64_t left = packed_k - k;
    const Packed *from_a = a + k, *from_b = panel + k * width;
    int64_t a_bytes = stride * sizeof(Packed), b_bytes = width * sizeof(Packed);
    if (rows < kRows || left < kTileSide) {
      pad_tile(from_a, stride, rows, left < kTileSide ? left : kTileSide, kRows, padded_a);
      from_a = padded_a;
      a_bytes = kTileSide * sizeof(Packed);
    }
    if (left < kTileSide) {
      memset(static_cast<void*>(padded_b), 0, sizeof padded_b);
      for (int64_t i = 0; i < left; ++i) memcpy(padded_b + i * kWidth, from_b + i * width, kWidth * sizeof(Packed));
      from_b = padded_b;
      b_bytes = kWidth * sizeof(Packed);
    }
    Block::add(from_a, a_bytes, from_b, b_bytes);
    for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(line + i * 64, 0, 2);
    line += lines * 64;
  }
  Block::store(out);
}

// epilogue(row, column, sum) for all rows of 16 Columns columns. The epilogue is a copy, as in product_tile.
template <int Columns, class Packed, class Epilogue>
inline void tile_columns(const Packed* a, int64_t stride, int64_t rows, const Packed* panel, int64_t width,
                         int64_t packed_k, const char* next, int64_t next_lines, Epilogue epilogue) {
  constexpr int kRows = Columns > 2 ? 1 : 2;  // four tiles of sums
  alignas(64) float sums[2 * kTileSide * Columns * kTileSide];
  const int64_t steps = (rows + kRows * kTileSide - 1) / (kRows * kTileSide);
  const int64_t per_step = (packed_k + kTileSide - 1) / kTileSide;
  const int64_t lines = (next_lines + steps * per_step - 1) / (steps * per_step);
  for (int64_t first = 0; first < rows; first += kRows * kTileSide, next += lines * per_step * 64) {
    const int64_t left = rows - first, count = left < kRows * kTileSide ? left : kRows * kTileSide;
    if (kRows == 2 && count <= kTileSide)
      tile_product<1, Columns>(a + first * stride, stride, count, panel, width, packed_k, next, lines, sums);
    else
      tile_product<kRows, Columns>(a + first * stride, stride, count, panel, width, packed_k, next, lines, sums);
    FERMT_ROLLED
    for (int64_t r = 0; r < count; ++r)
      for (int c = 0; c < Columns; ++c)
        epilogue(first + r, c * kTileSide, load_as<typename SumOf<Packed>::type>(sums + (r * Columns + c) * kTileSide));
  }
}

// gemm_panel by tiles, in a thread that holds a TileScope; `width` is a multiple of 16.
template <class Packed, class Epilogue>
inline void tile_panel(const Packed* a, int64_t stride, int64_t rows, const Packed* panel, int64_t width,
                       int64_t packed_k, const Packed* after, Epilogue epilogue) {
  const char* next = reinterpret_cast<const char*>(after);
  const auto columns = [&](auto tile, int64_t column) {
    constexpr int kColumns = decltype(tile)::value;
    const int64_t lines = packed_k * kColumns;  // of 64 bytes: as many as these columns have
    tile_columns<kColumns>(a, stride, rows, panel + column, width, packed_k, next, lines,
                           [=](int64_t row, int64_t c, auto sum) { epilogue(row, column + c, sum); });
    next += lines * 64;
  };
  int64_t column = 0;
  if (rows <= kTileSide)
    for (; column + 4 * kTileSide <= width; column += 4 * kTileSide) columns(Constant<4>{}, column);
  for (; column + 2 * kTileSide <= width; column += 2 * kTileSide) columns(Constant<2>{}, column);
  for (; column < width; column += kTileSide) columns(Constant<1>{}, column);
}

#else

struct TileScope {
  explicit TileScope(int64_t = 0) {}
};

template <class Packed, class Epilogue>
inline void tile_panel(const Packed*, int64_t, int64_t, const Packed*, int64_t, int64_t, const Packed*,
                       const Epilogue&) {}

#endif

}  // namespace
