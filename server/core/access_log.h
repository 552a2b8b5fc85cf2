// One line in the log for each generation request that has ended: logfmt, for people, or JSON. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/core/generation.h"

namespace sessa {

enum class AccessLogFormat { kOff, kText, kJson };

struct AccessRecord {
  std::string protocol;  // "rest" or "grpc"
  std::string endpoint;  // "/v1/completions", "Generate"; may hold what a client wrote
  std::string status;    // "200", "499", "OK", "UNAVAILABLE"
  std::string request_id;
  absl::Duration duration;
  absl::Time time = absl::Now();    // of the end, by the wall clock
  std::optional<Usage> usage = {};  // none: refused before it ran
  std::string error = {};           // the API's code; empty: none
};

// One line, without its break. Requires: format is not kOff.
std::string FormatAccess(const AccessRecord& record, AccessLogFormat format);
void WriteAccess(const AccessRecord& record, AccessLogFormat format);

}  // namespace sessa
