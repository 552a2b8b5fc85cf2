#include "engine/rank_group.h"

#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/socket_io.h"

namespace sessa {
namespace {

constexpr size_t kMaxWordBytes = 64 << 10;
// 64 Mi words: 256 sequences of a million tokens in pages of 16 are a quarter of it.
constexpr size_t kMaxStepBytes = size_t{256} << 20;

// What a rank does not take within this time it does not take at all: it reads whenever it does not compute.
constexpr std::chrono::milliseconds kSendLimit = kCollectiveLimit;

enum Kind : uint32_t { kWord = 1, kWords, kStep, kEnd };

}  // namespace

struct RankGroup::Frame {
  uint32_t kind = 0, num_bytes = 0;
};

RankGroup::RankGroup(int rank, int size, std::vector<int> sockets,
                     std::function<void(const absl::Status&)> on_lost)
    : rank_(rank), size_(size), sockets_(std::move(sockets)), on_lost_(std::move(on_lost)) {}

RankLinks RankGroup::links() {
  return {rank_, sockets_, [this](std::string own) -> absl::StatusOr<std::string> {
            auto words = Share(own);
            if (!words.ok()) return words.status();
            return (*words)[0];
          }};
}

absl::StatusOr<std::vector<std::string>> RankGroup::Share(const std::string& own) {
  if (own.size() > kMaxWordBytes) return absl::InternalError("a word for other ranks is too long");
  std::vector<std::string> words(size_);
  words[rank_] = own;
  if (rank_ > 0) {
    if (absl::Status sent = Send(0, {kWord, static_cast<uint32_t>(own.size())}, own.data()); !sent.ok())
      return sent;
    for (std::string& word : words) {
      if (absl::Status got = Receive(0, kWords, kMaxWordBytes, &word); !got.ok()) return got;
    }
    return words;
  }
  for (int peer = 1; peer < size_; ++peer) {
    if (absl::Status got = Receive(peer, kWord, kMaxWordBytes, &words[peer]); !got.ok()) return got;
  }
  for (int peer = 1; peer < size_; ++peer) {
    for (const std::string& word : words) {
      absl::Status sent = Send(peer, {kWords, static_cast<uint32_t>(word.size())}, word.data());
      if (!sent.ok()) return sent;
    }
  }
  return words;
}

absl::Status RankGroup::SendStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows) {
  EncodeStep(plan, logit_rows, &words_);
  const size_t num_bytes = words_.size() * sizeof(int32_t);
  if (num_bytes > kMaxStepBytes) return absl::InternalError("a step is too large to be sent to other ranks");
  for (int peer = 1; peer < size_; ++peer) {
    absl::Status sent = Send(peer, {kStep, static_cast<uint32_t>(num_bytes)}, words_.data());
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

void RankGroup::SendEnd() {
  SetEnded();
  for (int peer = 1; peer < size_; ++peer) Send(peer, {kEnd, 0}, nullptr).IgnoreError();
}

absl::StatusOr<bool> RankGroup::ReceiveStep(const StepBounds& bounds, StepMessage* message) {
  Frame frame;
  if (absl::Status got = ReceiveHead(0, kMaxStepBytes, &frame); !got.ok()) return got;
  if (frame.kind == kEnd && frame.num_bytes == 0) {
    SetEnded();
    return false;
  }
  if (frame.kind != kStep || frame.num_bytes % sizeof(int32_t) != 0)
    return Fail(
        0, absl::UnavailableError(absl::StrCat("sent a frame of kind ", frame.kind, " in place of a step")));
  words_.resize(frame.num_bytes / sizeof(int32_t));
  if (absl::Status got = ReceiveAll(sockets_[0], words_.data(), frame.num_bytes, kNoLimit); !got.ok())
    return Fail(0, got);
  if (absl::Status fine = DecodeStep(words_, bounds, message); !fine.ok()) return Fail(0, fine);
  return true;
}

absl::Status RankGroup::Send(int peer, const Frame& frame, const void* bytes) {
  if (absl::Status lost = status(); !lost.ok()) return lost;
  const int socket = sockets_[rank_ == 0 ? peer - 1 : 0];
  absl::Status sent = SendAll(socket, &frame, sizeof(frame), kSendLimit);
  if (sent.ok()) sent = SendAll(socket, bytes, frame.num_bytes, kSendLimit);
  return sent.ok() ? sent : Fail(peer, sent);
}

absl::Status RankGroup::ReceiveHead(int peer, size_t max_bytes, Frame* frame) {
  if (absl::Status lost = status(); !lost.ok()) return lost;
  const int socket = sockets_[rank_ == 0 ? peer - 1 : 0];
  absl::Status got = ReceiveAll(socket, frame, sizeof(*frame), kNoLimit);
  if (got.ok() && frame->num_bytes > max_bytes)
    got = absl::UnavailableError(absl::StrCat("sent a frame of ", frame->num_bytes, " bytes"));
  return got.ok() ? got : Fail(peer, got);
}

absl::Status RankGroup::Receive(int peer, uint32_t kind, size_t max_bytes, std::string* bytes) {
  Frame frame;
  if (absl::Status got = ReceiveHead(peer, max_bytes, &frame); !got.ok()) return got;
  if (frame.kind != kind) {
    return Fail(peer, absl::UnavailableError(
                          absl::StrCat("sent a frame of kind ", frame.kind, " in place of ", kind)));
  }
  bytes->resize(frame.num_bytes);
  const int socket = sockets_[rank_ == 0 ? peer - 1 : 0];
  if (absl::Status got = ReceiveAll(socket, bytes->data(), bytes->size(), kNoLimit); !got.ok())
    return Fail(peer, got);
  return absl::OkStatus();
}

absl::Status RankGroup::Fail(int peer, const absl::Status& why) {
  Lose(absl::UnavailableError(absl::StrCat("rank ", peer, " is lost: ", why.message())));
  return status();
}

void RankGroup::Lose(const absl::Status& why) {
  {
    MutexLock lock(&mutex_);
    if (!status_.ok() || ended_) return;
    status_ = why;
    if (communicator_ != nullptr) communicator_->GiveUp(why);
  }
  for (const int socket : sockets_) shutdown(socket, SHUT_RDWR);
  on_lost_(why);
}

void RankGroup::SetEnded() {
  MutexLock lock(&mutex_);
  ended_ = true;
}

absl::Status RankGroup::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

void RankGroup::SetCommunicator(GroupCommunicator* communicator) {
  MutexLock lock(&mutex_);
  communicator_ = communicator;
  if (communicator_ != nullptr && !status_.ok()) communicator_->GiveUp(status_);
}

}  // namespace sessa
