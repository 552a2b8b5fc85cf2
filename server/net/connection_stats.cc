// The labels of the metrics; see connection_stats.h.
#include "server/net/connection_stats.h"

namespace sessa {

absl::string_view Name(Listener listener) {
  static constexpr absl::string_view kNames[kNumListeners] = {"http", "grpc", "admin"};
  return kNames[static_cast<size_t>(listener)];
}

absl::string_view Name(Refusal refusal) {
  static constexpr absl::string_view kNames[kNumRefusals] = {"limit", "descriptors", "error"};
  return kNames[static_cast<size_t>(refusal)];
}

absl::string_view Name(Cut cut) {
  static constexpr absl::string_view kNames[kNumCuts] = {
      "evicted",        "handshake",    "protocol",      "frame_bytes", "header_bytes",
      "streams",        "resets",       "settings",      "pings",       "empty_frames",
      "window_updates", "other_frames", "message_bytes", "slow_writer", "slow_reader"};
  return kNames[static_cast<size_t>(cut)];
}

}  // namespace sessa
