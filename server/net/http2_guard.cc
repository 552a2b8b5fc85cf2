// See http2_guard.h. Numbers in comments are sections of RFC 9113.
#include "server/net/http2_guard.h"

#include <algorithm>
#include <cstring>

namespace sessa {
namespace {

constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";  // 3.4

// 6.1 to 6.10
enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
constexpr uint8_t kEndStream = 1, kEndHeaders = 4, kPadded = 8;
constexpr uint8_t kEnhanceYourCalm = 0xb;

// Envoy's allowances: WINDOW_UPDATEs for each of the server's DATA frames and for each stream.
constexpr double kUpdatesPerData = 10, kUpdatesPerStream = 2;

}  // namespace

absl::string_view Http2Guard::Scanner::TakePayload(absl::string_view* bytes) {
  const absl::string_view payload = bytes->substr(0, payload_left_);
  payload_left_ -= static_cast<uint32_t>(payload.size());
  bytes->remove_prefix(payload.size());
  return payload;
}

std::optional<Http2Guard::Frame> Http2Guard::Scanner::Next(absl::string_view* bytes) {
  TakePayload(bytes);
  const size_t taken = std::min(header_.size() - num_header_bytes_, bytes->size());
  std::memcpy(&header_[num_header_bytes_], bytes->data(), taken);
  num_header_bytes_ += taken;
  bytes->remove_prefix(taken);
  if (num_header_bytes_ < header_.size()) return std::nullopt;
  num_header_bytes_ = 0;
  const auto& h = header_;
  payload_left_ = uint32_t{h[0]} << 16 | uint32_t{h[1]} << 8 | h[2];
  const uint32_t stream =
      (uint32_t{h[5]} << 24 | uint32_t{h[6]} << 16 | uint32_t{h[7]} << 8 | h[8]) & 0x7fffffff;
  return Frame{payload_left_, h[3], h[4], stream};
}

bool Http2Guard::Allowance::Take(Clock::time_point now) {
  // What was earned beyond the burst stays; time adds up to the burst alone.
  if (tokens_ < rate_.burst) {
    const double seconds = std::chrono::duration<double>(now - last_).count();
    tokens_ = std::min(rate_.burst, tokens_ + std::max(0.0, seconds) * rate_.per_second);
  }
  last_ = now;
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

Http2Guard::Http2Guard(const Http2Limits& limits, Clock::time_point now)
    : limits_(limits),
      now_(now),
      resets_(limits.resets, now),
      settings_(limits.settings, now),
      pings_(limits.pings, now),
      empty_frames_(limits.empty_frames, now),
      window_updates_(limits.window_updates, now),
      other_frames_(limits.other_frames, now) {}

std::optional<Http2Guard::Clock::time_point> Http2Guard::unfinished_since() const {
  if (client_.between_frames() && !in_header_block_) return std::nullopt;
  return unfinished_since_;
}

std::optional<Cut> Http2Guard::Take(Allowance* allowance, Cut reason) {
  if (allowance->Take(now_)) return std::nullopt;
  return reason;
}

std::optional<Cut> Http2Guard::OnClientBytes(absl::string_view bytes, Clock::time_point now) {
  now_ = now;
  const size_t taken = std::min(kPreface.size() - num_preface_bytes_, bytes.size());
  if (bytes.substr(0, taken) != kPreface.substr(num_preface_bytes_, taken)) return Cut::kProtocol;
  num_preface_bytes_ += taken;
  bytes.remove_prefix(taken);
  while (!bytes.empty()) {
    if (client_.between_frames() && !in_header_block_) unfinished_since_ = now;
    const absl::string_view payload = client_.TakePayload(&bytes);
    if (data_stream_ != 0) {
      if (std::optional<Cut> cut = OnData(payload)) return cut;
    }
    const std::optional<Frame> frame = client_.Next(&bytes);
    if (!frame.has_value()) break;
    if (std::optional<Cut> cut = OnClientFrame(*frame)) return cut;
  }
  return std::nullopt;
}

std::optional<Cut> Http2Guard::OnClientFrame(const Frame& frame) {
  if (!started_ && frame.type != kSettings) return Cut::kProtocol;  // 3.4: it comes first
  started_ = true;
  if (frame.length > limits_.max_frame_bytes) return Cut::kFrameBytes;
  // 6.10: nothing may come between HEADERS and its CONTINUATIONs.
  if (in_header_block_ != (frame.type == kContinuation)) return Cut::kProtocol;
  if (in_header_block_ && frame.stream != header_block_stream_) return Cut::kProtocol;
  data_stream_ = frame.type == kData ? frame.stream : 0;
  switch (frame.type) {
    case kData:
      data_left_ = frame.length;
      is_padded_ = (frame.flags & kPadded) != 0;
      if (frame.length > 0 || (frame.flags & kEndStream) != 0) return std::nullopt;
      return Take(&empty_frames_, Cut::kEmptyFrames);
    case kHeaders:
    case kContinuation: return OnHeaderBlock(frame);
    case kRstStream: streams_.erase(frame.stream); return Take(&resets_, Cut::kResets);
    case kSettings: return Take(&settings_, Cut::kSettings);
    case kPing: return Take(&pings_, Cut::kPings);
    case kWindowUpdate: return Take(&window_updates_, Cut::kWindowUpdates);
    default: return Take(&other_frames_, Cut::kOtherFrames);
  }
}

std::optional<Cut> Http2Guard::OnData(absl::string_view payload) {
  const auto stream = streams_.find(data_stream_);
  if (stream == streams_.end()) return std::nullopt;  // it has ended: nobody takes what comes
  if (is_padded_ && !payload.empty()) {               // 6.1
    is_padded_ = false;
    const auto padding = static_cast<uint8_t>(payload[0]);
    if (padding >= data_left_) return Cut::kProtocol;
    data_left_ -= 1 + padding;
    payload.remove_prefix(1);
  }
  payload = payload.substr(0, data_left_);
  data_left_ -= static_cast<uint32_t>(payload.size());
  Messages& messages = stream->second;
  while (!payload.empty()) {
    const size_t taken = std::min<size_t>(messages.left, payload.size());
    messages.left -= static_cast<uint32_t>(taken);
    payload.remove_prefix(taken);
    while (messages.left == 0 && messages.num_prefix_bytes < messages.prefix.size() && !payload.empty()) {
      messages.prefix[messages.num_prefix_bytes++] = static_cast<uint8_t>(payload[0]);
      payload.remove_prefix(1);
    }
    if (messages.num_prefix_bytes < messages.prefix.size()) continue;
    const auto& p = messages.prefix;
    messages.left = uint32_t{p[1]} << 24 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 8 | p[4];
    messages.num_prefix_bytes = 0;
    if (messages.left > limits_.max_message_bytes) return Cut::kMessageBytes;
  }
  return std::nullopt;
}

std::optional<Cut> Http2Guard::OnHeaderBlock(const Frame& frame) {
  if (frame.type == kHeaders) {
    header_block_stream_ = frame.stream;
    header_block_bytes_ = 0;
    num_continuations_ = 0;
    if (frame.stream > last_stream_) {  // 5.1.1: a new stream's number is above all before
      last_stream_ = frame.stream;
      streams_.try_emplace(frame.stream);
      if (streams_.size() > limits_.max_streams) return Cut::kStreams;
      window_updates_.Earn(kUpdatesPerStream);
    } else if (std::optional<Cut> cut = Take(&other_frames_, Cut::kOtherFrames)) {
      return cut;
    }
  } else if (++num_continuations_ > limits_.max_continuations) {
    return Cut::kHeaderBytes;
  }
  in_header_block_ = (frame.flags & kEndHeaders) == 0;
  header_block_bytes_ += frame.length;
  if (header_block_bytes_ > limits_.max_header_block_bytes) return Cut::kHeaderBytes;
  if (frame.length == 0 && in_header_block_) return Take(&empty_frames_, Cut::kEmptyFrames);
  return std::nullopt;
}

std::optional<Cut> Http2Guard::OnServerBytes(absl::string_view bytes) {
  server_has_sent_ = server_has_sent_ || !bytes.empty();
  while (!bytes.empty()) {
    const std::optional<Frame> frame = server_.Next(&bytes);
    if (!frame.has_value()) break;
    if (frame->type == kData) {
      window_updates_.Earn(kUpdatesPerData);
      pings_.Earn(1);
    }
    const bool is_reset = frame->type == kRstStream;
    const bool ends = (frame->type == kData || frame->type == kHeaders) && (frame->flags & kEndStream) != 0;
    // A reset of a stream that is open is one that the client has brought about. After the end the server
    // sends one (NO_ERROR, 8.1) when the client has not ended its side; that one counts for nothing.
    if ((is_reset || ends) && streams_.erase(frame->stream) > 0 && is_reset) {
      if (std::optional<Cut> cut = Take(&resets_, Cut::kResets)) return cut;
    }
  }
  return std::nullopt;
}

std::string GoAway(Cut reason, bool is_first) {
  const absl::string_view text = Name(reason);
  std::string frames;
  if (is_first) frames.append({0, 0, 0, kSettings, 0, 0, 0, 0, 0});  // 3.4: SETTINGS comes first
  const char length = static_cast<char>(8 + text.size());
  // 6.8: any stream may have been acted on, so the last is the highest that there can be.
  frames.append(
      {0, 0, length, kGoAway, 0, 0, 0, 0, 0, 0x7f, '\xff', '\xff', '\xff', 0, 0, 0, kEnhanceYourCalm});
  return frames.append(text.data(), text.size());
}

}  // namespace sessa
