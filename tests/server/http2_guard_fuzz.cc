// Input: what the two sides of an HTTP/2 connection send, in turns: a byte that says who and how much, then
// the bytes. Checks that the guard's judgement does not depend on the pieces in which they come, and that it
// keeps no more streams than it may.
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/net/http2_guard.h"

namespace {

using sessa::Http2Guard;

struct Result {
  std::optional<sessa::Cut> cut;
  size_t num_streams = 0;
  bool started = false, unfinished = false;

  bool operator==(const Result&) const = default;
};

Result Run(absl::string_view input, size_t piece) {
  sessa::Http2Limits limits;
  limits.max_streams = 8;
  limits.resets = limits.settings = limits.pings = limits.window_updates = {20, 0};
  limits.empty_frames = limits.other_frames = {10, 0};
  const Http2Guard::Clock::time_point now;
  Http2Guard guard(limits, now);
  Result result;
  while (!input.empty() && !result.cut.has_value()) {
    const uint8_t head = static_cast<uint8_t>(input[0]);
    const absl::string_view turn = input.substr(1, head >> 1);
    input.remove_prefix(1 + turn.size());
    for (size_t at = 0; at < turn.size() && !result.cut.has_value(); at += piece) {
      const absl::string_view bytes = turn.substr(at, piece);
      result.cut = (head & 1) != 0 ? guard.OnServerBytes(bytes) : guard.OnClientBytes(bytes, now);
    }
    if (guard.num_streams() > limits.max_streams + result.cut.has_value()) std::abort();
  }
  result.num_streams = guard.num_streams();
  result.started = guard.started();
  // A message that is cut off is so in the middle of a frame, of which more or less has come by then.
  result.unfinished = !result.cut.has_value() && guard.unfinished_since().has_value();
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const Result whole = Run(input, SIZE_MAX);
  if (!(Run(input, 1) == whole) || !(Run(input, 5) == whole)) std::abort();
  return 0;
}
