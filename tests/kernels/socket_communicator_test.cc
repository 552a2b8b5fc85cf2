// Ranks that talk over sockets: what they gather is what ranks in one process gather, whatever the sizes; and
// who waits for a rank that is gone, silent or given up waits no longer.
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/process_rank.h"
#include "tests/kernels/socket_pairs.h"

namespace sessa {
namespace {

using testing::HasSubstr;

// A rank's copy of a matrix of which it has filled its own columns.
struct Part {
  Part(int rank, int rows, std::vector<int> bounds)
      : bounds(std::move(bounds)), stride(this->bounds.back() + 3), values(rows * stride, -1), rows(rows) {
    for (int i = 0; i < rows; ++i) {
      for (int j = this->bounds[rank]; j < this->bounds[rank + 1]; ++j) values[i * stride + j] = Right(i, j);
    }
  }
  static float Right(int i, int j) { return static_cast<float>(i * 1000003 + j); }
  Communicator::Columns columns() { return {{values.data(), rows, bounds.back(), stride}, bounds}; }
  void ExpectWhole() const {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < stride; ++j)
        ASSERT_EQ(values[i * stride + j], j < bounds.back() ? Right(i, j) : -1) << i << ", " << j;
    }
  }
  std::vector<int> bounds;
  int stride;
  std::vector<float> values;
  int rows;
};

class SocketCommunicatorTest : public testing::Test {
 protected:
  void Make(int size, std::chrono::milliseconds limit = kCollectiveLimit) {
    pairs_ = std::make_unique<SocketPairs>(size);
    for (int r = 0; r < size; ++r) {
      backends_.push_back(MakeCpuBackend({.num_threads = 1}));
      ranks_.push_back(MakeSocketCommunicator(r, size, pairs_->of(r), backends_[r].get(), limit));
    }
  }
  void OnEach(const std::function<void(Communicator*)>& body) {
    std::vector<std::thread> threads;
    for (auto& rank : ranks_) threads.emplace_back([&] { body(rank.get()); });
    for (std::thread& thread : threads) thread.join();
  }
  std::unique_ptr<SocketPairs> pairs_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<GroupCommunicator>> ranks_;
};

TEST_F(SocketCommunicatorTest, GathersWhateverTheSizes) {
  const std::vector<int> no_columns(5, 0);
  for (int size : {2, 3, 4}) {
    backends_.clear();
    ranks_.clear();
    Make(size);
    const auto even = [&](int n) {
      std::vector<int> bounds;
      for (int r = 0; r <= size; ++r) bounds.push_back(n * r / size);
      return bounds;
    };
    std::vector<int> uneven = even(40), last_alone(size + 1, 0);
    uneven[1] = 1;
    last_alone.back() = 7;
    OnEach([&](Communicator* c) {
      // One of 8 MiB: no socket's buffer holds what goes both ways at once.
      for (auto& [rows, bounds] : std::vector<std::pair<int, std::vector<int>>>{
               {1, even(48)}, {0, even(48)}, {5, uneven}, {3, last_alone}, {512, even(4096)}, {1, even(1)}}) {
        Part part(c->rank(), rows, bounds);
        c->AllGather({part.columns()});
        ASSERT_TRUE(c->status().ok()) << c->status();
        part.ExpectWhole();
      }
      Part a(c->rank(), 2, even(9)), b(c->rank(), 30, uneven),
          none(c->rank(), 4, {no_columns.begin(), no_columns.begin() + size + 1});
      c->AllGather({a.columns(), none.columns(), b.columns()});
      ASSERT_TRUE(c->status().ok()) << c->status();
      a.ExpectWhole();
      b.ExpectWhole();
    });
  }
}

TEST_F(SocketCommunicatorTest, ARankThatIsGoneEndsTheOthers) {
  for (int gone : {0, 2}) {
    backends_.clear();
    ranks_.clear();
    Make(4);
    OnEach([&](Communicator* c) {
      if (c->rank() == gone) return pairs_->Close(gone);
      Part part(c->rank(), 1, {0, 1, 2, 3, 4});
      while (c->status().ok()) c->AllGather({part.columns()});
      // The leader's end is the others'.
      if (c->rank() == 0) {
        EXPECT_THAT(c->status().message(), HasSubstr("rank 2, in a collective: "));
        pairs_->Close(0);
      }
      EXPECT_EQ(c->status().code(), absl::StatusCode::kUnavailable);
    });
  }
}

TEST_F(SocketCommunicatorTest, ARankThatDoesNotComeIsNamed) {
  Make(3, std::chrono::milliseconds(50));
  Part part(0, 1, {0, 1, 2, 3}), own(1, 1, {0, 1, 2, 3});
  std::thread first([&] { ranks_[1]->AllGather({own.columns()}); });
  ranks_[0]->AllGather({part.columns()});
  EXPECT_EQ(ranks_[0]->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(ranks_[0]->status().message(), HasSubstr("a collective got nothing from rank"));
  EXPECT_THAT(ranks_[0]->status().message(), HasSubstr("2"));
  first.join();
  const absl::Status first_status = ranks_[0]->status();
  ranks_[0]->AllGather({part.columns()});  // returns at once
  EXPECT_EQ(ranks_[0]->status(), first_status);
}

TEST_F(SocketCommunicatorTest, GivingUpEndsWhoWaits) {
  Make(2);
  for (int r : {0, 1}) {
    Part part(r, 1, {0, 1, 2});
    std::thread waits([&] { ranks_[r]->AllGather({part.columns()}); });
    if (r == 0) ranks_[0]->GiveUp(absl::UnavailableError("told so"));
    waits.join();
  }
  EXPECT_EQ(ranks_[0]->status(), absl::UnavailableError("told so"));
  EXPECT_FALSE(ranks_[1]->status().ok());
  ranks_[0]->GiveUp(absl::UnavailableError("again"));
  EXPECT_EQ(ranks_[0]->status(), absl::UnavailableError("told so"));
}

}  // namespace
}  // namespace sessa
