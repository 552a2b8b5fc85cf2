// See fault_injection.h.
#include "tests/engine/fault_injection.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device.h"

namespace sessa {
namespace {

// The CPU's backend, but where a fault is due.
class FaultyBackend final : public Backend {
 public:
  FaultyBackend(int rank, std::unique_ptr<Backend> good) : rank_(rank), good_(std::move(good)) {}

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    if (absl::Status fault = Faults::Get().OnAllocation(bytes); !fault.ok()) return fault;
    return good_->Allocate(bytes);
  }
  absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n, int k,
                                           DType to) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->MakeLinear(weight, bias, from, n, k, to);
  }
  absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->MakeTable(data, from, n, to);
  }
  absl::Status AllocateState(int num_pages, LayerState* state) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->AllocateState(num_pages, state);
  }
  absl::Status Synchronize() override {
    status_.Update(good_->Synchronize());
    status_.Update(Faults::Get().OnSync(rank_));
    return status_;
  }
  void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
              int32_t* tokens) override {
    good_->Sample(logits, rows, edits, tokens);
    if (Faults::Get().OnSample()) tokens[0] = -1;
  }

  int64_t FreeBytes() const override { return good_->FreeBytes(); }
  void CopyIn(const void* host, size_t bytes, void* device) override { good_->CopyIn(host, bytes, device); }
  void CopyOut(const void* device, size_t bytes, void* host) override { good_->CopyOut(device, bytes, host); }
  int MaxBlockRows(DType state_dtype) const override { return good_->MaxBlockRows(state_dtype); }
  size_t StateBytesPerPage(const LayerState& shape, bool feedback) const override {
    return good_->StateBytesPerPage(shape, feedback);
  }
  void BeginStep(const StepRows& rows) override { good_->BeginStep(rows); }
  void Embed(const Buffer& table, DType dtype, Matrix x) override { good_->Embed(table, dtype, x); }
  void Linear(Matrix x, absl::Span<const LinearCall> calls) override { good_->Linear(x, calls); }
  void LayerNormLinear(Matrix x, const LayerNorm& norm, absl::Span<const LinearCall> calls) override {
    good_->LayerNormLinear(x, norm, calls);
  }
  void GatherLogitRows(Matrix x, Matrix y) override { good_->GatherLogitRows(x, y); }
  void AppendRows(const LayerRows& rows, LayerState* state) override { good_->AppendRows(rows, state); }
  void AppendFeedbackStates(Matrix s, int wave, LayerState* state) override {
    good_->AppendFeedbackStates(s, wave, state);
  }
  void Attend(const AttendCall& call, const LayerState& state) override { good_->Attend(call, state); }
  void FeedbackRead(const FeedbackReadCall& call, const LayerState& state) override {
    good_->FeedbackRead(call, state);
  }
  void AttendAndFeedbackRead(const AttendCall& attend, const FeedbackReadCall& read,
                             const LayerState& state) override {
    good_->AttendAndFeedbackRead(attend, read, state);
  }
  void FeedbackSolve(const FeedbackSolveCall& call, LayerState* state) override {
    good_->FeedbackSolve(call, state);
  }
  void ReadState(const LayerState& state, const int32_t* pages, int n, float* k_f, float* v_f, float* k_b,
                 float* s) override {
    good_->ReadState(state, pages, n, k_f, v_f, k_b, s);
  }

 private:
  const int rank_;
  const std::unique_ptr<Backend> good_;
  absl::Status status_;
};

}  // namespace

bool BuiltWithCuda() { return false; }

absl::StatusOr<std::vector<DeviceRank>> MakeRanks(const DeviceOptions& options) {
  auto communicators = MakeThreadCommunicators(options.num_ranks);
  std::vector<DeviceRank> ranks;
  for (int i = 0; i < options.num_ranks; ++i)
    ranks.push_back(
        {std::make_unique<FaultyBackend>(i, MakeCpuBackend(options.cpu)), std::move(communicators[i])});
  return ranks;
}

Faults& Faults::Get() {
  static Faults& faults = *new Faults;
  return faults;
}

void Faults::Clear() {
  MutexLock lock(&mutex_);
  allocations_left_ = -1;
  num_allocations_ = 0;
  at_sync_ = nullptr;
  at_sample_ = nullptr;
}

void Faults::FailAllocation(int64_t count) {
  MutexLock lock(&mutex_);
  allocations_left_ = count;
}

int64_t Faults::num_allocations() const {
  MutexLock lock(&mutex_);
  return num_allocations_;
}

void Faults::SetAtSync(std::function<absl::Status(int)> at_sync) {
  MutexLock lock(&mutex_);
  at_sync_ = std::move(at_sync);
}

void Faults::SetAtSample(std::function<bool()> at_sample) {
  MutexLock lock(&mutex_);
  at_sample_ = std::move(at_sample);
}

absl::Status Faults::OnAllocation(size_t bytes) {
  MutexLock lock(&mutex_);
  ++num_allocations_;
  if (allocations_left_ < 0 || allocations_left_-- > 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("injected: no memory for ", bytes, " bytes"));
}

absl::Status Faults::OnSync(int rank) {
  std::function<absl::Status(int)> at_sync;
  {
    MutexLock lock(&mutex_);
    at_sync = at_sync_;
  }
  return at_sync ? at_sync(rank) : absl::OkStatus();  // outside the lock: it may block
}

bool Faults::OnSample() {
  MutexLock lock(&mutex_);
  return at_sample_ && at_sample_();
}

}  // namespace sessa
