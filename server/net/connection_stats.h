// What happened to connections, counted as it happens and read by /metrics: each accepted one is open until
// it is closed, each that was turned away or cut off has a reason. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sessa {

enum class Listener { kHttp, kGrpc, kAdmin };
inline constexpr int kNumListeners = 3;
absl::string_view Name(Listener listener);

// Why a connection was closed as soon as it came.
enum class Refusal {
  kLimit,        // as many as may be open are
  kDescriptors,  // the process has no descriptor left
  kError,        // no memory, or the network failed
};
inline constexpr int kNumRefusals = 3;
absl::string_view Name(Refusal refusal);

// Why the server closed a connection that was open, other than at its end.
enum class Cut {
  kEvicted,     // idle for the longest when a new one came and the cap was reached
  kHandshake,   // TLS failed, or TLS and the HTTP/2 preface did not come in time
  kProtocol,    // what came is not HTTP/2
  kFrameBytes,  // the rest: more of that than one client may send; see http2_guard.h
  kHeaderBytes,
  kStreams,
  kResets,
  kSettings,
  kPings,
  kEmptyFrames,
  kWindowUpdates,
  kOtherFrames,
  kMessageBytes,  // of one gRPC message
  kSlowWriter,    // a frame that does not come to its end
  kSlowReader,    // nothing of what is written is read
};
inline constexpr int kNumCuts = 15;
absl::string_view Name(Cut cut);

class ConnectionStats {
 public:
  void OnAccepted(Listener l) { ++At(l).accepted, ++At(l).open; }
  void OnClosed(Listener l) { --At(l).open; }
  void OnRefused(Listener l, Refusal reason) { ++At(l).refused[static_cast<size_t>(reason)]; }
  void OnCut(Listener l, Cut reason) { ++At(l).cut[static_cast<size_t>(reason)]; }
  void OnTlsReload(bool ok) { ++(ok ? tls_reloads_ : tls_reload_failures_); }

  int64_t open(Listener l) const { return At(l).open; }
  int64_t accepted(Listener l) const { return At(l).accepted; }
  int64_t refused(Listener l, Refusal reason) const { return At(l).refused[static_cast<size_t>(reason)]; }
  int64_t cut(Listener l, Cut reason) const { return At(l).cut[static_cast<size_t>(reason)]; }
  int64_t tls_reloads(bool ok) const { return ok ? tls_reloads_ : tls_reload_failures_; }

 private:
  using Count = std::atomic<int64_t>;
  struct PerListener {
    Count open{0}, accepted{0};
    std::array<Count, kNumRefusals> refused = {};
    std::array<Count, kNumCuts> cut = {};
  };
  PerListener& At(Listener l) { return listeners_[static_cast<size_t>(l)]; }
  const PerListener& At(Listener l) const { return listeners_[static_cast<size_t>(l)]; }

  std::array<PerListener, kNumListeners> listeners_;
  Count tls_reloads_{0}, tls_reload_failures_{0};
};

}  // namespace sessa
