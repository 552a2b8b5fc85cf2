// Drives the load tester's core against a scripted server, as sessa-loadtest would, without flags. For its
// tests.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "gtest/gtest.h"
#include "loadtest/http.h"
#include "loadtest/rest_client.h"
#include "loadtest/runner.h"
#include "tests/loadtest/scripted_server.h"

namespace sessa::loadtest {

inline constexpr double kMillisecond = 1e-3;

// What a test drives the server with; the parts of Options that RunOnce uses.
struct Drive {
  WorkloadOptions work;
  RequestOptions request;
  LoadOptions load;
  std::vector<double> times;                                              // open loop; empty: closed loop
  std::function<void(boost::asio::io_context*, Runner*)> also = nullptr;  // before the loop runs

  Clock clock;  // of the run
  Run run;

  Drive() {
    work.vocab_size = 1000;
    work.seed = 3;
    work.tenants = request.tenants = {{"", "", 1}};
    work.parts.resize(1);
    work.parts[0].kind = "part";
    work.parts[0].input = Lengths::Fixed(4);
    work.parts[0].output = Lengths::Fixed(10);
    load.duration = 30;
  }
  WorkloadPart& part() { return work.parts[0]; }
  void Every(double seconds, int count) {
    for (int i = 0; i < count; ++i) times.push_back(i * seconds);
  }

  void Go(int port) {
    const auto url = ParseHttpUrl(absl::StrCat("127.0.0.1:", port));
    const auto endpoints = Resolve(*url);
    boost::asio::io_context io(1);
    clock = Clock(0.05);
    const std::unique_ptr<Client> client = MakeRestClient(&io, clock, *url, *endpoints, request);
    Workload workload(work);
    Runner runner(&io, clock, client.get(), &workload,
                  times.empty() ? nullptr : std::make_unique<ListedArrivals>(times), load);
    if (also) also(&io, &runner);
    runner.Execute(&run);
  }
};

inline std::unique_ptr<ScriptedServer> Serve(std::function<ScriptedAnswer(const ServedRequest&)> script) {
  ScriptedServerOptions options;
  options.script = std::move(script);
  return std::make_unique<ScriptedServer>(std::move(options));
}
inline std::unique_ptr<ScriptedServer> Always(const ScriptedAnswer& answer) {
  return Serve([answer](const ServedRequest&) { return answer; });
}

// The server's records, once all of them have ended.
inline std::vector<ServedRequest> Served(const ScriptedServer& server) {
  while (true) {
    std::vector<ServedRequest> requests = server.Requests();
    if (std::all_of(requests.begin(), requests.end(), [](const auto& r) { return r.ended != SteadyTime(); }))
      return requests;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

inline double Median(std::vector<double> values) {
  EXPECT_FALSE(values.empty());
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace sessa::loadtest
