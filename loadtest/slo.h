// Service level objectives: what a request must keep to be counted in the goodput. Written by people as
// "ttft:500ms,tpot:50ms,e2e:10s".
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loadtest/record.h"

namespace sessa::loadtest {

// Bounds in seconds, kept when the value is at most the bound; NaN: not asked for. What each is of a request
// is said in definitions.h; ttft and e2e are from the scheduled time.
struct Slo {
  double ttft = kNever;
  double tpot = kNever;
  double gap = kNever;  // the longest gap of the request
  double e2e = kNever;

  bool IsSet() const { return ttft > 0 || tpot > 0 || gap > 0 || e2e > 0; }
};

// "" asks for nothing. Errors name the part that is wrong: an unknown or repeated name, a duration that is
// not positive and finite.
absl::StatusOr<Slo> ParseSlo(absl::string_view text);

// As ParseSlo reads it: "ttft:500ms,tpot:50ms".
std::string SloText(const Slo& slo);

}  // namespace sessa::loadtest
