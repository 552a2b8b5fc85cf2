// The benchmarks of whole steps: the real Model with random weights, plans made by hand.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/model.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/table.h"

namespace sessa {

// `rows` new tokens for each of `batch` sequences that have `context`, in pages of kPage tokens, numbered
// from 0, that lie anywhere. Token ids are below 100.
StepPlan PlanOf(int batch, int rows, int context);

class BenchModel {
 public:
  // bf16 weights. The device outlives the model.
  static absl::StatusOr<std::unique_ptr<BenchModel>> Create(BenchDevice* device, const std::string& name,
                                                            const ModelConfig& config, int max_rows);

  // Requires a device whose backend MakeCudaBackend made. One step of `rows` new tokens for each of `batch`
  // sequences, from the plan until the logits of the last rows are in device memory and the host has seen the
  // first. RESOURCE_EXHAUSTED when their state does not fit. A target counts against the copy's rate when
  // rows is 1 and against the product's otherwise; 0: none.
  absl::StatusOr<Measurement> MeasureStep(int batch, int rows, int context, double target);

 private:
  BenchModel(BenchDevice* device, const std::string& name, int max_rows)
      : device_(device), name_(name), max_rows_(max_rows) {}

  BenchDevice* const device_;
  const std::string name_;
  const int max_rows_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Model> model_;
};

// A whole prompt of num_chunks chunks: a chunk's time grows by the same amount with each chunk before it, so
// the first and the last tell the sum.
Measurement WholePrefill(const std::string& name, const ModelConfig& config, const Measurement& first,
                         const Measurement& last, int rows, int num_chunks, double target);

}  // namespace sessa
