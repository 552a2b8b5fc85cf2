// The command line of sessa-loadtest, read once and checked before anything is sent.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/arrivals.h"
#include "loadtest/client.h"
#include "loadtest/http.h"
#include "loadtest/runner.h"
#include "loadtest/self_check.h"
#include "loadtest/slo.h"
#include "loadtest/workload.h"

namespace sessa::loadtest {

struct Options {
  bool grpc = false;
  std::string grpc_address;  // HOST:PORT
  HttpUrl http;
  bool has_metrics = true;  // false: none are read
  HttpUrl metrics;          // where they are
  double metrics_interval = 1;

  RequestOptions request;  // model and tenants as given
  WorkloadOptions work;    // vocab_size 0: the server's; parts as given, not scaled
  int max_context = 0;     // 0: lengths stay as they are
  ArrivalOptions arrivals;
  LoadOptions load;
  std::vector<double> rates;  // open loop: one run each; empty: closed loop or a trace
  bool search_rates = false;  // rates[0] is where a search for the rate of saturation begins
  double search_share = 0.9;  // of the offered load that must be served
  double warmup = 0, cooldown = 0;
  HealthLimits health;

  Slo slo;
  std::string title, json_path, csv_path, html_path;
  bool progress = true;
  std::map<std::string, std::string> flags;  // every flag's value, by name; keys are left out
};

// INVALID_ARGUMENT names the flag. *text is set when --help or --mix list asked for it: it is to be printed,
// and all.
absl::StatusOr<Options> ParseOptions(int argc, char** argv, std::string* text);

}  // namespace sessa::loadtest
