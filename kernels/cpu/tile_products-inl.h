// What linears on a tile unit share, of bf16 weights (tiles.cc) and of int8 ones (int8_tiles.cc): the
// products of a few tiles, and what the thread does beside them. Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_TILE_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#undef SESSA_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#else
#define SESSA_KERNELS_CPU_TILE_PRODUCTS_INL_H_
#endif

#include <algorithm>
#include <bit>

#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8_state-inl.h"
#include "kernels/cpu/tile_unit.h"
#include "kernels/cpu/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// Two rows of k of a panel of int8 as a row of a tile of bf16, which they are exactly.
HWY_INLINE void WidenPair(const int8_t* from, uint16_t* to) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  for (int v = 0; v < kPanel; v += static_cast<int>(kLanes)) {
    const auto even = hn::BitCast(u, LoadInt8(from + v)), odd = hn::BitCast(u, LoadInt8(from + kPanel + v));
    hn::StoreU(hn::Or(hn::ShiftRight<16>(even), odd), u, reinterpret_cast<uint32_t*>(to) + v);
  }
}

// Asks for a line that is going to be written. (gcc's builtin asks for a read where its flags name no
// prefetchw, which every x86-64 takes, for nothing at worst.)
HWY_INLINE void PrefetchToWrite(const void* p) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" ::"m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

// What a thread does while its tile unit works, a little with each step of k: it asks for the weights that
// come next (a few cache lines; bursts would stop the unit's own loads: 256 lines at once halved the rate),
// and hands on the sums of the product before (all at once took a third of the time of 576 of k).
constexpr int kMostPairs = 16;  // of row tiles at once: 64 KiB of sums

class Background {
 public:
  // gated: of two panels, the second is of another matrix, which the epilogue kSiluGate multiplies by.
  // steps: until the sums of a product are wanted for the next.
  Background(Epilogue epilogue, bool gated, const TileOutput& out, int steps)
      : epilogue_(epilogue),
        gated_(gated),
        out_(out),
        rows_at_once_(std::bit_ceil(static_cast<unsigned>(CeilDiv(2 * kTileRows, steps)))) {}
  ~Background() { Finish(); }

  // The weights of two panels from `next` on, `bytes` of each (0: of one alone), `lines` with each step.
  void Ask(const char* next, const char* second, int64_t bytes, int lines) {
    next_ = next, end_ = next + bytes, second_ = second - next, lines_ = lines;
  }
  // Where the tiles of a pair's product are summed, [2 row tiles][2 panels], one whole tile after the other:
  // rows of C, often a power of two apart, would fall into the same cache sets.
  float* sums(int pair) { return sums_[pair]; }
  // The pair for a single one: while its sums are handed on the next ones need a place of their own.
  int OtherPair() { return other_pair_ ^= 1; }
  // Some of them are still on their way to the output.
  bool IsHandingOn(const float* sums) const { return row_ < rows_ && sums == ready_; }
  // As HandOn, a product earlier: lines of the output that others wrote, or no one lately, take hundreds of
  // cycles to come, and stores that wait for them hold up the tiles'.
  void WriteSoon(int first_row, int rows, int column, int columns) {
    if (out_.c == nullptr) return;
    to_write_ = out_.c + first_row * out_.ldc + column;
    rows_to_write_ = rows, columns_to_write_ = columns;
  }
  // They are there, and become `rows` rows of the output from a row and a column on, within the next `steps`
  // steps.
  void HandOn(int pair, int first_row, int rows, int column, int columns) {
    Finish();
    ready_ = sums(pair);
    row_ = 0, rows_ = rows, first_row_ = first_row, column_ = column, columns_ = columns;
  }
  // Two panels' next weights, a byte each, become tiles at `to`, the second's `to_second` values on: `pairs`
  // pairs of k of each, `each` with a step.
  void Widen(const int8_t* from, const int8_t* second, int pairs, uint16_t* to, int64_t to_second, int each) {
    from_ = from, from_second_ = second - from, to_ = to, to_second_ = to_second;
    pairs_ = pairs, each_ = each;
  }
  void FinishWidening() { WidenPairs(pairs_); }
  HWY_NOINLINE void Step() {
    for (int i = 0; i < lines_ && next_ < end_; ++i, next_ += 64) {
      __builtin_prefetch(next_, 0, 2);
      __builtin_prefetch(next_ + second_, 0, 2);
    }
    if (pairs_ > 0) WidenPairs(std::min(pairs_, each_));
    for (int i = std::min(rows_to_write_, rows_at_once_); i > 0;
         --i, --rows_to_write_, to_write_ += out_.ldc) {
      for (int j = 0; j < columns_to_write_; j += kPanel) PrefetchToWrite(to_write_ + j);
    }
    const int due = std::min(rows_, row_ + rows_at_once_);
    while (row_ < due) HandOnRows();
  }
  void Finish() {
    while (row_ < rows_) HandOnRows();
  }

