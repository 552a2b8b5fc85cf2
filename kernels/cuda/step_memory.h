// What a step's host data costs on the device: small arrays, gathered in pinned memory and sent in one copy,
// in order with the kernels. Arrays of the same sizes in the same order have the same addresses in every
// step, which is what lets a captured graph be launched again. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cuda/runtime.h"
#include "kernels/round.h"

namespace sessa::cuda {

class StepMemory {
 public:
  explicit StepMemory(cudaStream_t stream) : stream_(stream) {}
  ~StepMemory() {
    for (const Chunk& c : chunks_) (void)cudaFreeHost(c.host), (void)cudaFree(c.device);
  }
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;

  // Forgets everything. Requires that no kernel or copy that uses it is under way.
  void Reset() { chunk_ = used_ = sent_chunk_ = sent_ = 0; }

  // Where the values will be on the device after Send, until Reset; null when there is no memory
  // (cudaGetLastError tells) or no value.
  template <class T>
  const T* Upload(absl::Span<const T> values) {
    return values.empty() ? nullptr
                          : static_cast<const T*>(UploadBytes(values.data(), values.size() * sizeof(T)));
  }
  template <class T>
  const T* Upload(const std::vector<T>& values) {
    return Upload(absl::MakeConstSpan(values));
  }
  // Enqueues the copies of what was uploaded since the last Send.
  cudaError_t Send() {
    cudaError_t error = cudaSuccess;
    for (; sent_chunk_ <= chunk_ && sent_chunk_ < chunks_.size(); ++sent_chunk_, sent_ = 0) {
      const Chunk& c = chunks_[sent_chunk_];
      const size_t end = sent_chunk_ == chunk_ ? used_ : c.size;
      if (end > sent_ && error == cudaSuccess) {
        error =
            cudaMemcpyAsync(c.device + sent_, c.host + sent_, end - sent_, cudaMemcpyHostToDevice, stream_);
      }
      if (sent_chunk_ == chunk_) {
        sent_ = end;
        break;
      }
    }
    return error;
  }

 private:
  struct Chunk {
    char *host, *device;
    size_t size;
  };

  static constexpr size_t kAlignment = 256;  // of an array; Send sends what is between them too

  const void* UploadBytes(const void* data, size_t bytes) {
    while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].size) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size() && !Grow(bytes)) return nullptr;
    const Chunk& c = chunks_[chunk_];
    char* device = c.device + used_;
    std::memcpy(c.host + used_, data, bytes);
    used_ += RoundUp(bytes, kAlignment);
    return device;
  }

  bool Grow(size_t bytes) {
    constexpr size_t kChunkBytes = 1 << 20;
    void *host = nullptr, *device = nullptr;
    const size_t size = bytes > kChunkBytes ? RoundUp(bytes, kAlignment) : kChunkBytes;
    if (cudaMallocHost(&host, size) != cudaSuccess) return false;
    if (cudaMalloc(&device, size) != cudaSuccess) {
      (void)cudaFreeHost(host);
      return false;
    }
    chunks_.push_back({static_cast<char*>(host), static_cast<char*>(device), size});
    return true;
  }

  const cudaStream_t stream_;
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0, used_ = 0;       // the chunk in use, and how much of it
  size_t sent_chunk_ = 0, sent_ = 0;  // what comes before is on its way
};

}  // namespace sessa::cuda
