// One line in the log for each generation request that has ended: logfmt, or members of a JSON object. What
// is not known of it is left out. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/core/generation.h"
#include "server/core/log.h"

namespace sessa {

struct AccessRecord {
  std::string protocol;  // "rest" or "grpc"
  std::string endpoint;  // "/v1/completions", "Generate"; may hold what a client wrote
  std::string status;    // "200", "499", "OK", "UNAVAILABLE"
  std::string request_id;
  absl::Duration duration;          // from the request's head to the answer's end
  absl::Time time = absl::Now();    // of the end, by the wall clock
  std::string client = {};          // address:port
  std::string tenant = {};          // empty: no keys, or none that is known
  std::string model = {};           // that is served
  std::optional<Usage> usage = {};  // none: refused before it ran
  GenerationTimes times = {};
  std::string error = {};   // the API's code; empty: none
  std::string reason = {};  // what the client was told; empty: no error
};

// One line, without its break.
std::string FormatAccess(const AccessRecord& record, LogFormat format);
// Of level error when the server itself is to blame (500, INTERNAL), else info.
void WriteAccess(const AccessRecord& record);

}  // namespace sessa