 private:
  HWY_INLINE void WidenPairs(int pairs) {
    pairs_ -= pairs;
    for (; pairs > 0; --pairs, from_ += 2 * kPanel, to_ += 2 * kPanel) {
      WidenPair(from_, to_);
      WidenPair(from_ + from_second_, to_ + to_second_);
    }
  }
  HWY_INLINE void HandOnRows() {
    const int tile = row_ / kTileRows, r = row_ % kTileRows,
              rows = std::min({rows_at_once_, kTileRows - r, rows_ - row_});
    float* z = ready_ + 2 * tile * kTileSums + r * kPanel;
    const int row = first_row_ + row_;
    row_ += rows;
    if (gated_) {
      float* product = z + kTileSums;
      Apply(epilogue_, z, kPanel, rows, kPanel, product, kPanel);
      if (out_.tiles != nullptr) return StoreLeft(product, rows, row);
      return Apply(Epilogue::kNone, product, kPanel, rows, columns_, out_.c + row * out_.ldc + column_,
                   out_.ldc);
    }
    for (int p = 0; p < columns_; p += kPanel, z += kTileSums) {
      Apply(epilogue_, z, kPanel, rows, std::min(columns_ - p, kPanel), out_.c + row * out_.ldc + column_ + p,
            out_.ldc);
    }
  }
  // A panel of values as part of a left side, as PackTiles leaves it.
  HWY_INLINE void StoreLeft(const float* x, int rows, int row) {
    uint16_t* to = out_.tiles + (int64_t{row / kTileRows} * out_.steps + column_ / kTileDepth) * kTileValues +
                   row % kTileRows * kTileDepth + column_ % kTileDepth;
    for (int r = 0; r < rows; ++r, x += kPanel, to += kTileDepth) {
      alignas(64) uint32_t bits[kPanel];
      for (int v = 0; v < kPanel; v += kLanes)
        hn::Store(RoundAs(DType::kBF16, hn::Load(kF, x + v)), kF, reinterpret_cast<float*>(bits) + v);
      for (int j = 0; j < kPanel; ++j) to[j] = static_cast<uint16_t>(bits[j] >> 16);
    }
  }

  alignas(64) float sums_[kMostPairs][4 * kTileSums];
  int other_pair_ = 0;
  float* ready_ = nullptr;
  const Epilogue epilogue_;
  const bool gated_;
  const TileOutput out_;
  const int rows_at_once_;
  const char *next_ = nullptr, *end_ = nullptr;
  int64_t second_ = 0;
  const int8_t* from_ = nullptr;
  uint16_t* to_ = nullptr;
  int64_t from_second_ = 0, to_second_ = 0;
  int pairs_ = 0, each_ = 0;
  const float* to_write_ = nullptr;
  int rows_to_write_ = 0, columns_to_write_ = 0;
  int lines_ = 0, row_ = 0, rows_ = 0, first_row_ = 0, column_ = 0, columns_ = 0;
};

// What sums begin as: a row for each panel, of all their rows; or what they were [2 row tiles][2 panels].
struct StartOfSums {
  const float* data;
  bool rows;
  template <class Unit, int kSum>
  HWY_INLINE void Load() const {
    rows ? Unit::template Load<kSum>(data + kSum % 2 * kPanel, 0)
         : Unit::template Load<kSum>(data + kSum * kTileSums, kPanel * sizeof(float));
  }
};

