#include "kernels/communicator.h"

#include <algorithm>

namespace sessa {
namespace {

struct Group {
  explicit Group(int size) : barrier(size), parts(size) {}
  std::barrier<> barrier;
  // parts[r] is written by rank r before a barrier and read by others after it.
  std::vector<absl::Span<const Communicator::Columns>> parts;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(int rank, int size, std::shared_ptr<Group> group)
      : rank_(rank), size_(size), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGather(absl::Span<const Columns> parts) override {
    if (size_ == 1) return;
    group_->parts[rank_] = parts;
    group_->barrier.arrive_and_wait();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      for (size_t p = 0; p < parts.size(); ++p) {
        const auto& [x, bounds] = parts[p];
        const Matrix& from = group_->parts[r][p].x;
        for (int i = 0; i < x.rows; ++i)
          std::copy(from.row(i) + bounds[r], from.row(i) + bounds[r + 1], x.row(i) + bounds[r]);
      }
    }
    group_->barrier.arrive_and_wait();  // nobody overwrites its part before all have read it
  }

 private:
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
