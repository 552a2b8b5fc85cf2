// Causal attention on the CPU: appends the step's rows and reads them back, as the functions of Backend say.
#pragma once

#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/step.h"

namespace sessa {

class CpuAttention {
 public:
  // dot_of_state: reads of bf16 state are bf16 dot products. The step must outlive this.
  CpuAttention(CpuStep* step, bool dot_of_state)
      : step_(step), dot_of_state_(dot_of_state), pairs_(step->num_threads()) {}

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
  const bool dot_of_state_;
  std::vector<Item> items_;
  std::vector<std::vector<cpu::Bf16Pair>> pairs_;  // [thread]
};

}  // namespace sessa
