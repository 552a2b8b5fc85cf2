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
#include "kernels/cpu/tile_unit.h"
#include "kernels/cpu/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

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

// Sums that are the output's as they are.
struct SumsAsTheyAre {
  HWY_INLINE void operator()(float*, int, int, int) const {}
};

// What `Finish` makes of the sums before the epilogue: finish(sums, row, rows, panel) of some rows of a tile.
template <class Finish = SumsAsTheyAre>
class Background {
 public:
  // gated: of two panels, the second is of another matrix, which the epilogue kSiluGate multiplies by.
  // steps: until the sums of a product are wanted for the next.
  Background(Epilogue epilogue, bool gated, const TileOutput& out, int steps)
      : epilogue_(epilogue),
        gated_(gated),
        out_(out),
        rows_at_once_(std::bit_ceil(static_cast<unsigned>(CeilDiv(2 * kTileRows, steps)))) {}
  ~Background() { HandOnAll(); }

  // The weights of two panels from `next` on, `bytes` of each (0: of one alone), `lines` with each step.
  void Ask(const char* next, const char* second, int64_t bytes, int lines) {
    next_ = next, end_ = next + bytes, second_ = second - next, lines_ = lines;
  }
  // Where the tiles of a pair's product are summed, [2 row tiles][2 panels], one whole tile after the other:
  // rows of C, often a power of two apart, would fall into the same cache sets.
  float* sums(int pair) { return sums_[pair]; }
  // The pair for a single one: while its sums are handed on the next ones need a place of their own.
  int OtherPair() { return other_pair_ ^= 1; }
  // As HandOn, a product earlier: lines of the output that others wrote, or no one lately, take hundreds of
  // cycles to come, and stores that wait for them hold up the tiles'.
  void WriteSoon(int first_row, int rows, int column, int columns) {
    if (out_.c == nullptr) return;
    to_write_ = out_.c + first_row * out_.ldc + column;
    rows_to_write_ = rows, columns_to_write_ = columns;
  }
  // They are there, and become `rows` rows of the output from a row and a column on, within the next `steps`
  // steps.
  void HandOn(int pair, int first_row, int rows, int column, int columns, const Finish& finish) {
    HandOnAll();
    ready_ = sums(pair);
    finish_ = finish;
    row_ = 0, rows_ = rows, first_row_ = first_row, column_ = column, columns_ = columns;
  }
  HWY_NOINLINE void Step() {
    for (int i = 0; i < lines_ && next_ < end_; ++i, next_ += 64) {
      __builtin_prefetch(next_, 0, 2);
      __builtin_prefetch(next_ + second_, 0, 2);
    }
    for (int i = std::min(rows_to_write_, rows_at_once_); i > 0;
         --i, --rows_to_write_, to_write_ += out_.ldc) {
      for (int j = 0; j < columns_to_write_; j += kPanel) PrefetchToWrite(to_write_ + j);
    }
    const int due = std::min(rows_, row_ + rows_at_once_);
    while (row_ < due) HandOnRows();
  }
  void HandOnAll() {
    while (row_ < rows_) HandOnRows();
  }

 private:
  HWY_INLINE void HandOnRows() {
    const int tile = row_ / kTileRows, r = row_ % kTileRows,
              rows = std::min({rows_at_once_, kTileRows - r, rows_ - row_});
    float* z = ready_ + 2 * tile * kTileSums + r * kPanel;
    const int row = first_row_ + row_;
    row_ += rows;
    for (int p = 0; p < (gated_ ? 2 : CeilDiv(columns_, kPanel)); ++p)
      finish_(z + p * kTileSums, row, rows, p);
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
  Finish finish_;
  const Epilogue epilogue_;
  const bool gated_;
  const TileOutput out_;
  const int rows_at_once_;
  const char *next_ = nullptr, *end_ = nullptr;
  int64_t second_ = 0;
  const float* to_write_ = nullptr;
  int rows_to_write_ = 0, columns_to_write_ = 0;
  int lines_ = 0, row_ = 0, rows_ = 0, first_row_ = 0, column_ = 0, columns_ = 0;
};

// Of each of two panels, with each step: 32 are what a step reads. Up to 32 rows wait for memory, and the
// hardware looks ahead for them.
constexpr int LinesToAsk(int tiles) { return tiles > 2 ? CeilDiv(16, CeilDiv(tiles, 2)) : 0; }

// Steps of k at once, at most 18: the weights of two panels are 36 KiB of the first-level cache's 48, and
// serve up to kMostPairs pairs of left tiles there.
constexpr int StepsAtOnce(int steps) { return CeilDiv(steps, CeilDiv(steps, 18)); }

// Two panels (or one) for all rows, kRows of them at once: product(row, rows, step, steps, begins, sums)
// brings the sums some steps further, from their beginning on if it `begins`.
template <int kRows, class Finish, class Product>
HWY_INLINE void ForRows(int m, int steps, int column, int columns, const Finish& finish,
                        Background<Finish>* background, const Product& product) {
  constexpr int kBlock = kMostPairs * kRows;
  const int at_once = StepsAtOnce(steps);
  for (int first_row = 0; first_row < m; first_row += kBlock) {
    const int end = std::min(m, first_row + kBlock);
    const int first_pair = m <= kRows ? background->OtherPair() : 0;
    for (int step = 0; step < steps; step += at_once) {
      const int now = std::min(at_once, steps - step);
      const bool is_last = step + now == steps;
      for (int row = first_row, pair = first_pair; row < end; row += kRows, ++pair) {
        const int rows = std::min(end - row, kRows);
        if (is_last) background->WriteSoon(row, rows, column, columns);
        product(row, rows, step, now, step == 0, background->sums(pair));
        if (is_last) background->HandOn(pair, row, rows, column, columns, finish);
      }
    }
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
