// The report as one HTML file that needs no other and asks the network for nothing: its own script, Chart.js
// and the data are in it, and a content security policy lets no other script run and nothing be fetched.
#pragma once

#include <string>
#include <vector>

#include "loadtest/report_data.h"

namespace sessa::loadtest {

std::string HtmlReport(const std::vector<RunReport>& runs, const Slo& slo);

}  // namespace sessa::loadtest
