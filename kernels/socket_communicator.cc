// Ranks in processes of their own, over sockets. A collective is one exchange: rank 0 sends each peer the
// parts of all others, each as far as it has come, while it reads theirs, so that no buffer's size matters.
#include <poll.h>
#include <sys/socket.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/gathered_runs.h"
#include "kernels/process_rank.h"
#include "kernels/socket_io.h"

namespace sessa {
namespace {

class SocketCommunicator final : public GroupCommunicator {
 public:
  SocketCommunicator(int rank, int size, std::vector<int> sockets, Backend* backend,
                     std::chrono::milliseconds limit)
      : rank_(rank), size_(size), backend_(backend), limit_(limit), begin_(size + 1), come_(size) {
    for (size_t i = 0; i < sockets.size(); ++i)
      ways_.push_back({sockets[i], rank == 0 ? static_cast<int>(i) + 1 : 0});
    polled_.resize(ways_.size());
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status status() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

  void GiveUp(const absl::Status& why) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!status_.ok()) return;
      status_ = why;
    }
    for (const Way& way : ways_) shutdown(way.socket, SHUT_RDWR);
  }

  void AllGather(absl::Span<const Columns> parts) override {
    if (!status().ok()) return;
    for (int r = 0; r < size_; ++r)
      begin_[r + 1] = begin_[r] + ForEachRun(parts, r, [](float*, int64_t, int64_t) {}) * sizeof(float);
    packed_.resize(begin_[size_] / sizeof(float));
    ForEachRun(parts, rank_, [&](float* x, int64_t n, int64_t at) {
      backend_->CopyOut(x, n * sizeof(float), PartOf(rank_) + at);
    });
    (void)backend_->Synchronize();  // an error stays with the backend
    if (absl::Status done = Exchange(); !done.ok()) return GiveUp(done);
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      ForEachRun(parts, r, [&](float* x, int64_t n, int64_t at) {
        backend_->CopyIn(PartOf(r) + at, n * sizeof(float), x);
      });
    }
    (void)backend_->Synchronize();  // the next call writes over what is copied
  }

 private:
  // To a peer and back, in a collective. What is sent and received are bytes of packed_: of rank 0's all but
  // the peer's part and the peer's part; of other ranks' their own part and all others.
  struct Way {
    int socket, peer;
    size_t sent = 0, received = 0;
  };
  struct Place {
    int part;
    size_t at;  // bytes
  };

  float* PartOf(int r) { return packed_.data() + begin_[r] / sizeof(float); }
  size_t Bytes(int r) const { return begin_[r + 1] - begin_[r]; }
  // Byte `n` of all parts but one.
  Place AllBut(int without, size_t n) const {
    int r = without == 0 ? 1 : 0;
    while (n >= Bytes(r)) {
      n -= Bytes(r++);
      if (r == without) ++r;
    }
    return {r, n};
  }
  Place ToSend(const Way& way) const {
    return rank_ == 0 ? AllBut(way.peer, way.sent) : Place{rank_, way.sent};
  }
  Place ToReceive(const Way& way) const {
    return rank_ == 0 ? Place{way.peer, way.received} : AllBut(rank_, way.received);
  }
  size_t NumToSend(const Way& way) const {
    return rank_ == 0 ? begin_[size_] - Bytes(way.peer) : Bytes(rank_);
  }
  size_t NumToReceive(const Way& way) const {
    return rank_ == 0 ? Bytes(way.peer) : begin_[size_] - Bytes(rank_);
  }

  absl::Status Exchange() {
    for (Way& way : ways_) way.sent = way.received = 0;
    for (int r = 0; r < size_; ++r) come_[r] = r == rank_ ? Bytes(r) : 0;
    while (true) {
      bool done = true, moved = false;
      for (size_t i = 0; i < ways_.size(); ++i) {
        Way& way = ways_[i];
        if (absl::Status status = Receive(&way, &moved); !status.ok()) return Lost(way, status);
        bool ready = false;
        if (absl::Status status = Send(&way, &moved, &ready); !status.ok()) return Lost(way, status);
        const bool reads = way.received < NumToReceive(way);
        // A socket without events is left out: one that has done its part may be closed already.
        polled_[i] = {reads || ready ? way.socket : -1,
                      static_cast<short>((reads ? POLLIN : 0) | (ready ? POLLOUT : 0)), 0};
        done = done && !reads && way.sent == NumToSend(way);
      }
      if (done) return absl::OkStatus();
      if (!moved && poll(polled_.data(), polled_.size(), PollTimeout(limit_)) == 0) return Still();
    }
  }

  absl::Status Receive(Way* way, bool* moved) {
    while (way->received < NumToReceive(*way)) {
      const auto [part, at] = ToReceive(*way);
      const Moved got = TryReceive(way->socket, reinterpret_cast<char*>(PartOf(part)) + at, Bytes(part) - at);
      if (!got.status.ok()) return got.status;
      if (got.bytes == 0) break;
      way->received += got.bytes;
      come_[part] = at + got.bytes;
      *moved = true;
    }
    return absl::OkStatus();
  }

  // ready: there is more to send at once, and the socket's buffer is full.
  absl::Status Send(Way* way, bool* moved, bool* ready) {
    while (way->sent < NumToSend(*way)) {
      const auto [part, at] = ToSend(*way);
      if (come_[part] == at) break;
      const Moved put = TrySend(way->socket, reinterpret_cast<char*>(PartOf(part)) + at, come_[part] - at);
      if (!put.status.ok()) return put.status;
      if (put.bytes == 0) {
        *ready = true;
        break;
      }
      way->sent += put.bytes;
      *moved = true;
    }
    return absl::OkStatus();
  }

  absl::Status Lost(const Way& way, const absl::Status& status) const {
    return absl::UnavailableError(absl::StrCat("rank ", way.peer, ", in a collective: ", status.message()));
  }

  absl::Status Still() const {
    std::string who;
    for (const Way& way : ways_) {
      if (way.received < NumToReceive(way)) absl::StrAppend(&who, who.empty() ? "rank " : ", ", way.peer);
    }
    return absl::UnavailableError(absl::StrCat(
        "a collective got nothing from ", who.empty() ? "any rank" : who, " for ", limit_.count(), " ms"));
  }

  const int rank_, size_;
  Backend* const backend_;
  const std::chrono::milliseconds limit_;
  std::vector<Way> ways_;
  std::vector<pollfd> polled_;
  std::vector<float> packed_;  // all ranks' parts, one after another
  std::vector<size_t> begin_;  // [size + 1], bytes: where they begin
  std::vector<size_t> come_;   // [size], bytes of each part that are here

  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_; the first error ends the communicator
};

}  // namespace

std::unique_ptr<GroupCommunicator> MakeSocketCommunicator(int rank, int size, std::vector<int> sockets,
                                                          Backend* backend, std::chrono::milliseconds limit) {
  return std::make_unique<SocketCommunicator>(rank, size, std::move(sockets), backend, limit);
}

}  // namespace sessa
