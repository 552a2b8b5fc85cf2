// One GPU, the stream that everything runs on, its memory, and the first error of what was enqueued. Up to
// two steps are under way: the stream computes one while the host prepares the next, so what the host holds
// for a step there is twice, by turns.
//
// Memory that a step may ask for comes from a pool in the order of the stream. cudaMalloc and cudaFree, and
// what pins host memory, may wait for every GPU that reaches this one's memory (NVIDIA/nccl issue 744): while
// another rank already waits in a collective for this one, that is for ever. So steps call none of them.
// Not thread-safe; owned by a CudaBackend.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace sessa::cuda {

class Context {
 public:
  // Owns the stream, which is `device`'s.
  Context(int device, cudaStream_t stream);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  cudaStream_t stream() const { return stream_; }
  int device() const { return device_; }
  const absl::Status& status() const { return status_; }

  // Makes the device this thread's.
  void Use() { Note(cudaSetDevice(device_), "choosing the GPU"); }
  void Fail(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  void Note(cudaError_t error, const char* what);
  // Waits for the stream.
  void Wait(const char* what);
  // Waits until no more than one step is under way, and that one closed by EndStep.
  void BeginStep();
  void EndStep();
  // Waits for the oldest step that is closed and not waited for.
  void WaitForStep();
  // Enqueues a copy to the host, which holds the bytes once its step, or the stream, was waited for.
  void CopyOut(const void* device, size_t bytes, void* host);

  // Zeroed. RESOURCE_EXHAUSTED, which is not an error of the device. Not for steps: above.
  absl::StatusOr<Buffer> Allocate(size_t bytes);
  // The same out of the pool, which keeps what is freed until this object goes. To be freed when nothing that
  // uses it is under way, and before this object.
  absl::StatusOr<Buffer> AllocateForStep(size_t bytes);
  // Host rows [n, k] as rows of `stride` elements (0: k), the rest zero.
  absl::StatusOr<Buffer> Upload(const void* data, DType from, int64_t n, int64_t k, int64_t stride, DType to);

  // Grows a scratch buffer; its contents are lost, and zero when it grew. Kernels that were enqueued or
  // planned for the old memory may still use it: it stays until this step is done. False, and an error noted,
  // when there is no memory.
  bool Reserve(size_t bytes, Buffer* buffer);

 private:
  const int device_;
  const cudaStream_t stream_;
  absl::Status status_;
  cudaMemPool_t pool_ = nullptr;

  absl::StatusOr<Buffer> Allocated(cudaError_t error, void* p, size_t bytes, void (*release)(void*, size_t));

  struct Copy {
    void *from, *to;
    size_t bytes;
  };
  struct HostStep {
    cudaEvent_t done = nullptr;
    bool is_closed = false;  // `done` will tell, and nobody has waited for it
    char* pinned = nullptr;  // [kPinnedBytes], or null when there is none
    size_t pinned_used = 0;
    std::vector<Copy> copies;  // that wait in pinned memory
    std::vector<Buffer> outgrown;
  };
  HostStep& now() { return steps_[now_]; }
  void WaitFor(HostStep* step);
  void FinishCopies(HostStep* step);

  HostStep steps_[2];
  int now_ = 0;  // the one that is prepared, or was last
};

}  // namespace sessa::cuda
