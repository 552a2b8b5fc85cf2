// See request_input.h.
#include "server/rest/request_input.h"

#include <algorithm>
#include <cstring>

#include "boost/beast/http/error.hpp"

namespace sessa {
namespace {

namespace http = boost::beast::http;

constexpr size_t kMinReadBytes = 4 << 10, kMaxReadBytes = 64 << 10, kLongBodyBytes = 64 << 10;

}  // namespace

void RequestInput::Append(absl::string_view bytes) {
  if (bytes.empty()) return;
  std::memcpy(buffer_.prepare(bytes.size()).data(), bytes.data(), bytes.size());
  buffer_.commit(bytes.size());
}

void RequestInput::LeaveBody() {
  parser_.reset();
  in_body_ = false;
  *in_long_body_ = false;
}

void RequestInput::Clear() {
  LeaveBody();
  buffer_.clear();
  buffer_.shrink_to_fit();
}

bool RequestInput::Begin(const Limits& limits) {
  SkipBlankLines(&buffer_);
  buffer_.shrink_to_fit();
  if (buffer_.size() == 0) return false;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(limits.max_header_bytes));
  parser_->body_limit(boost::none);  // Judge compares the length that the header says
  return true;
}

RequestInput::State RequestInput::Parse(boost::system::error_code* error) {
  while (buffer_.size() > 0) {
    const size_t used = parser_->put(buffer_.data(), *error);
    buffer_.consume(used);
    if (*error == http::error::need_more) break;
    if (*error) return State::kFailed;
    if (!in_body_ && parser_->is_header_done()) {
      *error = CheckFraming(*parser_);
      return *error ? State::kFailed : State::kHeader;
    }
    if (in_body_ && parser_->is_done()) return State::kBody;
    if (used == 0) break;
  }
  *error = {};
  *in_long_body_ = in_body_ && parser_->get().body().size() >= kLongBodyBytes;
  return State::kMore;
}

void RequestInput::BeginBody(const Limits& limits) {
  parser_->body_limit(static_cast<uint64_t>(limits.max_body_bytes));
  in_body_ = true;
  body_begin_ = std::chrono::steady_clock::now();
}

std::string RequestInput::TakeBody() {
  std::string body = std::move(parser_->get().body());
  LeaveBody();
  buffer_.shrink_to_fit();
  return body;
}

size_t RequestInput::read_bytes() const {
  if (!in_body_) return kMinReadBytes;
  const uint64_t left = parser_->content_length_remaining().value_or(kMaxReadBytes / 4);
  return static_cast<size_t>(std::clamp<uint64_t>(left, kMinReadBytes, kMaxReadBytes));
}

bool RequestInput::Charge(size_t more) {
  size_t bytes = buffer_.capacity() + more;
  // A string that grows has twice its size for a moment; where the length was said it does not grow.
  if (parser_.has_value()) bytes += parser_->get().body().size() * (parser_->chunked() ? 2 : 1);
  return lease_.Resize(static_cast<int64_t>(bytes));
}

absl::Duration RequestInput::BodyTimeLeft(absl::Duration beginning, double min_rate) const {
  const double received = static_cast<double>(parser_->get().body().size());
  const auto spent = absl::FromChrono(std::chrono::steady_clock::now() - body_begin_);
  return std::max(absl::ZeroDuration(), beginning + absl::Seconds(received / min_rate) - spent);
}

}  // namespace sessa
