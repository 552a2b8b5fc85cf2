// Service level objectives; see slo.h.
#include "loadtest/slo.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace sessa::loadtest {
namespace {

constexpr std::pair<const char*, double Slo::*> kBounds[] = {
    {"ttft", &Slo::ttft}, {"tpot", &Slo::tpot}, {"gap", &Slo::gap}, {"e2e", &Slo::e2e}};

}  // namespace

absl::StatusOr<Slo> ParseSlo(absl::string_view text) {
  Slo slo;
  for (absl::string_view part : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    part = absl::StripAsciiWhitespace(part);
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits(':', 1));
    double Slo::*bound = nullptr;
    for (const auto& [name, member] : kBounds) {
      if (pair.first == name) bound = member;
    }
    if (bound == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("SLO \"", part, "\": expected ttft, tpot, gap or e2e and a time, as in ttft:500ms"));
    }
    if (!std::isnan(slo.*bound))
      return absl::InvalidArgumentError(absl::StrCat("SLO \"", part, "\": named twice"));
    absl::Duration duration;
    if (!absl::ParseDuration(pair.second, &duration) || duration <= absl::ZeroDuration() ||
        duration == absl::InfiniteDuration()) {
      return absl::InvalidArgumentError(
          absl::StrCat("SLO \"", part, "\": expected a time above zero with its unit, as in 500ms or 1.5s"));
    }
    slo.*bound = absl::ToDoubleSeconds(duration);
  }
  return slo;
}

std::string SloText(const Slo& slo) {
  std::vector<std::string> parts;
  for (const auto& [name, member] : kBounds) {
    if (std::isnan(slo.*member)) continue;
    parts.push_back(absl::StrCat(name, ":", absl::FormatDuration(absl::Seconds(slo.*member))));
  }
  return absl::StrJoin(parts, ",");
}

}  // namespace sessa::loadtest
