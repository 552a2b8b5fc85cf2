// The report as JSON; docs/load-testing-results.md documents it. The page carries the same object.
#pragma once

#include <boost/json.hpp>
#include <vector>

#include "loadtest/report_data.h"

namespace sessa::loadtest {

// Raised when a key is renamed, removed or changes its meaning; new keys do not raise it.
inline constexpr int kJsonVersion = 1;

boost::json::object JsonReport(const std::vector<RunReport>& runs, const Slo& slo);

// null for NaN, which JSON has no number for.
boost::json::value JsonNumber(double value);

// `root` on several lines, for people; `indent` spaces a level.
std::string PrettyJson(const boost::json::value& value, int indent);

}  // namespace sessa::loadtest
