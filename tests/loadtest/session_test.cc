// Closed loop, conversations, tenants, and whole sessions with a sweep, against a server that follows a
// script.
#include "loadtest/session.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/json.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/sweep.h"
#include "tests/loadtest/drive.h"

namespace sessa::loadtest {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// ---- closed loop, conversations, tenants ----

TEST(DriveTest, UsersWaitForTheirAnswers) {
  const auto server = Always({.between_events = milliseconds(1)});
  Drive drive;
  drive.load.num_users = 3;
  drive.load.max_requests = 30;
  drive.load.think_seconds = 0.002;
  drive.Go(server->port());
  ASSERT_EQ(drive.run.requests.size(), 30);
  std::vector<std::pair<double, int>> changes;
  for (const RequestRecord& record : drive.run.requests) {
    EXPECT_EQ(record.outcome, Outcome::kOk);
    EXPECT_GE(record.sent, record.scheduled);
    changes.emplace_back(record.scheduled, 1);
    changes.emplace_back(record.ended, -1);
  }
  std::sort(changes.begin(), changes.end());
  int running = 0, most = 0;
  for (const auto& [at, change] : changes) most = std::max(most, running += change);
  EXPECT_EQ(most, 3);
  EXPECT_LE(server->num_open_connections(), 3);  // they were kept
}

TEST(DriveTest, ATurnContinuesTheAnswerBefore) {
  const auto server = Always({});
  Drive drive;
  drive.times = {0, 0.01};
  drive.part().turns = Lengths::Fixed(3);
  drive.part().output = Lengths::Fixed(5);
  drive.part().turn_input = Lengths::Fixed(4);
  drive.Go(server->port());
  ASSERT_EQ(drive.run.requests.size(), 6);
  std::map<std::string, std::vector<std::string>> prompts;  // by their first id
  for (const ServedRequest& request : Served(*server)) {
    const boost::json::value body = boost::json::parse(request.body);
    const boost::json::value& ids = body.at("prompt");
    prompts[boost::json::serialize(ids.at(0))].push_back(boost::json::serialize(ids));
  }
  ASSERT_EQ(prompts.size(), 2);
  for (const auto& [first, turns] : prompts) {
    ASSERT_EQ(turns.size(), 3);
    for (int i = 1; i < 3; ++i) {
      // The server's tokens are 0,1,2,3,4.
      const std::string start = turns[i - 1].substr(0, turns[i - 1].size() - 1) + ",0,1,2,3,4,";
      EXPECT_TRUE(absl::StartsWith(turns[i], start)) << turns[i] << " " << start;
    }
  }
  for (const RequestRecord& record : drive.run.requests) {
    EXPECT_EQ(record.input_tokens, 4 + record.turn * 9);
    EXPECT_EQ(record.prompt_tokens, record.input_tokens);
  }
}

TEST(DriveTest, TenantsSendTheirKeys) {
  const auto server = Always({});
  Drive drive;
  drive.Every(0.001, 50);
  drive.work.tenants = drive.request.tenants = {{"a", "key-a", 1}, {"b", "key-b", 1}};
  drive.Go(server->port());
  std::map<std::string, int> sent, served;
  for (const RequestRecord& record : drive.run.requests) ++sent["Bearer key-" + record.tenant];
  for (const ServedRequest& request : Served(*server)) ++served[request.authorization];
  EXPECT_EQ(sent, served);
  EXPECT_EQ(sent.size(), 2);
}

TEST(DriveTest, ATextPromptHasAWordForEachToken) {
  ScriptedServerOptions options;
  options.takes_token_ids = false;
  ScriptedServer server(std::move(options));
  Drive drive;
  drive.times = {0};
  drive.request.prompt_as_text = true;
  drive.Go(server.port());
  EXPECT_EQ(drive.run.requests[0].outcome, Outcome::kOk);
  EXPECT_EQ(drive.run.requests[0].prompt_tokens, 4);
}

// ---- a whole session ----

Options SessionOptions(int port) {
  Options options;
  options.http = *ParseHttpUrl(absl::StrCat("127.0.0.1:", port));
  options.metrics = options.http;
  options.metrics_interval = 0.05;
  options.request.tenants = options.work.tenants = {{"", "", 1}};
  options.work.parts.resize(1);
  options.work.parts[0].input = Lengths::Fixed(4);
  options.work.parts[0].output = Lengths::Fixed(10);
  options.load.duration = options.arrivals.duration = 0.3;
  options.arrivals.end_rate = 0;
  return options;
}

TEST(SessionTest, MetricsAreReadBeforeDuringAndAfter) {
  ScriptedServerOptions server_options;
  server_options.metrics = [count = 0]() mutable {
    return absl::StrCat("looks_total{a=\"b\"} ", ++count, "\n");
  };
  ScriptedServer server(std::move(server_options));
  Options options = SessionOptions(server.port());
  options.rates = {100};
  const auto target = Reach(&options);
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->info.model, "scripted");
  EXPECT_EQ(options.work.vocab_size, 1000);
  Progress progress({});
  const std::vector<loadtest::Run> runs = RunAll(options, *target, &progress);
  ASSERT_EQ(runs.size(), 1);
  EXPECT_EQ(runs[0].offered_rate, 100);
  EXPECT_GT(runs[0].requests.size(), 10);
  const std::vector<MetricsSample>& samples = runs[0].server_metrics;
  ASSERT_GE(samples.size(), 3);
  for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(samples[i].values.at("looks_total{a=\"b\"}"), i + 1);
  EXPECT_EQ(samples.front().at, 0);
  EXPECT_GE(samples.back().at, runs[0].duration - kMillisecond);
}

