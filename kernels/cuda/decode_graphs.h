// CUDA graphs of decode steps. The operations of a decode step are not enqueued one by one but kept, each
// with a key: all that its launches depend on. When the step's results are asked for, the keys of all of them
// together name a graph. The first step with these keys runs its operations as they are (scratch memory
// grows, libraries choose their algorithms), the second is captured, and from then on the graph is launched.
// Nothing is assumed about who calls the operations in which order: another order, another pointer or another
// size is another key. What cannot be captured is tried again without overlapping launches; where that fails
// too, steps run operation by operation from then on. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/round.h"
#include "kernels/tensor.h"

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

  // Requires is_deferring(). `run` enqueues the operation on the stream and holds values alone, no
  // references; `key` are the values that its launches depend on, `name` a literal of this operation.
  template <class Run, class... P>
  void Keep(const Run& run, const char* name, const P&... key) {
    static_assert(std::is_trivially_copyable_v<Run> && alignof(Run) <= alignof(std::max_align_t));
    if (key_.size() < key_size_ + kMaxKeyWords) key_.resize(2 * key_.size() + kMaxKeyWords);
    uint64_t *const begin = key_.data() + key_size_, *end = Put(begin, name);
    ((end = Put(end, key)), ...);
    assert(end - begin <= kMaxKeyWords);
    key_size_ += end - begin;
    operations_.push_back({operands_.size(), [](void* f) { (*static_cast<Run*>(f))(); }});
    operands_.resize(operands_.size() + CeilDiv(sizeof(Run), sizeof(Operand)));
    std::memcpy(static_cast<void*>(operands_.data() + operations_.back().at), &run, sizeof(Run));
  }

  // Enqueues what was kept. may_replay: false, one by one.
  void Flush(bool may_replay);

  const DecodeGraphCounts& counts() const { return counts_; }

 private:
  struct Operation {
    size_t at;  // of its lambda in operands_
    void (*run)(void*);
  };
  struct alignas(alignof(std::max_align_t)) Operand {
    unsigned char bytes[alignof(std::max_align_t)];
  };
  struct Graph {
    std::vector<uint64_t> key;
    cudaGraphExec_t executable;  // null: seen once
  };

  // Appends a value to a key; returns the key's end. A key of a step is thousands of words, so they are
  // written without a check for each.
  static constexpr ptrdiff_t kMaxKeyWords = 256;  // of an operation
  static uint64_t* Put(uint64_t* to, const void* p) { return *to = reinterpret_cast<uintptr_t>(p), to + 1; }
  static uint64_t* Put(uint64_t* to, int64_t x) { return *to = static_cast<uint64_t>(x), to + 1; }
  static uint64_t* Put(uint64_t* to, int x) { return Put(to, int64_t{x}); }
  static uint64_t* Put(uint64_t* to, float x) { return *to = std::bit_cast<uint32_t>(x), to + 1; }
  static uint64_t* Put(uint64_t* to, DType x) { return Put(to, static_cast<int>(x)); }
  // The stream is always the same.
  static uint64_t* Put(uint64_t* to, const RowLaunch& on) { return Put(to, on.live); }
  static uint64_t* Put(uint64_t* to, const Matrix& x) { return PutAll(to, x.data, x.rows, x.cols, x.stride); }
  static uint64_t* Put(uint64_t* to, const PagedVectors& v) {
    return PutAll(to, v.data, v.dtype, v.page_size, v.num_heads, v.dim, v.first_page, v.num_pages);
  }
  static uint64_t* Put(uint64_t* to, const PagedRead& r) {
    return PutAll(to, r.q, r.keys, r.values, r.scale, int{r.feedback}, r.num_chains, r.rank, r.num_ranks,
                  r.work, r.blocks, r.num_blocks, r.max_queries, r.out, r.max, r.sum, r.acc, r.p,
                  r.partial_rows, r.width, r.live);
  }
  static uint64_t* Put(uint64_t* to, const LinearTask& t) {
    return PutAll(to, t.weight, t.bias, t.y, t.n, static_cast<int>(t.epilogue));
  }
  template <class T>
  static uint64_t* Put(uint64_t* to, absl::Span<const T> values) {
    to = Put(to, static_cast<int64_t>(values.size()));
    for (const T& x : values) to = Put(to, x);
    return to;
  }
  template <class... P>
  static uint64_t* PutAll(uint64_t* to, const P&... values) {
    ((to = Put(to, values)), ...);
    return to;
  }

  void RunAll() {
    for (const Operation& o : operations_) o.run(operands_.data() + o.at);
  }
  // Null when the operations cannot be captured: which call failed goes to `failure`.
  cudaGraphExec_t TryCapture(std::string* failure);
  cudaGraphExec_t Capture();
  void Report(std::string failure);  // once
  void Clear();

  const cudaStream_t stream_;
  bool deferring_ = false, can_capture_ = true, overlap_ = launch_switches().overlap;
  DecodeGraphCounts counts_;
  std::vector<uint64_t> key_;  // of the operations kept, one after another, in its first key_size_ words
  size_t key_size_ = 0;
  std::vector<Operation> operations_;
  std::vector<Operand> operands_;
  std::vector<Graph> graphs_;
};

}  // namespace sessa::cuda
