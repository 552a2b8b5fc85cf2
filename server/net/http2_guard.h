// Watches one HTTP/2 connection (RFC 9113) as it passes by, frame headers only, and says when the client asks
// for more work than a client has reason to: floods of resets (CVE-2023-44487, and those that make the server
// reset: CVE-2025-8671), of settings, pings, empty frames, header blocks without end (CVE-2024-27316) and the
// like, streams beyond the limit. Of DATA it reads gRPC's prefix of each message, so that one which says that
// it is far larger than may be is not gathered, which the library would do before anybody looks at its size
// or at the caller's key. The bounds in proportion to what the server sends are Envoy's, those in time
// nghttp2's, in kind. Not thread-safe; used by GuardedConnection, fed with bytes by a fuzz target.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/net/connection_stats.h"

namespace sessa {

// So many at once, and so many a second for ever.
struct Http2Rate {
  double burst = 0, per_second = 0;
};

struct Http2Limits {
  uint32_t max_frame_bytes = 16 << 10;         // what the server's SETTINGS allow; RFC 9113's least
  uint32_t max_header_block_bytes = 64 << 10;  // compressed, over HEADERS and its CONTINUATIONs
  int max_continuations = 16;                  // of one header block
  size_t max_streams = 1024;                   // open at once
  // Of one gRPC message, as its prefix says. Twice what is served: what is a little too long is told so.
  uint32_t max_message_bytes = 8 << 20;
  Http2Rate resets = {500, 100};          // RST_STREAM, from either side: cancelled calls
  Http2Rate settings = {100, 10};         // SETTINGS and their acknowledgements
  Http2Rate pings = {200, 10};            // and 1 for each DATA frame of the server
  Http2Rate empty_frames = {100, 10};     // that neither carry nor end anything
  Http2Rate window_updates = {200, 100};  // and 2 for each stream, 10 for each DATA frame of the server
  Http2Rate other_frames = {200, 20};     // PRIORITY, trailers, GOAWAY, types that RFC 9113 has not
};

class Http2Guard {
 public:
  using Clock = std::chrono::steady_clock;

  Http2Guard(const Http2Limits& limits, Clock::time_point now);

  // What the client sent next. Says why the connection must end; after that nothing is to be passed on.
  std::optional<Cut> OnClientBytes(absl::string_view bytes, Clock::time_point now);
  // What the server sent next, before it is passed on.
  std::optional<Cut> OnServerBytes(absl::string_view bytes);

  // The client's preface and the header of its first SETTINGS have come: it does speak HTTP/2.
  bool started() const { return started_; }
  // Since when the client has owed the rest of a frame or header block.
  std::optional<Clock::time_point> unfinished_since() const;
  // A frame of ours may be put in after what the server sent so far.
  bool server_between_frames() const { return server_.between_frames(); }
  bool server_has_sent() const { return server_has_sent_; }
  size_t num_streams() const { return streams_.size(); }

 private:
  struct Frame {
    uint32_t length;
    uint8_t type, flags;
    uint32_t stream;
  };

  // Cuts a stream of bytes into frame headers; payloads are skipped.
  class Scanner {
   public:
    // Takes from the front of `bytes` what belongs to the payload of the frame that came last.
    absl::string_view TakePayload(absl::string_view* bytes);
    // Takes from the front of `bytes` to the end of the next frame header, which it returns, or all of them.
    std::optional<Frame> Next(absl::string_view* bytes);
    bool between_frames() const { return num_header_bytes_ == 0 && payload_left_ == 0; }

   private:
    std::array<uint8_t, 9> header_;
    size_t num_header_bytes_ = 0;
    uint32_t payload_left_ = 0;
  };

  // A token bucket, to which Earn adds without bound.
  class Allowance {
   public:
    Allowance(const Http2Rate& rate, Clock::time_point now) : rate_(rate), tokens_(rate.burst), last_(now) {}
    bool Take(Clock::time_point now);
    void Earn(double tokens) { tokens_ += tokens; }

   private:
    const Http2Rate rate_;
    double tokens_;
    Clock::time_point last_;
  };

  // gRPC's length-prefixed messages on one stream: a byte that says whether it is compressed, four of length.
  struct Messages {
    std::array<uint8_t, 5> prefix;
    uint8_t num_prefix_bytes = 0;
    uint32_t left = 0;  // of the message
  };

  std::optional<Cut> OnClientFrame(const Frame& frame);
  std::optional<Cut> OnData(absl::string_view payload);
  std::optional<Cut> OnHeaderBlock(const Frame& frame);
  std::optional<Cut> Take(Allowance* allowance, Cut reason);

  const Http2Limits limits_;
  Clock::time_point now_;  // of the client's bytes that came last
  Scanner client_, server_;
  size_t num_preface_bytes_ = 0;
  bool started_ = false, server_has_sent_ = false;
  bool in_header_block_ = false;
  uint32_t header_block_stream_ = 0, header_block_bytes_ = 0;
  int num_continuations_ = 0;
  uint32_t last_stream_ = 0;
  Clock::time_point unfinished_since_;
  // Open: the server has not ended them and nobody has reset them.
  absl::flat_hash_map<uint32_t, Messages> streams_;
  uint32_t data_stream_ = 0;  // of the client's frame, where it is DATA; else 0
  uint32_t data_left_ = 0;    // of its payload, without padding
  bool is_padded_ = false;    // the next byte of it says with how many bytes
  Allowance resets_, settings_, pings_, empty_frames_, window_updates_, other_frames_;
};

// A GOAWAY frame, ENHANCE_YOUR_CALM, with the reason as text; after an empty SETTINGS when `is_first`.
std::string GoAway(Cut reason, bool is_first);

}  // namespace sessa
