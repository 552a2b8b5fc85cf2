// CUDA graphs of decode steps. The operations of a decode step are not enqueued one by one but kept as an
// OperationList, which names a graph. The first step with these operations runs them as they are (scratch
// memory grows, libraries choose their algorithms), the second is captured, and from then on the graph is
// launched. Nothing is assumed about who calls the operations in which order: another order, another pointer
// or another size is another list. What cannot be captured is tried again without overlapping launches; where
// that fails too, steps run operation by operation from then on. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operation_list.h"
#include "kernels/cuda/runtime.h"

namespace sessa::cuda {

class DecodeGraphs {
 public:
  explicit DecodeGraphs(cudaStream_t stream) : stream_(stream) {}
  ~DecodeGraphs() { Clear(); }
  DecodeGraphs(const DecodeGraphs&) = delete;
  DecodeGraphs& operator=(const DecodeGraphs&) = delete;

  // From here to Flush operations are kept.
  void Defer() { deferring_ = true; }
  bool is_deferring() const { return deferring_; }

  // Requires is_deferring(). `function` enqueues the operation on the stream, by its arguments alone.
  template <class... P, class... A>
  void Keep(void (*function)(P...), const A&... args) {
    operations_.Add(function, args...);
  }

  // Enqueues what was kept. may_replay: false, one by one.
  void Flush(bool may_replay);

  const DecodeGraphCounts& counts() const { return counts_; }

 private:
  struct Graph {
    OperationList operations;
    cudaGraphExec_t executable;  // null: seen once
  };

  // Null when the operations cannot be captured: which call failed goes to `failure`.
  cudaGraphExec_t TryCapture(std::string* failure);
  cudaGraphExec_t Capture();
  void Report(std::string failure);  // once
  void Clear();

  const cudaStream_t stream_;
  bool deferring_ = false, can_capture_ = true, overlap_ = launch_switches().overlap;
  DecodeGraphCounts counts_;
  OperationList operations_;
  std::vector<Graph> graphs_;
};

}  // namespace sessa::cuda
