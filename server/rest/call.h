// A request that core has accepted and that is answered bit by bit as the engine gets on. Not thread-safe;
// the connection's strand owns it. Destroying it cancels what still runs.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/core/generation.h"
#include "server/rest/http_message.h"

namespace sessa {

class Call {
 public:
  virtual ~Call() = default;
  virtual bool is_stream() const = 0;
  virtual void SetNotify(std::function<void()> notify) = 0;
  // Takes events that are ready; a stream appends their bytes to `out`. It stops soon after `max_bytes`, or
  // kMaxEvents: so long does no other connection wait. False: there is nothing more now, the notification
  // tells when there is.
  virtual bool Pull(std::string* out, size_t max_bytes) = 0;
  virtual bool ended() const = 0;
  virtual const absl::Status& status() const = 0;  // Requires: ended()
  virtual Usage usage() const = 0;                 // so far
  virtual GenerationTimes times() const { return {}; }
  // The head of a stream's reply, or the whole reply. Requires: is_stream() or ended().
  virtual Reply MakeReply() = 0;

 protected:
  static constexpr int kMaxEvents = 64;  // an echo's with 20 log-probabilities take some 20 us each
};

}  // namespace sessa
