// What every form of the report is made from: a run with its summaries.
#pragma once

#include "loadtest/record.h"
#include "loadtest/server_summary.h"
#include "loadtest/summary.h"

namespace sessa::loadtest {

struct RunReport {
  const Run* run = nullptr;  // not owned
  Summary summary;
  ServerSummary server;
};

}  // namespace sessa::loadtest
