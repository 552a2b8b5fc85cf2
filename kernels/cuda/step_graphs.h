// CUDA graphs of steps of few rows: decode steps, guessed tokens, short prompts and the ends of long ones.
// The operations of such a step are not enqueued one by one but kept as an OperationList, which names a
// graph. The first step with these operations runs them as they are (scratch memory grows, libraries choose
// their algorithms), the second is captured, and from then on the graph is launched. Nothing is assumed about
// who calls the operations in which order: another order, another pointer or another size is another list.
// What cannot be captured is tried again without overlapping launches; where that fails too, steps run
// operation by operation from then on.
//
// Bounds: kMaxGraphs graphs, the one that was not used for longest making room, each with its list about 1.3
// MB of a model of 32 layers (most of it the device's); and kMaxSeen lists that came once, 0.3 MB of the
// host's each, which never push out a graph: prompts of all lengths come by. Not thread-safe; owned by a
// CudaBackend.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operation_list.h"
#include "kernels/cuda/runtime.h"

namespace sessa::cuda {

class StepGraphs {
 public:
  // A server needs one for each bucket of decode steps, of which there are 18, and some for other steps.
  static constexpr size_t kMaxGraphs = 64, kMaxSeen = 16;

  explicit StepGraphs(cudaStream_t stream) : stream_(stream) {}
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

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

  const GraphCounts& counts() const { return counts_; }

 private:
  struct Graph {
    OperationList operations;
    cudaGraphExec_t executable = nullptr;  // null: seen once
    uint64_t last_use = 0;
  };

  void RunOrReplay();
  // The one with these operations, used now; null: there is none.
  Graph* Find(std::vector<Graph>* graphs);
  // Makes room in a full list by the one that was not used for longest.
  static void MakeRoom(std::vector<Graph>* graphs, size_t most);
  // Null when the operations cannot be captured: which call failed goes to `failure`.
  cudaGraphExec_t TryCapture(std::string* failure);
  cudaGraphExec_t Capture();
  void Report(std::string failure);  // once

  const cudaStream_t stream_;
  bool deferring_ = false, can_capture_ = true, overlap_ = launch_switches().overlap;
  GraphCounts counts_;
  OperationList operations_;
  uint64_t now_ = 0;  // steps so far
  std::vector<Graph> graphs_, seen_;
};

}  // namespace sessa::cuda
