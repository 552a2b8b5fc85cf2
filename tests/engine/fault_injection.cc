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
  absl::StatusOr<LinearWeights> MakeLinear(const TensorView& weight, const TensorView* bias,
                                           DType to) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->MakeLinear(weight, bias, to);
  }
  absl::StatusOr<Buffer> MakeTable(const TensorView& values, DType to) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->MakeTable(values, to);
  }
  absl::StatusOr<PagedTensor> AllocatePages(const PagedShape& shape, int page_size, int first_page,
                                            int num_pages) override {
    if (absl::Status fault = Faults::Get().OnAllocation(0); !fault.ok()) return fault;
    return good_->AllocatePages(shape, page_size, first_page, num_pages);
  }
  void EndStep() override {
    if (++num_under_way_ > 1) Faults::Get().OnStepAhead();
  }
  absl::Status WaitForStep() override {
    --num_under_way_;
    return Synchronize();
  }
  bool is_asynchronous() const override { return asynchronous_; }
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
  size_t BytesPerPage(const PagedShape& shape, int page_size) const override {
    return good_->BytesPerPage(shape, page_size);
  }
  void BeginStep(const StepRows& rows) override { good_->BeginStep(rows); }
  void Embed(const Buffer& table, DType dtype, Matrix x) override { good_->Embed(table, dtype, x); }
  void Linear(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls) override {
    good_->Linear(x, norm, calls);
  }
  void GatherLogitRows(Matrix x, Matrix y) override { good_->GatherLogitRows(x, y); }
  void Append(const AppendCall& call) override { good_->Append(call); }
  void Attend(const AttendCall& call) override { good_->Attend(call); }
  FeedbackOps* feedback() override { return good_->feedback(); }
  ScanOps* scan() override { return good_->scan(); }
  void ReadState(const PagedTensor& state, const int32_t* pages, int n, float* out) override {
    good_->ReadState(state, pages, n, out);
  }

 private:
  const int rank_;
  const bool asynchronous_ = Faults::Get().is_asynchronous();
  int num_under_way_ = 0;
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
  asynchronous_ = false;
  num_steps_ahead_ = 0;
}

void Faults::FailAllocation(int64_t count) {
  MutexLock lock(&mutex_);
  allocations_left_ = count;
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
