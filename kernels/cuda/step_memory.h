// What a step's host data costs on the device: small arrays, gathered in pinned memory and sent in one copy,
// in order with the kernels. Arrays of the same sizes in the same order have the same addresses in every
// step, which is what lets a captured graph be launched again. Most steps fit the first megabyte, which is
// made before any step, twice on the host: one may be on its way while the next step's is filled. The rest is
// as slow to send as pageable memory is, as steps must not pin any (context.h), and its host memory is free
// once it is sent. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/runtime.h"
#include "kernels/round.h"

namespace sessa::cuda {

class StepMemory {
 public:
  explicit StepMemory(Context* context) : context_(context) {
    void* pinned = nullptr;
    if (cudaMallocHost(&pinned, 2 * kChunkBytes) == cudaSuccess) {
      pinned_ = static_cast<char*>(pinned);
    } else {
      (void)cudaGetLastError();
    }
    (void)Grow(kChunkBytes);
  }
  ~StepMemory() {
    if (pinned_ != nullptr) (void)cudaFreeHost(pinned_);
  }
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;

  // Forgets everything. Requires that no copy of the step before the last is under way; what is sent from now
  // on comes behind the kernels that use it now.
  void Reset() {
    chunk_ = used_ = sent_chunk_ = sent_ = 0;
    if (pinned_ == nullptr || chunks_.empty()) return;
    Chunk& first = chunks_.front();
    first.host = first.host == pinned_ ? pinned_ + kChunkBytes : pinned_;
  }

  // Where the values will be on the device after Send, until Reset; null when there is no memory, which the
  // context is told, or no value.
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
      const size_t end = sent_chunk_ == chunk_ ? used_ : c.size();
      if (end > sent_ && error == cudaSuccess) {
        error = cudaMemcpyAsync(c.device() + sent_, c.host + sent_, end - sent_, cudaMemcpyHostToDevice,
                                context_->stream());
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
    char* host;
    std::unique_ptr<char[]> pageable;  // where `host` is, but for the first
    Buffer memory;
    size_t size() const { return memory.size(); }
    char* device() const { return static_cast<char*>(memory.data()); }
  };

  static constexpr size_t kChunkBytes = 1 << 20;
  static constexpr size_t kAlignment = 256;  // of an array; Send sends what is between them too

  const void* UploadBytes(const void* data, size_t bytes) {
    while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].size()) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size() && !Grow(bytes)) return nullptr;
    const Chunk& c = chunks_[chunk_];
    char* device = c.device() + used_;
    std::memcpy(c.host + used_, data, bytes);
    used_ += RoundUp(bytes, kAlignment);
    return device;
  }

  bool Grow(size_t bytes) {
    auto memory = context_->AllocateForStep(std::max(RoundUp(bytes, kAlignment), kChunkBytes));
    if (!memory.ok()) {
      context_->Fail(memory.status());
      return false;
    }
    Chunk chunk{chunks_.empty() ? pinned_ : nullptr, nullptr, *std::move(memory)};
    if (chunk.host == nullptr) {
      chunk.pageable = std::make_unique_for_overwrite<char[]>(chunk.size());
      chunk.host = chunk.pageable.get();
    }
    chunks_.push_back(std::move(chunk));
    return true;
  }

  Context* const context_;
  char* pinned_ = nullptr;  // of the first chunk, twice, unless there was none to have
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0, used_ = 0;       // the chunk in use, and how much of it
  size_t sent_chunk_ = 0, sent_ = 0;  // what comes before is on its way
};

}  // namespace sessa::cuda
