// A model on any number of ranks, fed with plans by hand: what tests use to run chunks, batches and ranks of
// their choice through the real Model, StateCache and kernels, with pages dealt out in an order that no two
// sequences share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/models/model.h"

namespace sessa {

class ModelHarness {
 public:
  struct Options {
    int ranks = 1;
    DType weight_dtype = DType::kF32;
    DType state_dtype = DType::kF32;
    int page_size = 16;
    int max_rows = 512;     // of one step
    int max_tokens = 4096;  // of all sequences
    int max_sequences = 16;
    CpuOptions cpu = {};  // of a rank
    bool keep_hidden = true;
    // Of each rank; none: MakeCpuBackend(cpu). The ranks then talk by MakeHostCommunicators.
    std::function<absl::StatusOr<std::unique_ptr<Backend>>()> make_backend = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<ModelHarness>> Create(const ModelConfig& config,
                                                              const WeightSource& weights,
                                                              const Options& options);

  int AddSequence(std::vector<int32_t> tokens);

  struct Piece {
    int sequence;
    int num_rows;
  };
  // Runs the next rows of each sequence as one step. INTERNAL when the ranks' logits differ in a bit.
  absl::Status Step(const std::vector<Piece>& pieces);
  // Runs what is left of one sequence in chunks (the last one shorter).
  absl::Status Finish(int sequence, int chunk);

  // Of the rows computed so far.
  const std::vector<float>& logits(int sequence) const { return sequences_[sequence].logits; }  // [n, V]
  const std::vector<float>& hidden(int sequence, int layer) const {
    return sequences_[sequence].hidden[layer];
  }  // [n, D]
  // Of one of the layer's paged tensors, [n, heads * dim]. Requires ranks == 1.
  std::vector<float> ReadState(int sequence, int layer, int tensor);
  int num_paged_tensors() { return static_cast<int>(ranks_[0].cache->layer(0)->paged.size()); }

 private:
  struct Rank {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<Communicator> communicator;
    std::unique_ptr<Model> model;
    std::unique_ptr<StateCache> cache;
  };
  struct Sequence {
    std::vector<int32_t> tokens, pages;
    int num_computed = 0;
    std::vector<float> logits;
    std::vector<std::vector<float>> hidden;
  };

  ModelConfig config_;
  Options options_;
  std::vector<Rank> ranks_;
  std::vector<Sequence> sequences_;
  std::vector<std::vector<int32_t>> free_pages_;  // of each class
};

}  // namespace sessa
