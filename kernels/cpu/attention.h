// Causal attention on the CPU: appends the step's rows and reads them back, as the functions of Backend say.
#pragma once

#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/step.h"

namespace sessa {

// How bf16 and int8 state is read.
struct StateReads {
  bool dot = false;  // by bf16 dot products of the vector unit, bf16 alone
  MatrixUnit unit = MatrixUnit::kVector;
  int terms = 3;  // of queries and probabilities on the other units (tile_attention.h)

  bool on_tiles(const PagedTensor& keys) const {
    return unit != MatrixUnit::kVector && keys.shape.dtype != DType::kF32;
  }
};

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
  // One KV head and as many rows of one tile as keep (rows x its query heads) within a tile.
  struct Item {
    int span, first, rows, head_begin, head_end;
  };
  void MakeItems(absl::Span<const int> q_to_kv);
  void Run(const AttendCall& call, const Item& item, int thread);

  CpuStep* const step_;
  const StateReads reads_;
  std::vector<Item> items_;
  std::vector<std::vector<cpu::Bf16Pair>> pairs_;  // [thread]
  std::vector<std::vector<uint16_t>> tiles_;       // [thread]
};

}  // namespace sessa
