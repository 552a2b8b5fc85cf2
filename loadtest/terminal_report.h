// A run, or a sweep, as text of at most 100 columns.
#pragma once

#include <string>
#include <vector>

#include "loadtest/report_data.h"

namespace sessa::loadtest {

std::string TerminalReport(const std::vector<RunReport>& runs, const Slo& slo);

}  // namespace sessa::loadtest
