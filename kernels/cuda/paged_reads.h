// Reads of pages, forward and feedback alike: which kernels take the blocks of a plan. Not thread-safe; owned
// by a CudaBackend.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/panel.h"
#include "kernels/cuda/read_plan.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_queue.h"
#include "kernels/state.h"

namespace sessa::cuda {

PagedVectors VectorsOf(const PagedTensor& tensor);

// A read and how it is cut up.
struct PlannedRead {
  PagedRead read;
  const ReadPlan* plan;  // null: there is nothing to read
  // Of blocks of many queries: the step's own keys, the wave's own tiles (null: none) and what is before
  // them.
  Matrix k;
  const PanelPlan *own, *panels;
};

class PagedReads {
 public:
  PagedReads(Context* context, DeviceStep* step, StepQueue* queue)
      : context_(context), step_(step), queue_(queue) {}

  // False, and an error noted, when keys and values are of two types, which no kernel reads.
  bool CanRead(const PagedTensor& keys, const PagedTensor& values);
  void Run(const PlannedRead& planned) { Run(planned, 0); }
  // Neither needs the other: blocks of few queries are read together, those of `large`, whose tiles are
  // larger, first.
  void RunTogether(const PlannedRead& large, const PlannedRead& small);

 private:
  // The groups from `first` on, and the panels.
  void Run(const PlannedRead& planned, size_t first);
  PagedRead OfGroup(const PlannedRead& planned, size_t i) const;
  void EnqueueFew(const FewReads& reads, int num_ctas);
  void RunPanels(const PlannedRead& planned);

  Context* const context_;
  DeviceStep* const step_;
  StepQueue* const queue_;
};

}  // namespace sessa::cuda
