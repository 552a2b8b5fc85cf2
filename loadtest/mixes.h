// Named mixes of work for long contexts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loadtest/workload.h"

namespace sessa::loadtest {

struct Mix {
  const char* name;
  const char* description;
  std::vector<WorkloadPart> parts;
};
const std::vector<Mix>& Mixes();

// INVALID_ARGUMENT: there is none of that name; says which there are.
absl::StatusOr<std::vector<WorkloadPart>> FindMix(absl::string_view name);
// A paragraph on each, for people.
std::string MixList();

// The parts with all lengths multiplied by the same factor, at most 1, for which no request has more than
// `max_context` tokens. INVALID_ARGUMENT: max_context is too small for all of them.
absl::StatusOr<std::vector<WorkloadPart>> FitMix(std::vector<WorkloadPart> parts, int max_context);

}  // namespace sessa::loadtest
