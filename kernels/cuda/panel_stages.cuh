// The stages of panel_scores.cu and panel_values.cu: 64 columns or keys, 48 KiB, copied two ahead into four
// places; a stage is 1024 cycles of the tensor cores, in which 48 KiB come in and 80 (64) KiB are read from
// shared memory at 128 bytes a cycle. Of int8 state come 16 KiB instead of 32, three ahead, which are widened
// while the stage before is computed with (widen.cuh): three places are enough then.
#pragma once

#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/widen.cuh"

namespace sessa::cuda {

inline constexpr int kStages = 4, kAhead = 2;
inline constexpr int kBlockThreads = 2 * kWarpgroup;
inline constexpr int kColumns = kPanelColumns;
inline constexpr int kFragments = kPanelKeys / 8;
static_assert(kColumns == kPanelKeys && kBlockThreads == kThreads && kPanelDepth == kStateGroup);

// The places of a stage of keys or values, and of int8 those where its copies and the next one's are.
template <class T>
inline constexpr int kStatePlaces = kIsInt8<T> ? 3 : kStages;
template <class T>
struct NarrowStages {};
inline constexpr int kNarrowCopies = kPanelKeys * kPanelDepth / kNarrowChunk / kBlockThreads;
template <>
struct NarrowStages<Int8> {
  NarrowCopies<kNarrowCopies, kBlockThreads> narrow[2];
};

// The first stages on their way, and the first of int8 widened. narrow, load: start a stage's copies (load's
// with the next one's of narrow); find_exponents, widen: of a stage that is there.
template <class T, class Narrow, class FindExponents, class Load, class Widen>
__device__ __forceinline__ void StartStages(const Narrow& narrow, const FindExponents& find_exponents,
                                            const Load& load, const Widen& widen) {
  if constexpr (kIsInt8<T>) {
    narrow(0);
    CommitCopies();
    find_exponents(0);
  }
  load(0);
  if constexpr (kIsInt8<T>) {
    WaitForCopies<1>();
    widen(0);
  }
  static_assert(kAhead == 2);
  load(1);
}

// The first position of a softmax tile of this rank, of its own tiles the n-th.
__device__ __forceinline__ int TilePosition(const PanelRead& read, int n) {
  const int share = kChains / read.num_ranks;
  return (read.num_ranks == 1 ? n : n / share * kChains + read.rank + n % share * read.num_ranks) * kTile;
}

}  // namespace sessa::cuda