TEST(SessionTest, WhatCanNotBeRunIsRefusedBefore) {
  auto server = std::make_unique<ScriptedServer>(ScriptedServerOptions{.max_model_len = 100});
  Options options = SessionOptions(server->port());
  options.request.model = "other";
  EXPECT_THAT(std::string(Reach(&options).status().message()),
              HasSubstr("no model 'other'; it has: scripted"));
  options.request.model = "";
  options.work.parts[0].input = Lengths::Fixed(91);
  EXPECT_THAT(std::string(Reach(&options).status().message()), HasSubstr("101 tokens, the server takes 100"));
  options.max_context = 100;
  EXPECT_TRUE(Reach(&options).ok());
  EXPECT_LE(options.work.parts[0].MaxContext(), 100);
  EXPECT_TRUE(server->Requests().empty());
  server.reset();
  EXPECT_THAT(std::string(Reach(&options).status().message()), HasSubstr("Connection refused"));
}

// ---- the search for the rate of saturation ----

// A run of 20 s against a server that serves one request at a time, 10 ms each, by the equations of a queue.
loadtest::Run RunOfQueue(double rate) {
  loadtest::Run run;
  run.offered_rate = rate;
  double free_at = 0;
  for (int i = 0; i < 20 * rate; ++i) {
    RequestRecord record;
    record.scheduled = record.sent = i / rate;
    free_at = std::max(free_at, record.scheduled) + 0.01;
    record.events = {{free_at, 10}};
    record.ended = free_at;
    record.output_tokens = 10;
    run.requests.push_back(record);
  }
  return run;
}

TEST(SearchTest, EndsWhereTheServerNoLongerFollows) {
  for (const double first : {1.0, 30.0, 1000.0}) {
    const std::vector<loadtest::Run> runs = SearchRates({.first_rate = first}, {}, RunOfQueue);
    double follows = 0, lags = 1e9;
    for (size_t i = 0; i < runs.size(); ++i) {
      if (i > 0) {
        EXPECT_GT(runs[i].offered_rate, runs[i - 1].offered_rate);
      }
      const bool followed = ServedShare(runs[i], {}) >= 0.9;
      (followed ? follows : lags) = followed ? runs[i].offered_rate : std::min(lags, runs[i].offered_rate);
    }
    // 90 % of 111 requests/s are 100.
    EXPECT_LE(follows, 112) << first;
    EXPECT_GE(lags, 110) << first;
    EXPECT_LE(lags, follows * 1.1) << first;
    EXPECT_LE(runs.size(), 14);
  }
}

TEST(SearchTest, WithAnSloItLooksAtTheRequestsThatKeptIt) {
  EXPECT_NEAR(ServedShare(RunOfQueue(50), {.ttft = 0.011}), 1, 1e-9);
  // At 200/s request i waits i x 5 ms: those up to 1 s, 200 of 4000, keep it.
  EXPECT_NEAR(ServedShare(RunOfQueue(200), {.ttft = 1.01}), 200.0 / 4000, 0.001);
}

TEST(SearchTest, AServerThatServesNothingEndsIt) {
  int runs = 0;
  SearchRates({.first_rate = 8}, {}, [&runs](double rate) {
    ++runs;
    loadtest::Run run = RunOfQueue(rate);
    for (RequestRecord& request : run.requests) request.events.clear();
    return run;
  });
  EXPECT_LE(runs, 8);
}

}  // namespace
}  // namespace sessa::loadtest
