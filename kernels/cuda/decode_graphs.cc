#include "kernels/cuda/decode_graphs.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/notice.h"

namespace sessa::cuda {
namespace {

// A server needs one for each bucket; a graph of a few hundred launches takes about a megabyte.
constexpr size_t kMaxGraphs = 64;

}  // namespace

void DecodeGraphs::Flush(bool may_replay) {
  if (!deferring_) return;
  deferring_ = false;
  if (operations_.empty()) return;
  if (!may_replay || !can_capture_ || cudaPeekAtLastError() != cudaSuccess) {  // an error is Synchronize's
    operations_.Run();
  } else if (const auto found = std::ranges::find(graphs_, operations_, &Graph::operations);
             found == graphs_.end()) {
    operations_.Run();
    if (graphs_.size() >= kMaxGraphs) Clear();
    graphs_.push_back({std::exchange(operations_, {}), nullptr});
  } else {
    if (found->executable == nullptr) found->executable = Capture();
    if (found->executable != nullptr) {
      ++counts_.launches;
      (void)cudaGraphLaunch(found->executable,
                            stream_);  // an error stays with the runtime, as those of launches
    } else {
      operations_.Run();
    }
  }
  operations_.Clear();
}

cudaGraphExec_t DecodeGraphs::TryCapture(std::string* failure) {
  std::optional<WithoutOverlap> without_overlap;
  if (!overlap_) without_overlap.emplace();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  const auto note = [failure](const char* call, cudaError_t error) {
    if (error != cudaSuccess && failure->empty())
      *failure = absl::StrCat(call, ": ", cudaGetErrorString(error));
  };
  // This thread's calls alone: other ranks may allocate meanwhile.
  const cudaError_t begun = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  note("cudaStreamBeginCapture", begun);
  if (begun == cudaSuccess) {
    operations_.Run();
    // A launch that is refused need not spoil the capture, but would be missing from the graph.
    const cudaError_t launched = cudaGetLastError();
    if (std::string launch = TakeLaunchFailure(); !launch.empty()) *failure = std::move(launch);
    note("a call of the step", launched);
    note("cudaStreamEndCapture", cudaStreamEndCapture(stream_, &graph));
    if (failure->empty()) note("cudaGraphInstantiate", cudaGraphInstantiate(&executable, graph, 0));
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
  }
  (void)cudaGetLastError();  // nothing ran, so it is no fault of the step
  return failure->empty() ? executable : nullptr;
}

cudaGraphExec_t DecodeGraphs::Capture() {
  std::string failure;
  cudaGraphExec_t executable = TryCapture(&failure);
  if (executable == nullptr && overlap_) {
    overlap_ = false;
    std::string again;
    executable = TryCapture(&again);
    if (executable != nullptr) {
      Report(absl::StrCat(failure, "; they are captured without overlapping launches"));
    } else {
      absl::StrAppend(&failure, "; without overlapping launches: ", again);
    }
  }
  if (executable == nullptr) {
    can_capture_ = false;
    Report(absl::StrCat(failure, "; they run operation by operation"));
  } else {
    ++counts_.captures;
  }
  return executable;
}

void DecodeGraphs::Report(std::string failure) {
  Notice(absl::StrCat("CUDA: decode steps cannot be captured: ", failure));
  counts_.failure = std::move(failure);
}

void DecodeGraphs::Clear() {
  for (const Graph& graph : graphs_) {
    if (graph.executable != nullptr) (void)cudaGraphExecDestroy(graph.executable);
  }
  graphs_.clear();
}

}  // namespace sessa::cuda
