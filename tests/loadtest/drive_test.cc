// The load tester from its plan to its records, against a server that follows a script and remembers, by the
// same monotonic clock, when it did what. Figures are compared with what that server did, not with what the
// script asked for; and by the median of many, because either side may be descheduled at any moment: so a
// slow machine fails nothing.
#include "tests/loadtest/drive.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "boost/asio/steady_timer.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/self_check.h"

namespace sessa::loadtest {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

Outcome OutcomeWith(const ScriptedAnswer& answer, std::string* error = nullptr) {
  const auto server = Always(answer);
  Drive drive;
  drive.times = {0};
  drive.Go(server->port());
  EXPECT_EQ(drive.run.requests.size(), 1);
  if (error != nullptr) *error = drive.run.requests[0].error;
  return drive.run.requests[0].outcome;
}

// ---- figures ----

TEST(DriveTest, EveryFigureIsWhatTheServerDid) {
  const auto server = Always({.to_headers = milliseconds(3),
                              .to_first_token = milliseconds(17),
                              .between_events = milliseconds(4),
                              .cached_tokens = 2});
  Drive drive;
  drive.Every(0.03, 40);
  drive.Go(server->port());
  const std::vector<ServedRequest> served = Served(*server);
  ASSERT_EQ(served.size(), 40);
  ASSERT_EQ(drive.run.requests.size(), 40);
  std::vector<double> send_lag, to_server, headers, first_token, ttft, event, gap, end, e2e;
  for (int i = 0; i < 40; ++i) {
    const RequestRecord& record = drive.run.requests[i];
    const ServedRequest& truth = served[i];
    const auto at = [&drive](SteadyTime time) { return drive.clock.Seconds(time); };
    EXPECT_EQ(record.index, i);
    EXPECT_EQ(record.outcome, Outcome::kOk) << record.error;
    EXPECT_EQ(record.finish_reason, "length");
    EXPECT_EQ(record.prompt_tokens, 4);
    EXPECT_EQ(record.completion_tokens, 10);
    EXPECT_EQ(record.cached_tokens, 2);
    EXPECT_EQ(record.scheduled, i * 0.03);
    EXPECT_GE(record.sent, record.scheduled);
    EXPECT_LE(record.sent, at(truth.received));
    send_lag.push_back(record.sent - record.scheduled);
    to_server.push_back(at(truth.received) - record.sent);
    EXPECT_GE(record.headers, at(truth.headers_sent));
    headers.push_back(record.headers - at(truth.headers_sent));
    ASSERT_EQ(record.events.size(), truth.events.size());
    first_token.push_back(record.events[0].at - at(truth.events[0].at));
    ttft.push_back(std::abs((record.events[0].at - record.scheduled) - (at(truth.events[0].at) - i * 0.03)));
    for (size_t k = 0; k < truth.events.size(); ++k) {
      EXPECT_EQ(record.events[k].num_tokens, truth.events[k].num_tokens);
      EXPECT_GE(record.events[k].at, at(truth.events[k].at));
      event.push_back(record.events[k].at - at(truth.events[k].at));
      if (k == 0) continue;
      gap.push_back(std::abs((record.events[k].at - record.events[k - 1].at) -
                             (at(truth.events[k].at) - at(truth.events[k - 1].at))));
    }
    end.push_back(std::abs(record.ended - at(truth.ended)));
    e2e.push_back(std::abs((record.ended - record.scheduled) - (at(truth.ended) - i * 0.03)));
  }
  for (const auto* figure : {&send_lag, &to_server, &headers, &first_token, &ttft, &event, &gap, &end, &e2e})
    EXPECT_LT(Median(*figure), kMillisecond);
}

TEST(DriveTest, SeveralTokensInAnEventAreCounted) {
  const auto server = Always({.between_events = milliseconds(1), .tokens_per_event = 4});
  for (const bool with_ids : {true, false}) {
    Drive drive;
    drive.times = {0};
    drive.request.return_token_ids = with_ids;
    drive.Go(server->port());
    std::vector<int> tokens;
    for (const TokenEvent& event : drive.run.requests[0].events) tokens.push_back(event.num_tokens);
    // Without ids the usage's sum is shared out over the events.
    EXPECT_EQ(tokens, with_ids ? (std::vector<int>{4, 4, 2}) : (std::vector<int>{3, 3, 4}));
  }
}

TEST(DriveTest, AStallIsSeen) {
  const auto server = Serve([](const ServedRequest& request) {
    ScriptedAnswer answer{.between_events = milliseconds(2)};
    if (request.index == 2) answer.stall_at = 5, answer.stall = milliseconds(400);
    return answer;
  });
  Drive drive;
  drive.Every(0.02, 5);
  drive.load.probe_rate = 20;
  drive.Go(server->port());
  const std::vector<ServedRequest> served = Served(*server);
  int probes = 0;
  double longest = 0;
  size_t which = 0;
  for (const RequestRecord& record : drive.run.requests) {
    probes += record.is_probe;
    for (size_t k = 1; !record.is_probe && k < record.events.size(); ++k) {
      const double gap = record.events[k].at - record.events[k - 1].at;
      if (gap > longest) longest = gap, which = k;
    }
  }
  EXPECT_EQ(which, 5);
  EXPECT_GE(longest, 0.395);
  EXPECT_GE(probes, 1);
  const auto stalled = std::count_if(drive.run.requests.begin(), drive.run.requests.end(),
                                     [](const RequestRecord& r) { return r.ended - r.sent > 0.395; });
  EXPECT_GE(stalled, 1);
}

// ---- the client's own lag ----

// Blocks the loop for `busy` of every `period`.
void Block(boost::asio::io_context* io, milliseconds busy, milliseconds period) {
  auto timer = std::make_shared<boost::asio::steady_timer>(*io);
  auto block = std::make_shared<std::function<void()>>();
  *block = [timer, busy, period, weak = std::weak_ptr(block)] {
    timer->expires_after(period - busy);
    timer->async_wait([timer, busy, block = weak.lock()](boost::system::error_code error) {
      if (error) return;
      const auto until = std::chrono::steady_clock::now() + busy;
      while (std::chrono::steady_clock::now() < until) {
      }
      (*block)();
    });
  };
  (*block)();
}

TEST(DriveTest, AnOverloadedClientIsCalledOut) {
  const auto server = Always({.between_events = milliseconds(1)});
  Drive drive;
  drive.Every(0.011, 40);
  drive.also = [](boost::asio::io_context* io, Runner*) { Block(io, milliseconds(45), milliseconds(50)); };
  drive.Go(server->port());
  const ClientHealth& health = drive.run.client;
  EXPECT_GE(health.max_send_lag, 0.02);
  EXPECT_GE(health.p99_loop_lag, 0.02);
  const HealthLimits limits;
  EXPECT_THAT(JudgeHealth(health, limits, 1), HasSubstr("the client sent too late"));
  EXPECT_THAT(JudgeHealth(health, {.send_lag = 10, .cpu_share = 10}, 1),
              HasSubstr("the client read too late"));
  EXPECT_THAT(JudgeHealth(health, {.send_lag = 10, .loop_lag = 10, .cpu_share = 0}, 1),
              HasSubstr("of a CPU core"));
  EXPECT_EQ(JudgeHealth(health, {.send_lag = 10, .loop_lag = 10, .cpu_share = 10}, 1), "");
}

// ---- outcomes ----

TEST(DriveTest, EveryFailureHasItsClass) {
  EXPECT_EQ(OutcomeWith({.status = 429}), Outcome::kRateLimited);
  EXPECT_EQ(OutcomeWith({.status = 503}), Outcome::kUnavailable);
  EXPECT_EQ(OutcomeWith({.status = 504}), Outcome::kDeadline);
  EXPECT_EQ(OutcomeWith({.status = 500}), Outcome::kServerError);
  std::string error;
  EXPECT_EQ(OutcomeWith({.status = 400}, &error), Outcome::kClientError);
  EXPECT_EQ(error, "The script says so.");
  EXPECT_EQ(OutcomeWith({.break_after = 3}, &error), Outcome::kBroken);
  EXPECT_EQ(error, "the server closed the connection");
  EXPECT_EQ(OutcomeWith({.finish_reason = ""}, &error), Outcome::kBroken);
  EXPECT_THAT(error, HasSubstr("without a finish reason"));
  EXPECT_EQ(OutcomeWith({.end_with = "not json"}), Outcome::kProtocol);
  EXPECT_EQ(OutcomeWith({.end_with = R"({"error":{"message":"gone","code":503}})"}, &error),
            Outcome::kUnavailable);
  EXPECT_EQ(error, "gone");
  int port;
  {
    const auto server = Always({});
    port = server->port();
  }
  Drive drive;
  drive.times = {0};
  drive.Go(port);
  EXPECT_EQ(drive.run.requests[0].outcome, Outcome::kConnect);
  EXPECT_TRUE(std::isnan(drive.run.requests[0].sent));
}

TEST(DriveTest, ARequestThatIsTooSlowIsEnded) {
  const auto server = Always({.between_events = std::chrono::seconds(10)});
  Drive drive;
  drive.times = {0};
  drive.request.timeout_seconds = 1;  // in which its first token comes, on a busy machine too
  drive.Go(server->port());
  EXPECT_EQ(drive.run.requests[0].outcome, Outcome::kDeadline);
  EXPECT_EQ(drive.run.requests[0].events.size(), 1);
  EXPECT_TRUE(Served(*server)[0].client_left);
  // Or at the end of the run.
  Drive drained;
  drained.times = {0};
  drained.load.duration = 0.05;
  drained.load.drain_seconds = 0.05;
  drained.Go(server->port());
  EXPECT_EQ(drained.run.requests[0].outcome, Outcome::kDeadline);
  EXPECT_THAT(drained.run.requests[0].error, HasSubstr("after the last request"));
}

TEST(DriveTest, CancelsAtItsToken) {
  const auto server = Always({.between_events = milliseconds(20)});  // so that it has not sent all before
  Drive drive;
  drive.Every(0.005, 10);
  drive.work.cancel_share = 1;
  drive.Go(server->port());
  for (const RequestRecord& record : drive.run.requests) {
    EXPECT_EQ(record.outcome, Outcome::kCancelled);
    EXPECT_GE(record.events.size(), 1);
    EXPECT_LT(record.events.size(), 10);
  }
  const auto all_left = [&] {  // the server sees it when it next writes
    const auto served = Served(*server);
    return std::all_of(served.begin(), served.end(), [](const ServedRequest& r) { return r.client_left; });
  };
  for (int i = 0; i < 1000 && !all_left(); ++i) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_TRUE(all_left());
}

TEST(DriveTest, AnInterruptEndsItAndKeepsWhatWasSeen) {
  const auto server = Always({.between_events = milliseconds(50)});
  Drive drive;
  drive.Every(0.02, 1000);
  drive.also = [](boost::asio::io_context* io, Runner* runner) {
    auto timer = std::make_shared<boost::asio::steady_timer>(*io, milliseconds(200));
    timer->async_wait([timer, runner](boost::system::error_code) { runner->Interrupt(); });
  };
  drive.Go(server->port());
  EXPECT_GE(drive.run.requests.size(), 1);
  EXPECT_LT(drive.run.requests.size(), 1000);
  for (const RequestRecord& record : drive.run.requests) EXPECT_EQ(record.outcome, Outcome::kCancelled);
}

}  // namespace
}  // namespace sessa::loadtest
