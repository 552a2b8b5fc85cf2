// CUDA graphs of decode steps. The operations of a decode step are not enqueued one by one but kept, each
// with a key: all that its launches depend on. When the step's results are asked for, the keys of all of them
// together name a graph. The first step with these keys runs its operations as they are (scratch memory
// grows, libraries choose their algorithms), the second is captured, and from then on the graph is launched.
// Nothing is assumed about who calls the operations in which order: another order, another pointer or another
// size is another key. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/runtime.h"
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
    Add(name);
    (Add(key), ...);
    operations_.push_back({operands_.size(), [](void* f) { (*static_cast<Run*>(f))(); }});
    operands_.resize(operands_.size() + (sizeof(Run) + sizeof(Operand) - 1) / sizeof(Operand));
    std::memcpy(static_cast<void*>(operands_.data() + operations_.back().at), &run, sizeof(Run));
  }

  // Enqueues what was kept. may_replay: false, one by one.
  void Flush(bool may_replay);

 private:
  struct Operation {
    size_t at;  // of its lambda in operands_
    void (*run)(void*);
  };
  struct alignas(alignof(std::max_align_t)) Operand {
    unsigned char bytes[alignof(std::max_align_t)];
  };

  void Add(const void* p) { key_.push_back(reinterpret_cast<uintptr_t>(p)); }
  void Add(int64_t x) { key_.push_back(static_cast<uint64_t>(x)); }
  void Add(int x) { Add(int64_t{x}); }
  void Add(float x) { key_.push_back(std::bit_cast<uint32_t>(x)); }
  void Add(DType x) { Add(static_cast<int>(x)); }
  void Add(const RowLaunch& on) { Add(on.live); }  // the stream is always the same
  void Add(const Matrix& x) { Add(x.data), Add(x.rows), Add(x.cols), Add(x.stride); }
  void Add(const PagedVectors& v) {
    Add(v.data), Add(v.dtype), Add(v.page_size), Add(v.num_heads), Add(v.dim), Add(v.first_page),
        Add(v.num_pages);
  }
  void Add(const PagedRead& r) {
    Add(r.q), Add(r.keys), Add(r.values), Add(r.scale), Add(int{r.feedback}), Add(r.num_chains), Add(r.rank),
        Add(r.num_ranks), Add(r.work), Add(r.blocks), Add(r.num_blocks), Add(r.max_queries), Add(r.out),
        Add(r.max), Add(r.sum), Add(r.acc), Add(r.p), Add(r.partial_rows), Add(r.width), Add(r.live);
  }
  void Add(const LinearTask& t) {
    Add(t.weight), Add(t.bias), Add(t.y), Add(t.n), Add(static_cast<int>(t.epilogue));
  }

  void RunAll() {
    for (const Operation& o : operations_) o.run(operands_.data() + o.at);
  }
  // Null when the operations cannot be captured.
  cudaGraphExec_t Capture();
  void Clear();

  const cudaStream_t stream_;
  bool deferring_ = false, can_capture_ = true;
  std::vector<uint64_t> key_;  // of the operations kept, one after another
  std::vector<Operation> operations_;
  std::vector<Operand> operands_;
  absl::flat_hash_map<std::vector<uint64_t>, cudaGraphExec_t> graphs_;  // null: seen once
};

}  // namespace sessa::cuda
