// Writes one reply after the other to a socket, in pieces of at most 64 KiB, each of which must be taken
// within a time: a client that does not read is found by that, however long the reply. What is written is
// freed. Used on the connection's strand, one Write at a time.
#pragma once

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "boost/asio/error.hpp"
#include "boost/asio/write.hpp"
#include "server/core/byte_budget.h"
#include "server/rest/epoch_timer.h"

namespace sessa {

template <typename Stream>
class ReplyWriter {
 public:
  static constexpr size_t kPieceBytes = 64 << 10;
  using Done = std::function<void(boost::system::error_code)>;

  // `stream` outlives this; `timeout` is for a piece.
  ReplyWriter(Stream* stream, absl::Duration timeout)
      : stream_(stream), timeout_(timeout), timer_(stream->get_executor()) {
    // The kernel keeps little of what a client does not read; what is on its way is not limited by this.
    const int unsent = kPieceBytes;
    setsockopt(stream->lowest_layer().native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent,
               sizeof(unsent));
  }

  bool busy() const { return busy_; }
  // Not taken by the socket yet.
  size_t num_bytes() const { return rest_.size() + (busy_ ? piece_.size() : 0); }
  ByteBudget::Lease* lease() { return &lease_; }

  // `owner` keeps this alive until `done`, which gets error::timed_out when the client does not read. `lease`
  // is what `bytes` hold of the budget; it shrinks with them. Requires: !busy().
  void Write(absl::Cord bytes, ByteBudget::Lease lease, std::shared_ptr<void> owner, Done done) {
    rest_ = std::move(bytes);
    lease_ = std::move(lease);
    held_ = lease_.charged() + ByteBudget::kFreeBytes;
    owner_ = std::move(owner);
    done_ = std::move(done);
    busy_ = true;
    WritePiece();
  }

  // Forgets what is left; `done` is not called any more.
  void Stop() {
    timer_.Stop();
    done_ = nullptr;
    rest_.Clear();
    lease_ = ByteBudget::Lease();
  }

 private:
  void WritePiece() {
    const size_t size = std::min(rest_.size(), kPieceBytes);
    piece_.clear();
    const absl::Cord next = rest_.Subcord(0, size);
    for (const absl::string_view chunk : next.Chunks()) piece_.append(chunk.data(), chunk.size());
    rest_.RemovePrefix(size);
    timer_.Start(timeout_, [this, owner = owner_] { End(boost::asio::error::timed_out); });
    boost::asio::async_write(*stream_, boost::asio::buffer(piece_),
                             [this, owner = owner_](boost::system::error_code ec, size_t) {
                               timer_.Stop();
                               held_ = std::min<int64_t>(held_, static_cast<int64_t>(rest_.size()));
                               lease_.Resize(held_);
                               if (!ec && !rest_.empty()) return WritePiece();
                               busy_ = false;
                               if (piece_.capacity() > kPieceBytes / 4) piece_ = std::string();
                               End(ec);
                             });
  }

  void End(boost::system::error_code ec) {
    const std::shared_ptr<void> owner = std::exchange(owner_, nullptr);
    if (Done done = std::exchange(done_, nullptr)) done(ec);
  }

  Stream* const stream_;
  const absl::Duration timeout_;
  EpochTimer timer_;
  absl::Cord rest_;
  std::string piece_;
  ByteBudget::Lease lease_;
  int64_t held_ = 0;  // bytes that the lease is for: a shared part counts once
  std::shared_ptr<void> owner_;
  Done done_;
  bool busy_ = false;
};

}  // namespace sessa
