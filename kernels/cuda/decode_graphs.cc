#include "kernels/cuda/decode_graphs.h"

#include <algorithm>

namespace sessa::cuda {
namespace {

// A server needs one for each bucket; a graph of a few hundred launches takes about a megabyte.
constexpr size_t kMaxGraphs = 64;

}  // namespace

void DecodeGraphs::Flush(bool may_replay) {
  if (!deferring_) return;
  deferring_ = false;
  if (operations_.empty()) return;
  const auto key = absl::MakeConstSpan(key_).first(key_size_);
  if (!may_replay || !can_capture_ || cudaPeekAtLastError() != cudaSuccess) {  // an error is Synchronize's
    RunAll();
  } else if (const auto found = std::ranges::find(graphs_, key, &Graph::key); found == graphs_.end()) {
    if (graphs_.size() >= kMaxGraphs) Clear();
    graphs_.push_back({{key.begin(), key.end()}, nullptr});
    RunAll();
  } else {
    if (found->executable == nullptr) found->executable = Capture();
    if (found->executable != nullptr) {
      (void)cudaGraphLaunch(found->executable,
                            stream_);  // an error stays with the runtime, as those of launches
    } else {
      RunAll();
    }
  }
  key_size_ = 0;
  operations_.clear();
  operands_.clear();
}

cudaGraphExec_t DecodeGraphs::Capture() {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  // This thread's calls alone: other ranks may allocate meanwhile.
  if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
    RunAll();
    // A launch that is refused need not spoil the capture, but would be missing from the graph.
    const bool all_launched = cudaGetLastError() == cudaSuccess;
    if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess || !all_launched ||
        cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) {
      executable = nullptr;
    }
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
  }
  if (executable == nullptr) {
    (void)cudaGetLastError();  // nothing ran, so it is no fault of the step
    can_capture_ = false;
  }
  return executable;
}

void DecodeGraphs::Clear() {
  for (const Graph& graph : graphs_) {
    if (graph.executable != nullptr) (void)cudaGraphExecDestroy(graph.executable);
  }
  graphs_.clear();
}

}  // namespace sessa::cuda
