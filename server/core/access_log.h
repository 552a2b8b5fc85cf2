// One line on stderr for each generation request that has ended, for people or for machines. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/generation.h"

namespace sessa {

enum class AccessLogFormat { kOff, kText, kJson };

struct AccessRecord {
  std::string protocol;  // "rest" or "grpc"
  std::string endpoint;  // "/v1/completions", "Generate"; may hold what a client wrote
  std::string status;    // "200", "499", "OK", "UNAVAILABLE"
  std::string request_id;
  absl::Time start, end;
  std::optional<Usage> usage = {};  // none: refused before it ran
  std::string error = {};           // the API's code; empty: none
};

// With its line break, and no other. Requires: format is not kOff.
std::string FormatAccess(const AccessRecord& record, AccessLogFormat format);
// One write a line, so that lines of several threads do not mix.
void WriteAccess(const AccessRecord& record, AccessLogFormat format);

}  // namespace sessa
