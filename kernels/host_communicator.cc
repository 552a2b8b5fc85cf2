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
  std::vector<std::vector<float>>
      parts;  // parts[r] is written by rank r before a barrier and read by others after it
};

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(int rank, int size, Backend* backend, std::shared_ptr<Group> group)
      : rank_(rank), size_(size), backend_(backend), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGatherColumns(Matrix x, absl::Span<const int> bounds) override {
    std::vector<float>& own = group_->parts[rank_];
    const auto width = [&](int r) { return static_cast<int64_t>(bounds[r + 1] - bounds[r]); };
    own.resize(x.rows * width(rank_));
    for (int i = 0; i < x.rows; ++i)
      backend_->CopyOut(x.row(i) + bounds[rank_], width(rank_) * sizeof(float),
                        own.data() + i * width(rank_));
    Exchange([&](int r, const std::vector<float>& part) {
      for (int i = 0; i < x.rows; ++i)
        backend_->CopyIn(part.data() + i * width(r), width(r) * sizeof(float), x.row(i) + bounds[r]);
    });
  }

  void AllGatherSegments(float* data, absl::Span<const Segment> segments) override {
    std::vector<float>& own = group_->parts[rank_];
    int64_t size = 0;
    for (const Segment& s : segments) size += s.owner == rank_ ? s.end - s.begin : 0;
    own.resize(size);
    // A part holds its rank's segments one after another.
    const auto each = [&](int owner, auto&& body) {
      int64_t at = 0;
      for (const Segment& s : segments) {
        if (s.owner != owner) continue;
        body(s, at);
        at += s.end - s.begin;
      }
    };
    each(rank_, [&](const Segment& s, int64_t at) {
      backend_->CopyOut(data + s.begin, (s.end - s.begin) * sizeof(float), own.data() + at);
    });
    Exchange([&](int r, const std::vector<float>& part) {
      each(r, [&](const Segment& s, int64_t at) {
        backend_->CopyIn(part.data() + at, (s.end - s.begin) * sizeof(float), data + s.begin);
      });
    });
  }

 private:
  template <class Take>
  void Exchange(const Take& take) {
    (void)backend_->Synchronize();  // an error stays with the backend
    group_->barrier.arrive_and_wait();
    for (int r = 0; r < size_; ++r) {
      if (r != rank_) take(r, group_->parts[r]);
    }
    (void)backend_->Synchronize();
    group_->barrier.arrive_and_wait();  // nobody overwrites its part before all have read it
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
