// What a layer keeps of each sequence between steps, described by shapes, and its memory on one rank. A model
// says the shapes of each of its layers (engine/models), a StateCache allocates them, kernels read and write
// them; nobody else knows what they hold, so that layers of several kinds can stand in one model.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/tensor.h"
#include "kernels/tile.h"

namespace sessa {

// Neighbouring columns of a head that share a scale where state is int8. Whoever computes s must have a
// group's columns together, as their scale depends on all of them.
inline constexpr int kStateGroup = 64;

// A tensor with one row for each token, [num_heads, dim], in pages of tokens. Keys and values differ in their
// layout in memory, which is the backend's own.
struct PagedShape {
  enum class Use { kKey, kValue };
  Use use = Use::kKey;
  int num_heads = 0, dim = 0;
  DType dtype = DType::kF32;  // or kBF16, or kI8: as cpu/int8_state.h says
  // Whether the pages are dealt out to ranks, tile by tile (kTileTokens), each with all heads and dimensions;
  // else each rank has every page, and heads of its own.
  bool by_tile = false;

  bool operator==(const PagedShape&) const = default;
};

struct StateShape {
  std::vector<PagedShape> paged;
  std::vector<int64_t> slots;  // floats a sequence, of each tensor that does not grow with its tokens

  bool operator==(const StateShape&) const = default;
};

// The pages [first_page, first_page + num_pages) of it are here.
struct PagedTensor {
  PagedShape shape;
  int page_size = 0;  // tokens
  int first_page = 0, num_pages = 0;
  Buffer data;  // in the backend's own format

  bool Holds(int64_t page) const { return page >= first_page && page < first_page + num_pages; }
};

// float32, [num_slots][floats], the order of the floats being that of who keeps them.
struct SlotTensor {
  int64_t floats = 0;
  Buffer data;

  float* slot(int i) const { return data.floats() + i * floats; }
};

struct LayerState {
  std::vector<PagedTensor> paged;  // as StateShape::paged
  std::vector<SlotTensor> slots;   // as StateShape::slots
};

}  // namespace sessa