// Some steps of kRowTiles x kPanels tiles of C: tiles 0 to 3 are sums [2 row tiles][2 panels], 4 and 5 the
// left side, 6 and 7 the weights. `row_tile` values are between tiles of the left side, `panel` bytes between
// panels (of two matrices, where they are gated). The weights serve many rows, and stay in the first-level
// cache as the left side goes past it.
template <class Unit, int kRowTiles, int kPanels, int kTerms>
HWY_INLINE void TileProduct(const uint16_t* a, int64_t row_tile, const char* b, int64_t panel, int steps,
                            const StartOfSums& start, float* sums, Background* background) {
  start.Load<Unit, 0>();
  if constexpr (kPanels == 2) start.Load<Unit, 1>();
  if constexpr (kRowTiles == 2) start.Load<Unit, 2>();
  if constexpr (kRowTiles == 2 && kPanels == 2) start.Load<Unit, 3>();
  for (int i = 0; i < steps; ++i, b += kTileValues * 2) {
    background->Step();
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t, a += kTileValues) {
      if (t == 0) Unit::template Load<6>(b, 64);
      Unit::template LoadPast<4>(a, 64);
      if constexpr (kPanels == 2) {
        if (t == 0) Unit::template Load<7>(b + panel, 64);
      }
      Unit::template DotBf16<0, 4, 6>();
      if constexpr (kRowTiles == 2) Unit::template LoadPast<5>(a + row_tile, 64);
      if constexpr (kPanels == 2) Unit::template DotBf16<1, 4, 7>();
      if constexpr (kRowTiles == 2) Unit::template DotBf16<2, 5, 6>();
      if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template DotBf16<3, 5, 7>();
    }
  }
  Unit::template Store<0>(sums, 64);
  if constexpr (kPanels == 2) Unit::template Store<1>(sums + kTileSums, 64);
  if constexpr (kRowTiles == 2) Unit::template Store<2>(sums + 2 * kTileSums, 64);
  if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template Store<3>(sums + 3 * kTileSums, 64);
}

// Of each of two panels, with each step: 32 are what a step reads. Up to 32 rows wait for memory, and the
// hardware looks ahead for them.
constexpr int LinesToAsk(int tiles) { return tiles > 2 ? CeilDiv(16, CeilDiv(tiles, 2)) : 0; }

// The products of one tile of the left side's terms (4 to 6) with a tile of weights, to the sums kSum.
template <class Unit, int kTerms, int kSum>
HWY_INLINE void AddProducts(const char* b) {
  Unit::template Load<7>(b, 64);
  Unit::template DotBf16<kSum, 4, 7>();
  if constexpr (kTerms == 3) {
    Unit::template DotBf16<kSum, 5, 7>();
    Unit::template DotBf16<kSum, 6, 7>();
  }
}

// A single row tile and kPanels panels: as many chains of products, each of which waits 52 cycles for the one
// before. kRowTiles == 1 of TileProduct has two, and one row took it 1.5 times as long. bias: null is 0,
// which needs no load. meanwhile(step, panel) is what the thread does while the unit works.
template <class Unit, int kPanels, int kTerms, class Meanwhile>
HWY_INLINE void FewRowsProduct(const uint16_t* a, int left_tile, const char* b, int64_t panel, int steps,
                               const float* bias, float* c, int64_t ldc, const Meanwhile& meanwhile) {
  if (bias == nullptr) {
    Unit::template Zero<0>();
    if constexpr (kPanels > 1) Unit::template Zero<1>();
    if constexpr (kPanels > 2) Unit::template Zero<2>();
    if constexpr (kPanels > 3) Unit::template Zero<3>();
  } else {
    Unit::template Load<0>(bias, 0);
    if constexpr (kPanels > 1) Unit::template Load<1>(bias + kPanel, 0);
    if constexpr (kPanels > 2) Unit::template Load<2>(bias + 2 * kPanel, 0);
    if constexpr (kPanels > 3) Unit::template Load<3>(bias + 3 * kPanel, 0);
  }
  for (int i = 0; i < steps; ++i, a += kTerms * left_tile, b += kTileValues * 2) {
    Unit::template Load<4>(a, 64);
    if constexpr (kTerms == 3) Unit::template Load<5>(a + left_tile, 64);
    if constexpr (kTerms == 3) Unit::template Load<6>(a + 2 * left_tile, 64);
    AddProducts<Unit, kTerms, 0>(b), meanwhile(i, 0);
    if constexpr (kPanels > 1) AddProducts<Unit, kTerms, 1>(b + panel), meanwhile(i, 1);
    if constexpr (kPanels > 2) AddProducts<Unit, kTerms, 2>(b + 2 * panel), meanwhile(i, 2);
    if constexpr (kPanels > 3) AddProducts<Unit, kTerms, 3>(b + 3 * panel), meanwhile(i, 3);
  }
  const int64_t stride = ldc * sizeof(float);
  Unit::template Store<0>(c, stride);
  if constexpr (kPanels > 1) Unit::template Store<1>(c + kPanel, stride);
  if constexpr (kPanels > 2) Unit::template Store<2>(c + 2 * kPanel, stride);
  if constexpr (kPanels > 3) Unit::template Store<3>(c + 3 * kPanel, stride);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
