// The Prometheus text format (version 0.0.4), as a server's /metrics has it.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa::loadtest {

// The value of each series, named as in the text ("name" or "name{label=\"x\"}"); timestamps are dropped.
// INVALID_ARGUMENT names the line that is wrong.
absl::StatusOr<std::map<std::string, double>> ParsePrometheusText(absl::string_view text);

}  // namespace sessa::loadtest
