#include "kernels/cuda/step_graphs.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/notice.h"

namespace sessa::cuda {

StepGraphs::~StepGraphs() { MakeRoom(&graphs_, 0); }

void StepGraphs::Flush(bool may_replay) {
  if (!deferring_) return;
  deferring_ = false;
  if (operations_.empty()) return;
  if (!may_replay || !can_capture_ || cudaPeekAtLastError() != cudaSuccess) {  // an error is Synchronize's
    operations_.Run();
  } else {
    RunOrReplay();
  }
  operations_.Clear();
}

void StepGraphs::RunOrReplay() {
  ++now_;
  Graph* graph = Find(&graphs_);
  if (graph == nullptr) {
    Graph* const seen = Find(&seen_);
    const cudaGraphExec_t executable = seen == nullptr ? nullptr : Capture();
    if (executable == nullptr) {
      operations_.Run();
      if (seen != nullptr) return;  // cannot be captured
      MakeRoom(&seen_, kMaxSeen - 1);
      seen_.push_back({std::exchange(operations_, {}), nullptr, now_});
      return;
    }
    seen->executable = executable;
    MakeRoom(&graphs_, kMaxGraphs - 1);
    graph = &graphs_.emplace_back(std::move(*seen));
    seen_.erase(seen_.begin() + (seen - seen_.data()));
  }
  ++counts_.launches;
  (void)cudaGraphLaunch(graph->executable, stream_);  // an error stays with the runtime, as those of launches
}

StepGraphs::Graph* StepGraphs::Find(std::vector<Graph>* graphs) {
  const auto found = std::ranges::find(*graphs, operations_, &Graph::operations);
  if (found == graphs->end()) return nullptr;
  found->last_use = now_;
  return &*found;
}

void StepGraphs::MakeRoom(std::vector<Graph>* graphs, size_t most) {
  while (graphs->size() > most) {
    const auto oldest = std::ranges::min_element(*graphs, {}, &Graph::last_use);
    if (oldest->executable != nullptr) (void)cudaGraphExecDestroy(oldest->executable);
    graphs->erase(oldest);
  }
}

cudaGraphExec_t StepGraphs::TryCapture(std::string* failure) {
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

cudaGraphExec_t StepGraphs::Capture() {
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

void StepGraphs::Report(std::string failure) {
  Notice(absl::StrCat("CUDA: steps cannot be captured: ", failure));
  counts_.failure = std::move(failure);
}

}  // namespace sessa::cuda
