// Softmax attention over paged bf16 or int8 state on a tile unit (tiles.h): the scores and the weighted
// values of many rows at once. Int8 state (int8_state.h) becomes bf16 tiles first, or floats for few rows;
// its values are exact in both.
//
// Cached keys are tiles of the unit as they lie: 16 tokens by 16 pairs of the dimension; so are the values of
// 32 tokens and 16 columns. Queries and probabilities are the left side, as one bf16 term or a sum of three.
// Each score, and each weighted value of 32 tokens, is a sum as the unit takes it: a chain over the even k
// and one over the odd k, from 0, for each term. Tokens that a row does not see weigh 0, so a row's result
// does not depend on the rows beside it. kJointTiles tiles of a chain, cut at absolute positions, share a
// maximum. Few rows have the same bits from the vector unit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tiles.h"

namespace sessa::cpu {

inline constexpr int kJointTiles = 2;

struct TileQueries {
  MatrixUnit unit;
  int terms;             // 1 or 3
  const uint16_t* rows;  // as PackTiles leaves them
};

// The first tile of chain `chain`, of every step-th tile, that is not read before `tile`: where reads of a
// chain that share maxima by `joint` tiles may be cut.
constexpr int CutOfChain(int tile, int chain, int step, int joint) {
  const int tiles = tile > chain ? CeilDiv(tile - chain, step) : 0;
  return chain + tiles / joint * joint * step;
}

constexpr int64_t TileAttendScratch(int dim, int width, DType dtype) {  // floats
  const int64_t sums = int64_t{kTile} * std::max(width, RoundUp(dim, kTileDepth));
  const int64_t tiles = int64_t{kJointTiles} * kTile * (PanelRows(dim) + width + kPanel) / 2;
  return sums + (dtype == DType::kI8 ? tiles : 0);
}

// As AttendTiles, of bf16 or int8 state, but for AttendArgs::q and the bf16 pairs, from a `state` that is
// empty yet or what a call left that ended at a multiple of kJointTiles tiles of the chain. The values of the
// last tile, where its probabilities are wanted, enter in float32, token by token.
void AttendOnTiles(const TileQueries& queries, const AttendArgs& args, const PagedState& cache,
                   SoftmaxState state, float* scratch);  // of TileAttendScratch floats, from a cache line on

}  // namespace sessa::cpu
