// Causal attention on the CPU: appends the step's rows and reads them back, as the functions of Backend say.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/step.h"
#include "kernels/cpu/tile_attention.h"

namespace sessa {

// How bf16 and int8 state is read.
struct StateReads {
  bool dot = false;  // by bf16 dot products of the vector unit, bf16 alone
  MatrixUnit unit = MatrixUnit::kVector;
  int terms = 3;  // of queries and probabilities on the other units (tile_attention.h)

  bool on_tiles(const PagedTensor& keys) const {
    return unit != MatrixUnit::kVector && keys.shape.dtype != DType::kF32;
  }
  // Tiles of a chain that are read at once, if any of them are.
  int joint_tiles(const PagedTensor& keys) const { return on_tiles(keys) ? cpu::kJointTiles : 1; }
};

// Into how many parts rows that share a read are cut: of at most `most` rows each, and as many as there are
// threads for.
constexpr int PartsOf(int num_rows, int most, int num_threads) {
  return std::max(CeilDiv(num_rows, most), std::min(num_rows, num_threads));
}

class CpuAttention {
 public:
  // The step must outlive this.
  CpuAttention(CpuStep* step, StateReads reads)
      : step_(step), reads_(reads), pairs_(step->num_threads()), tiles_(step->num_threads()) {}

  void Append(const AppendCall& call);
  // One row of it, whose token goes to a slot of a page.
  void AppendRow(const AppendCall& call, int row, int64_t page, int slot);
  void Attend(const AttendCall& call);

 private:
  // One KV head and as many rows as keep (rows x its query heads) within a tile: of one tile of a sequence,
  // or of several sequences that share what the item reads. On a tile unit rows end where they like: cut at
  // tiles, 64 rows of 3 heads each are 21, 21, 21 and 1, and the one took as long as seven.
  struct Item {
    int first_row, num_rows;  // of SharedReads::rows
    int head_begin, head_end;
    const int32_t* pages;
    int first_tile, last_tile;
    bool ends = false;  // it reads all that is left for its rows
  };
  // By levels: shared reads, and at last what is read alone.
  void MakeItems(const AttendCall& call, const SharedReads& reads);
  void Run(const AttendCall& call, const SharedReads& reads, const Item& item, int thread);

  CpuStep* const step_;
  const StateReads reads_;
  std::vector<Item> items_;
  std::vector<int> levels_;     // the ends of their items
  std::vector<int> head_ends_;  // of the query heads of each KV head
  std::vector<float> kept_;     // maxima, sums and weighted values of rows that share, from level to level
  int64_t num_kept_ = 0;
  std::vector<std::vector<cpu::Bf16Pair>> pairs_;  // [thread]
  std::vector<std::vector<uint16_t>> tiles_;       // [thread]
};

}  // namespace sessa
