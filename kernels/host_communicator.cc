// Ranks of any backends in one process, talking through host memory: each waits for its device, so this is
// for tests and for GPUs without NCCL between them, not for speed.
#include <barrier>
#include <utility>

#include "kernels/backend.h"
#include "kernels/communicator.h"

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
    own.resize(Each(parts, rank_, [](float*, int64_t, int64_t) {}));
    Each(parts, rank_,
         [&](float* x, int64_t n, int64_t at) { backend_->CopyOut(x, n * sizeof(float), own.data() + at); });
    (void)backend_->Synchronize();  // an error stays with the backend
    group_->barrier.arrive_and_wait();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      Each(parts, r, [&](float* x, int64_t n, int64_t at) {
        backend_->CopyIn(group_->parts[r].data() + at, n * sizeof(float), x);
      });
    }
    (void)backend_->Synchronize();
    group_->barrier.arrive_and_wait();  // nobody overwrites its part before all have read it
  }

 private:
  // copy(x, n, at) for each run of n floats that rank r fills; in its part they follow one another. Returns
  // the size of the part.
  template <class Copy>
  static int64_t Each(absl::Span<const Columns> parts, int r, const Copy& copy) {
    int64_t at = 0;
    for (const auto& [x, bounds] : parts) {
      const int64_t n = bounds[r + 1] - bounds[r];
      for (int i = 0; i < x.rows && n > 0; ++i, at += n) copy(x.row(i) + bounds[r], n, at);
    }
    return at;
  }

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
