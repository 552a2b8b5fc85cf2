// The tensor-parallel ranks: each a Backend, a Communicator, a Model and a StateCache on a thread of its own
// (rank 0 uses the caller's). Executes one plan at a time on all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/state_cache.h"
#include "engine/step_plan.h"
#include "engine/weights.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace sessa {

struct WorkerOptions {
  DType weight_dtype = DType::kBF16, state_dtype = DType::kBF16;
  int num_ranks = 1;
  DeviceType device = DeviceType::kCpu;
  bool batch_invariant = false;  // DeviceOptions
  CpuOptions cpu;                // of each rank
  int max_rows = 512;            // of one step
  int page_size = 64;
  int max_pages = 0;              // more would be of no use
  int max_slots = 0;              // likewise, of recurrent state; models without it have none
  int64_t state_cache_bytes = 0;  // over all ranks; 0: once the weights are loaded, nine tenths of what GPUs
                                  // have free, or a quarter of the machine's free memory, at most 4 GiB
  // Called once the number of pages is known, which is before the weights are read where the budget was
  // named; its error is Create's. Null: any will do.
  std::function<absl::Status(int num_pages)> judge_pages = nullptr;
};

class Workers {
 public:
  // Loads every rank's weights and allocates its state: as many pages as state_cache_bytes pays for, a
  // multiple of num_ranks; of a model with recurrent state slots, and then pages are but numbers.
  // RESOURCE_EXHAUSTED when that is none; the errors of Model::Load.
  static absl::StatusOr<std::unique_ptr<Workers>> Create(const WorkerOptions& options,
                                                         const ModelConfig& config,
                                                         const WeightSource& weights);
  ~Workers();

  // Forward on all ranks, then samples. A device error is sticky: every later call returns it.
  // Not thread-safe: the engine thread calls it.
  absl::Status Execute(const StepPlan& plan, std::vector<SequenceResult>* results);

  int num_pages() const;
  int num_slots() const;              // 0: the model keeps no recurrent state
  int64_t state_cache_bytes() const;  // the budget, also when the options left it open

 private:
  class Impl;
  explicit Workers(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sessa
