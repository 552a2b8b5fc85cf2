// A byte is a message: they are sent whole or not at all.
#include "server/group/group_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "kernels/socket_io.h"

namespace sessa {
namespace {

constexpr char kBeat = 'b', kStop = 's', kEnd = 'e', kFailed = 'f';  // why follows, and a line break
constexpr size_t kMaxWhyBytes = 1024;

}  // namespace

GroupWatch::GroupWatch(std::vector<Peer> peers, absl::Duration silence, Events events)
    : silence_(silence), events_(std::move(events)), stop_(eventfd(0, EFD_CLOEXEC)) {
  for (Peer& peer : peers) peers_.push_back({std::move(peer), MonotonicNow()});
  thread_ = std::thread([this] { Run(); });
}

GroupWatch::~GroupWatch() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
  SendAll(kEnd);
}

void GroupWatch::AskToStop() { SendAll(kStop); }

void GroupWatch::Fail(absl::string_view why) {
  const std::string text = absl::StrCat(absl::string_view(&kFailed, 1), why.substr(0, kMaxWhyBytes), "\n");
  for (const Watched& watched : peers_) TrySend(watched.peer.socket.get(), text.data(), text.size());
}

// A peer that takes no bytes will be silent itself.
void GroupWatch::SendAll(char byte) {
  for (const Watched& watched : peers_) TrySend(watched.peer.socket.get(), &byte, 1);
}

void GroupWatch::Run() {
  const absl::Duration period = std::min(silence_ / 4, absl::Seconds(1));
  absl::Time next_beat = MonotonicNow();
  std::vector<pollfd> polled(peers_.size() + 1);
  while (true) {
    absl::Time now = MonotonicNow();
    if (now >= next_beat) {
      SendAll(kBeat);
      next_beat = now + period;
    }
    polled.back() = {stop_.get(), POLLIN, 0};
    for (size_t i = 0; i < peers_.size(); ++i)
      polled[i] = {peers_[i].ended ? -1 : peers_[i].peer.socket.get(), POLLIN, 0};
    poll(polled.data(), polled.size(),
         PollTimeout(
             std::chrono::ceil<std::chrono::milliseconds>(absl::ToChronoNanoseconds(next_beat - now))));
    if (polled.back().revents != 0) return;
    // What has come is read before anybody is judged: this process may have been stopped itself.
    for (Watched& watched : peers_) {
      absl::Status lost = watched.ended ? absl::OkStatus() : Read(&watched);
      if (lost.ok() && !watched.ended && MonotonicNow() - watched.heard > silence_)
        lost = absl::UnavailableError(absl::StrCat("silent for ", absl::FormatDuration(silence_)));
      if (lost.ok()) continue;
      events_.on_lost(
          absl::UnavailableError(absl::StrCat("rank ", watched.peer.rank, " is lost: ", lost.message())));
      return;
    }
  }
}

absl::Status GroupWatch::Read(Watched* watched) {
  char bytes[256];
  while (true) {
    const Moved got = TryReceive(watched->peer.socket.get(), bytes, sizeof(bytes));
    if (!got.status.ok()) return got.status;
    if (got.bytes == 0) return absl::OkStatus();
    watched->heard = MonotonicNow();
    for (const char byte : absl::string_view(bytes, got.bytes)) {
      if (watched->failed) {
        if (byte == '\n' || watched->why.size() > kMaxWhyBytes) return absl::UnavailableError(watched->why);
        watched->why += byte;
      } else if (byte == kStop) {
        events_.on_stop(watched->peer.rank);
      } else if (byte == kFailed) {
        watched->failed = true;
      } else if (byte == kEnd) {
        watched->ended = true;
        return absl::OkStatus();
      } else if (byte != kBeat) {
        return absl::UnavailableError("it sent what is no sign of life");
      }
    }
  }
}

}  // namespace sessa
