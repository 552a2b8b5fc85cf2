// All requests, a line each, for those who want to compute on. RFC 4180; docs/load-testing-results.md lists
// the columns.
#pragma once

#include <string>
#include <vector>

#include "loadtest/report_data.h"

namespace sessa::loadtest {

std::string CsvReport(const std::vector<RunReport>& runs);

}  // namespace sessa::loadtest
