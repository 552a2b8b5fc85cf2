// The feedback recurrence on the CPU. See kernels/feedback.h.
#pragma once

#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/step.h"
#include "kernels/feedback.h"

namespace sessa {

class CpuFeedback final : public FeedbackOps {
 public:
  // What is pointed to must outlive this.
  CpuFeedback(CpuStep* step, CpuAttention* attention, StateReads reads)
      : step_(step), attention_(attention), reads_(reads) {}

  int MaxBlockRows(DType) const override { return kTileTokens; }
  void Append(const AppendCall& forward, const FeedbackRows& rows) override;
  void AppendStates(Matrix s, int wave, PagedTensor* states) override;
  void Read(const FeedbackReadCall& call) override;
  void AttendAndRead(const AttendCall& attend, const FeedbackReadCall& read) override {
    attention_->Attend(attend);
    Read(read);
  }
  void Solve(const FeedbackSolveCall& call) override;

 private:
  // The rows of a block as the kernels read them: as tiles of a left side alone; or packed when they are more
  // than a few, and as pairs, if wanted.
  struct Query {
    const float* rows = nullptr;
    const cpu::Bf16Pair* pairs = nullptr;
    const uint16_t* tiles = nullptr;
  };
  // Rows that read the same tiles, at most a tile of them: of one block, all that they see from `first_tile`
  // on; or of several, tiles that they share.
  struct Item {
    const RowSpan* block;     // null: of several
    int first_row, num_rows;  // of SharedReads::rows
    const int32_t* pages;
    int first_tile, last_tile;  // last: of several blocks
    Matrix q_b;
    Query query;
  };
  struct PackItem {
    Matrix q_b;
    int tile;
    // Of all these rows; null: not wanted.
    float* to;
    cpu::Bf16Pair* pairs_to;
    uint16_t* tiles_to;
  };
  // By levels: shared reads, and at last what is read alone.
  void MakeItems(const FeedbackReadCall& call, const SharedReads& reads);
  void Pack(bool pairs);
  void PackTiles();
  void RunPacking();
  // What one chain reads of it.
  void ReadChain(const FeedbackReadCall& call, const SharedReads& reads, const Item& item, int chain,
                 int thread);

  CpuStep* const step_;
  CpuAttention* const attention_;
  const StateReads reads_;
  std::vector<float> packed_;
  std::vector<cpu::Bf16Pair> pairs_;
  std::vector<uint16_t> tiles_;
  // They are here so that a step allocates nothing.
  std::vector<float> gathered_;  // q_b of rows that share
  std::vector<Item> items_;
  std::vector<int> levels_;  // the ends of their items
  std::vector<PackItem> pack_items_;
};

}  // namespace sessa
