// Streams, events and graphs of the emulated device: a graph is the list of what was enqueued while its
// stream captured.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <utility>

#include "tests/cuda/emulator.h"

namespace sessa::emulator {
namespace {

thread_local int num_capturing = 0;  // streams, of this thread
thread_local cudaError_t last_error = cudaSuccess;
std::atomic<int> num_captures{0}, num_graph_launches{0}, num_events_ahead{0};
std::atomic<CaptureFault> capture_fault{CaptureFault::kNone};
std::atomic<bool> refuse_launches{false}, skip_graphs{false}, delay_work{false};
std::atomic<double> skipped_graph_seconds{0};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Does what was enqueued until then, and waits as a host does.
void Await(EmulatedStream* stream, uint64_t num_enqueued, double busy_until) {
  if (stream != nullptr) {
    while (stream->num_enqueued - stream->delayed.size() < num_enqueued) {
      const std::function<void()> work = std::move(stream->delayed.front());
      stream->delayed.pop_front();
      work();
    }
  }
  while (Seconds() < busy_until) {
  }
}

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
void SkipGraphs(bool on, double microseconds) {
  skipped_graph_seconds = microseconds * 1e-6;
  skip_graphs = on;
}
void DelayWork(bool on) { delay_work = on; }
bool delays_work() { return delay_work; }
int num_steps_ahead() { return num_events_ahead; }

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

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  RequireNoCapture("cudaGraphLaunch");
  ++num_graph_launches;
  if (skip_graphs) {
    stream->busy_until = std::max(stream->busy_until, Seconds()) + skipped_graph_seconds;
    return cudaSuccess;
  }
  for (const auto& work : graph->work) Enqueue(stream, work);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  RequireNoCapture("cudaStreamSynchronize");
  if (stream != nullptr) Await(stream, stream->num_enqueued, stream->busy_until);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  RequireNoCapture("cudaEventRecord");
  if (stream->num_enqueued - stream->delayed.size() < stream->last_event) ++num_events_ahead;
  *event = {stream, stream->last_event = stream->num_enqueued, stream->busy_until};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  RequireNoCapture("cudaEventSynchronize");
  Await(event->stream, event->num_enqueued, event->busy_until);
  return cudaSuccess;
}
