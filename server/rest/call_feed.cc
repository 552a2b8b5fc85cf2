#include "server/rest/call_feed.h"

namespace sessa {
namespace {

constexpr int64_t kSmallPull = 4 << 10;  // of a stream's events, without asking the budget
constexpr int64_t kLongPull = 64 << 10;  // a piece of ReplyWriter's

}  // namespace

int CallFeed::BeginStream(bool keep_alive) {
  const Reply reply = call_->MakeReply();
  piece_ = SerializeHead(reply, head_, keep_alive, true);
  return reply.status;
}

bool CallFeed::Pull(absl::FunctionRef<bool(int64_t num_bytes)> charge) {
  std::string events;
  bool more = call_->Pull(&events, kSmallPull);
  if (more && std::ssize(events) >= kSmallPull && charge(2 * kLongPull))
    more = call_->Pull(&events, kLongPull);
  if (!call_->is_stream()) return more;
  if (!events.empty()) piece_ += StreamPiece(events, head_);
  if (call_->ended() && !at_end_) {
    at_end_ = true;
    if (head_.version >= 11) piece_ += "0\r\n\r\n";
  }
  return more;
}

}  // namespace sessa
