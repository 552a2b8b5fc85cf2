// What a connection has read and not answered yet: the bytes of one request after the other, parsed as they
// come, and what they hold of the budget. Apart from sockets. Not thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "boost/beast/core/flat_buffer.hpp"
#include "server/core/byte_budget.h"
#include "server/core/limits.h"
#include "server/rest/http_read.h"

namespace sessa {

class RequestInput {
 public:
  // `budget` outlives this. `in_long_body` is set while a body of which 64 KiB are there goes on.
  RequestInput(ByteBudget* budget, std::shared_ptr<std::atomic<bool>> in_long_body)
      : lease_(budget, ByteBudget::Kind::kInput), in_long_body_(std::move(in_long_body)) {}

  void Append(absl::string_view bytes);
  size_t size() const { return buffer_.size(); }  // not parsed yet
  void Clear();                                   // drops all but the lease

  // False: there is nothing of a next request yet.
  bool Begin(const Limits& limits);

  enum class State { kMore, kHeader, kBody, kFailed };
  // Parses on: kHeader once the header is there, kBody once the body is, kFailed with `error`.
  State Parse(boost::system::error_code* error);
  // After kHeader: the body may follow.
  void BeginBody(const Limits& limits);
  const RequestParser& parser() const { return *parser_; }
  // After kBody, or after kHeader of a request without one. The lease stays what it was until Charge.
  std::string TakeBody();

  // How much to read next.
  size_t read_bytes() const;
  // What is held here and `more`, against the budget; false when there is no room.
  bool Charge(size_t more);
  ByteBudget::Lease* lease() { return &lease_; }

  // The time that the body still has: `beginning`, and so long as its bytes so far take at `min_rate` bytes a
  // second.
  absl::Duration BodyTimeLeft(absl::Duration beginning, double min_rate) const;

 private:
  void LeaveBody();

  ByteBudget::Lease lease_;
  const std::shared_ptr<std::atomic<bool>> in_long_body_;
  boost::beast::flat_buffer buffer_;
  std::optional<RequestParser> parser_;
  bool in_body_ = false;
  std::chrono::steady_clock::time_point body_begin_;
};

}  // namespace sessa
