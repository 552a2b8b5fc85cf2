// What each figure is called and means: one table, which the terminal, the JSON and the page read, so that
// they can't differ. A figure that is not here is in no report.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "loadtest/summary.h"

namespace sessa::loadtest {

enum class Unit { kSeconds, kRequestsPerSecond, kTokensPerSecond, kRequests, kTokens, kShare, kCount };

struct LatencyDefinition {
  Latency which;
  const char* key;  // in the JSON
  const char* label;
  const char* meaning;  // one sentence
};

struct FigureDefinition {
  double GroupSummary::*figure;
  const char* key;
  const char* label;
  Unit unit;
  const char* meaning;
};

struct OutcomeDefinition {
  Outcome which;
  const char* key;
  const char* meaning;
};

// A word of the reports that is no figure.
struct TermDefinition {
  const char* key;
  const char* label;
  const char* meaning;
};

absl::Span<const LatencyDefinition> LatencyDefinitions();  // in the order of Latency
absl::Span<const FigureDefinition> FigureDefinitions();
absl::Span<const OutcomeDefinition> OutcomeDefinitions();  // in the order of Outcome
absl::Span<const TermDefinition> TermDefinitions();

absl::string_view OutcomeName(Outcome outcome);

}  // namespace sessa::loadtest
