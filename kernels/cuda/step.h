// A step's rows as the kernels see them: token ids, spans, page tables and the blocks of each read, in device
// memory. In a decode step (every span has one row, and each row its logits) all arrays but the page tables
// and edits are as long as the step's bucket, so their addresses and the launches on them depend on the
// bucket alone: the contexts, the page tables, what is edited in a row's logits and how many rows there
// really are are data, as is who shares what. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/panel.h"
#include "kernels/cuda/read_plan.h"
#include "kernels/cuda/step_memory.h"

namespace sessa::cuda {

class DeviceStep {
 public:
  // use_tensor_cores: for reads of many queries of bf16 or int8 state.
  DeviceStep(Context* context, bool use_tensor_cores);

  // `rows` stays until the next Begin. Requires that nothing of the step before the last is
  // under way.
  void Begin(const StepRows& rows);
  // Enqueues the copies that what is enqueued next relies on.
  void Send();

  bool is_decode() const { return live_ != nullptr; }
  int num_rows() const { return num_rows_; }
  int bucket() const { return bucket_; }         // num_rows, rounded up in a decode step
  const int32_t* live() const { return live_; }  // num_rows on the device, of a decode step, or null
  // Whether the step may come again as it is: launches of many rows compute for longer than they take the
  // host, and how a long prompt is cut differs from chunk to chunk.
  bool may_replay() const { return num_rows_ > 0 && num_rows_ <= kMaxDecodeBucket; }
  // Of a step that may: whether its launches are worth a graph. Not so those of a decode step that are not
  // its bucket's, as the contexts together are too long for one launch.
  bool fits_graph() const { return fits_graph_; }
  const StepRows& rows() const { return *rows_; }

  const int32_t* token_ids() const { return token_ids_; }
  const int32_t* positions() const { return positions_; }
  const int32_t* logit_rows() const { return logit_rows_; }
  const Span* spans() const { return spans_; }
  const int32_t* row_span() const { return row_span_; }
  const float* inv_freq() const { return inv_freq_; }  // of the rows' rope

  // What the plans of a read depend on besides the step: layers that agree in it share them.
  struct WaveKey {
    int wave, width;
    DType dtype;
    int page_size;
    bool operator==(const WaveKey&) const = default;
  };
  struct AttentionKey {
    std::vector<int> q_to_kv;
    int head_dim;
    DType dtype;
    int window;
    int page_size;
    bool operator==(const AttentionKey&) const = default;
  };
  // A wave's blocks, and its rows in their order. Blocks of many rows are read as panels unless state is f32,
  // the others by `plan`.
  struct Wave {
    WaveKey key;
    ReadPlan plan;
    std::vector<ReadBlock> panel_blocks;
    PanelPlan own;  // of the panels: the keys inside the blocks
    int max_panel_rows = 0;
    const int32_t* rows = nullptr;
    int num_rows = 0;
  };
  struct Past {
    WaveKey key;
    int num_ranks;
    PanelPlan plan;  // of the wave's panels: the keys before the blocks
  };
  struct Attention {
    AttentionKey key;
    ReadPlan plan;
    PanelPlan panels;
  };
  // Made at their first use in the step; they stay until the next Begin.
  const Wave& WaveOf(const WaveKey& key);
  const Past& PastOf(const WaveKey& key, int num_ranks);
  const Attention& AttentionOf(const AttentionKey& key);
  // For the panels of the plans made so far.
  PanelScratch panel_scratch() const;
  // Of layers with slots; made at its first use in the step.
  const SlotSpan* slot_spans();
  int num_spans() const { return is_decode() ? bucket_ : static_cast<int>(rows_->spans.size()); }
  // On the device; each list is sent once a step.
  const int32_t* HeadGroups(absl::Span<const int> groups);
  // The rows of Backend::Sample on the device. Null when there are none, or no memory.
  const SampleTask* SampleTasks(absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits, int V);
  // Thread blocks for the work items of a group, and others with them: in a step that may come again (with
  // longer contexts), and at most for few queries, as many as run at once.
  int NumCtas(const ReadGroup& group, int other_items = 0) const;

 private:
  // In a decode step padded to `padded_size`.
  template <class T>
  const T* Upload(std::vector<T> values, int padded_size) {
    if (is_decode()) values.resize(padded_size);
    return memory_.Upload(values);
  }
  ReadPlan MakePlan(std::vector<ReadBlock> blocks, bool feedback, int dim, DType state_dtype, int min_blocks,
                    int page_size);
  // Sends the plan's blocks to the device and makes room for its panels.
  void PreparePanels(PanelPlan* plan, int dim, bool own);

  Context* const context_;
  const bool use_tensor_cores_;
  StepMemory memory_, page_memory_;  // pages and edits apart: how many there are differs from step to step
  int num_multiprocessors_ = 1;

  const StepRows* rows_ = nullptr;
  int num_rows_ = 0, bucket_ = 0;
  bool fits_graph_ = false;
  const int32_t *live_ = nullptr, *token_ids_ = nullptr, *positions_ = nullptr, *logit_rows_ = nullptr,
                *row_span_ = nullptr;
  const Span* spans_ = nullptr;
  const float* inv_freq_ = nullptr;
  std::vector<const int32_t*> span_pages_;  // of each span, on the device
  std::vector<int32_t> host_row_span_;
  // A model has a few, which are looked up one after another; a deque keeps them where they are.
  std::deque<Wave> waves_;
  std::deque<Past> pasts_;
  std::deque<Attention> attentions_;
  const SlotSpan* slot_spans_ = nullptr;
  std::vector<std::pair<std::vector<int>, const int32_t*>> head_groups_;

  // Of a ReadWork, grown as needed. Attention and feedback have their own: they may run at once.
  struct Scratch {
    Buffer tile_stats, tile_values, own_p;
  };
  Scratch attention_scratch_, feedback_scratch_;
  // Of PanelScratch, grown as needed.
  Buffer panel_queries_, panel_keys_, own_weights_, weights_, own_stats_, stats_, diagonal_, running_,
      inverses_, terms_;
  Buffer scores_;  // of SampleTasks
};

}  // namespace sessa::cuda
