// Runs as a server under load would make them, made up from a seed: for the tests of the reports.
#pragma once

#include <cstdint>
#include <string>

#include "loadtest/record.h"

namespace sessa::loadtest {

struct SyntheticLoad {
  int num_requests = 600;
  double rate = 10;      // requests/s
  double capacity = 12;  // requests/s beyond which requests queue
  int tokens = 40;       // of each answer, on average
  double stall_at = 31;  // all streams stand still here
  double stall_seconds = 0.8;
  bool has_server_metrics = true;
  std::string failure;  // of the self-check
};

Run MakeRun(const SyntheticLoad& load, uint64_t seed);

}  // namespace sessa::loadtest
