#include "kernels/communicator.h"

#include <algorithm>

namespace sessa {
namespace {

struct Group {
  explicit Group(int size) : barrier(size), data(size) {}
  std::barrier<> barrier;
  std::vector<float*> data;  // data[r] is written by rank r before a barrier and read by others after it
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(int rank, int size, std::shared_ptr<Group> group)
      : rank_(rank), size_(size), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGatherColumns(Matrix x, absl::Span<const int> bounds) override {
    if (size_ == 1) return;
    Publish(x.data);
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      for (int i = 0; i < x.rows; ++i) {
        const float* from = group_->data[r] + i * x.stride;
        std::copy(from + bounds[r], from + bounds[r + 1], x.row(i) + bounds[r]);
      }
    }
    group_->barrier.arrive_and_wait();  // nobody overwrites its part before all have read it
  }

  void AllGatherSegments(float* data, absl::Span<const Segment> segments) override {
    if (size_ == 1) return;
    Publish(data);
    for (const Segment& s : segments) {
      if (s.owner != rank_)
        std::copy(group_->data[s.owner] + s.begin, group_->data[s.owner] + s.end, data + s.begin);
    }
    group_->barrier.arrive_and_wait();
  }

 private:
  void Publish(float* data) {
    group_->data[rank_] = data;
    group_->barrier.arrive_and_wait();
  }

  const int rank_, size_;
  const std::shared_ptr<Group> group_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size) {
  auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(std::make_unique<ThreadCommunicator>(r, size, group));
  return ranks;
}

}  // namespace sessa
