// Ranks of any backends in one process, talking through host memory: each waits for its device, so this is
// for tests and for GPUs without NCCL between them, not for speed.
#include <barrier>
#include <utility>

#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "kernels/gathered_runs.h"

namespace sessa {
namespace {

struct Group {
  explicit Group(int size) : barrier(size), parts(size) {}
  std::barrier<> barrier;
  // parts[r] is written by rank r before a barrier and read by others after it.
  std::vector<std::vector<float>> parts;
};

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(int rank, int size, Backend* backend, std::shared_ptr<Group> group)
      : rank_(rank), size_(size), backend_(backend), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGather(absl::Span<const Columns> parts) override {
    std::vector<float>& own = group_->parts[rank_];
    own.resize(ForEachRun(parts, rank_, [](float*, int64_t, int64_t) {}));
    ForEachRun(parts, rank_, [&](float* x, int64_t n, int64_t at) {
      backend_->CopyOut(x, n * sizeof(float), own.data() + at);
    });
    (void)backend_->Synchronize();  // an error stays with the backend
    group_->barrier.arrive_and_wait();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      ForEachRun(parts, r, [&](float* x, int64_t n, int64_t at) {
        backend_->CopyIn(group_->parts[r].data() + at, n * sizeof(float), x);
      });
    }
    (void)backend_->Synchronize();
    group_->barrier.arrive_and_wait();  // nobody overwrites its part before all have read it
  }

 private:
  const int rank_, size_;
  Backend* const backend_;
  const std::shared_ptr<Group> group_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeHostCommunicators(absl::Span<Backend* const> backends) {
  const int size = static_cast<int>(backends.size());
  auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r)
    ranks.push_back(std::make_unique<HostCommunicator>(r, size, backends[r], group));
  return ranks;
}

}  // namespace sessa
