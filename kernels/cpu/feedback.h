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
  struct PackItem {
    const RowSpan* block;
    int tile;
    // Of the block; null: not wanted.
    float* to;
    cpu::Bf16Pair* pairs_to;
    uint16_t* tiles_to;
  };
  // Valid until the next call.
  absl::Span<const Query> Pack(Matrix x, absl::Span<const RowSpan> blocks, bool pairs);
  absl::Span<const Query> PackTiles(Matrix x, absl::Span<const RowSpan> blocks);
  void RunPacking(Matrix x);

  CpuStep* const step_;
  CpuAttention* const attention_;
  const StateReads reads_;
  std::vector<float> packed_;
  std::vector<cpu::Bf16Pair> pairs_;
  std::vector<uint16_t> tiles_;
  // They are here so that a step allocates nothing.
  std::vector<Query> queries_;
  std::vector<PackItem> pack_items_;
};

}  // namespace sessa
