// The unit that softmax, the state cache and tensor parallelism have in common.
#pragma once

namespace sessa {

// Tokens of a tile, which begins where a position is a multiple of it. Softmax runs tile by tile, so that its
// sums have one order whatever the chunk; blocks of rows are cut at tiles; paged tensors are dealt out to
// ranks by tile, tile i of a sequence to rank i % num_ranks. Pages must divide it.
inline constexpr int kTileTokens = 64;

}  // namespace sessa
