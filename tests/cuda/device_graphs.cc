// Streams and graphs of the emulated device: a graph is the list of what was enqueued while its stream
// captured.
#include <atomic>
#include <cstdio>
#include <utility>

#include "tests/cuda/emulator.h"

namespace sessa::emulator {
namespace {

thread_local int num_capturing = 0;  // streams, of this thread
thread_local cudaError_t last_error = cudaSuccess;
std::atomic<int> num_captures{0}, num_graph_launches{0};
std::atomic<CaptureFault> capture_fault{CaptureFault::kNone};
std::atomic<bool> refuse_launches{false}, skip_graphs{false};

}  // namespace

void RequireNoCapture(const char* call) {
  if (num_capturing == 0) return;
  std::fprintf(stderr, "CUDA emulator: %s while a stream captures\n", call);
  std::abort();
}

void FailCaptures(CaptureFault fault) { capture_fault = fault; }
void RefuseLaunches(bool on) { refuse_launches = on; }
bool BeginLaunch(cudaStream_t stream) {
  if (stream == nullptr || stream->capture == nullptr) return true;
  stream->capture->overlaps |= cuda::LaunchesOverlap();
  if (!refuse_launches) return true;
  last_error = cudaErrorMemoryAllocation;
  cuda::NoteLaunchFailure("a refused kernel: out of memory");
  return false;
}
void SkipGraphs(bool on) { skip_graphs = on; }

Counts counts() {
  return {num_captures, num_graph_launches, num_kernels(), num_pageable_copies_out(), num_waiting_calls()};
}

}  // namespace sessa::emulator

using namespace sessa::emulator;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->capture != nullptr) return cudaErrorStreamCaptureInvalidated;
  stream->capture = new EmulatedGraph;
  ++num_capturing;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = std::exchange(stream->capture, nullptr);
  if (*graph == nullptr) return cudaErrorStreamCaptureInvalidated;
  --num_capturing;
  if (capture_fault == CaptureFault::kAll ||
      (capture_fault == CaptureFault::kOfOverlappingLaunches && (*graph)->overlaps)) {
    delete std::exchange(*graph, nullptr);
    return cudaErrorStreamCaptureInvalidated;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new EmulatedGraph(*graph);
  ++num_captures;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  RequireNoCapture("cudaGraphLaunch");
  ++num_graph_launches;
  if (skip_graphs) return cudaSuccess;
  for (const auto& work : graph->work) work();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  RequireNoCapture("cudaStreamSynchronize");
  return cudaSuccess;
}
