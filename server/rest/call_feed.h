// What a call under way says, as the bytes to be written next: of a stream its head, its events as they come
// and its end; of a whole answer nothing until it is there. A connection asks for more when the last are
// written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "server/rest/call.h"
#include "server/rest/http_message.h"

namespace sessa {

class CallFeed {
 public:
  // `head`: of the request; outlives this.
  CallFeed(std::unique_ptr<Call> call, const RequestHead& head) : call_(std::move(call)), head_(head) {}

  // Puts the head of a stream before its events; returns its status.
  int BeginStream(bool keep_alive);
  // Takes what is ready, of a long answer as much as `charge` allows. False: there is no more now. Throws
  // what the standard library throws when memory is short.
  bool Pull(absl::FunctionRef<bool(int64_t num_bytes)> charge);
  std::string TakePiece() { return std::exchange(piece_, std::string()); }

  Call* call() const { return call_.get(); }
  bool is_whole() const { return call_->ended() && !call_->is_stream(); }  // MakeReply has it all
  bool at_end() const { return at_end_; }  // of a stream: the last piece was pulled

 private:
  const std::unique_ptr<Call> call_;
  const RequestHead& head_;
  std::string piece_;
  bool at_end_ = false;
};

}  // namespace sessa
