// The figures of hand-made records whose answers are known.
#include "loadtest/summary.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/definitions.h"

namespace sessa::loadtest {
namespace {

using ::testing::HasSubstr;
using ::testing::IsNan;

// Scheduled at `at`, sent 1 ms later, tokens at the times given after the send, ended with the last.
RequestRecord Request(double at, std::vector<double> tokens_after) {
  RequestRecord request;
  request.scheduled = at;
  request.sent = at + 0.001;
  request.input_tokens = 100;
  for (double after : tokens_after) request.events.push_back({request.sent + after, 1});
  request.ended = request.sent + (tokens_after.empty() ? 0.01 : tokens_after.back());
  return request;
}

Run RunOf(std::vector<RequestRecord> requests, double duration) {
  Run run;
  run.duration = duration;
  run.requests = std::move(requests);
  for (size_t i = 0; i < run.requests.size(); ++i) run.requests[i].index = i;
  return run;
}

TEST(Quantile, IsLinearBetweenRanks) {
  const std::vector<double> values = {1, 2, 3, 4};  // numpy.percentile(values, [0, 25, 50, 90, 100])
  EXPECT_DOUBLE_EQ(Quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.9), 3.7);
  EXPECT_DOUBLE_EQ(Quantile(values, 1), 4);
  EXPECT_DOUBLE_EQ(Quantile({7}, 0.999), 7);
  EXPECT_THAT(Quantile({}, 0.5), IsNan());
}

TEST(Quantile, DescribesAThousandValues) {
  std::vector<double> values;
  for (int i = 0; i <= 1000; ++i) values.push_back(i);
  const Distribution d = Describe(values);
  EXPECT_EQ(d.count, 1001);
  EXPECT_DOUBLE_EQ(d.mean, 500);
  EXPECT_DOUBLE_EQ(d.p50, 500);
  EXPECT_DOUBLE_EQ(d.p90, 900);
  EXPECT_DOUBLE_EQ(d.p95, 950);
  EXPECT_DOUBLE_EQ(d.p99, 990);
  EXPECT_DOUBLE_EQ(d.p999, 999);
  EXPECT_DOUBLE_EQ(d.max, 1000);
}

TEST(Summary, OfTwoRequests) {
  const Summary s =
      Summarize(RunOf({Request(0, {0.1, 0.12, 0.16}), Request(1, {0.3, 0.34, 0.44, 0.45, 0.46})}, 2), Slo());
  EXPECT_EQ(s.all.num_requests, 2);
  EXPECT_NEAR(s.all.latency(Latency::kTtft).mean, (0.101 + 0.301) / 2, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kTtftFromSend).max, 0.3, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kTpot).p50, (0.06 / 2 + 0.16 / 4) / 2, 1e-9);
  EXPECT_EQ(s.all.latency(Latency::kItl).count, 6);
  EXPECT_NEAR(s.all.latency(Latency::kItl).mean, (0.06 + 0.16) / 6, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kE2e).max, 0.461, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kE2eFromSend).max, 0.46, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kSendLag).max, 0.001, 1e-9);
  EXPECT_EQ(s.all.latency(Latency::kQueue).count, 0);
  EXPECT_NEAR(s.all.worst_gap.seconds, 0.1, 1e-9);
  EXPECT_NEAR(s.all.worst_gap.at, 1.441, 1e-9);
  EXPECT_EQ(s.all.worst_gap.request, 1);
  EXPECT_DOUBLE_EQ(s.all.requests_per_second, 1);
  EXPECT_DOUBLE_EQ(s.all.output_tokens_per_second, 4);
  EXPECT_DOUBLE_EQ(s.all.input_tokens_per_second, 100);
  EXPECT_DOUBLE_EQ(s.all.output_tokens, 8);
  EXPECT_NEAR(s.all.mean_concurrency, (0.16 + 0.46) / 2, 1e-9);
  EXPECT_DOUBLE_EQ(s.all.max_concurrency, 1);
  EXPECT_DOUBLE_EQ(s.all.error_share, 0);
  EXPECT_DOUBLE_EQ(s.all.multi_token_share, 0);
  EXPECT_THAT(s.all.goodput, IsNan());  // no SLO was stated
  EXPECT_THAT(s.all.cached_tokens, IsNan());
  EXPECT_TRUE(s.kinds.empty());
  EXPECT_EQ(s.probes.num_requests, 0);
}

TEST(Summary, OfNothing) {
  const Summary s = Summarize(RunOf({}, 0), Slo());
  EXPECT_EQ(s.all.num_requests, 0);
  EXPECT_THAT(s.all.requests_per_second, IsNan());
  EXPECT_THAT(s.all.error_share, IsNan());
  EXPECT_THAT(s.all.latency(Latency::kTtft).p50, IsNan());
  EXPECT_THAT(s.all.worst_gap.seconds, IsNan());
}

TEST(Summary, WhereNothingFinished) {
  RequestRecord refused = Request(0, {});
  refused.outcome = Outcome::kUnavailable;
  RequestRecord never_sent;
  never_sent.scheduled = 0.5;
  never_sent.outcome = Outcome::kConnect;
  const Summary s = Summarize(RunOf({refused, never_sent}, 1), *ParseSlo("ttft:1s"));
  EXPECT_DOUBLE_EQ(s.all.error_share, 1);
  EXPECT_EQ(s.all.outcomes[static_cast<int>(Outcome::kUnavailable)], 1);
  EXPECT_EQ(s.all.outcomes[static_cast<int>(Outcome::kConnect)], 1);
  EXPECT_DOUBLE_EQ(s.all.requests_per_second, 0);
  EXPECT_DOUBLE_EQ(s.all.goodput, 0);
  EXPECT_DOUBLE_EQ(s.all.good_share, 0);
  EXPECT_EQ(s.all.latency(Latency::kE2e).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kTtft).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kSendLag).count, 1);
}

TEST(Summary, OfOneTokenHasNoTpotAndKeepsItsObjective) {
  const Summary s = Summarize(RunOf({Request(0, {0.1})}, 1), *ParseSlo("ttft:200ms,tpot:1ms,gap:1ms"));
  EXPECT_EQ(s.all.latency(Latency::kTpot).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kItl).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kTtft).count, 1);
  EXPECT_DOUBLE_EQ(s.all.good_share, 1);
}

TEST(Summary, SeveralTokensInAnEventAreOneGap) {
  RequestRecord request = Request(0, {0.1, 0.2, 0.3});
  request.events[1].num_tokens = 3;
  request.events.insert(request.events.begin(), {0.05, 0});  // an event without tokens is none
  const Summary s = Summarize(RunOf({request}, 1), Slo());
  EXPECT_EQ(s.all.latency(Latency::kItl).count, 2);
  EXPECT_NEAR(s.all.latency(Latency::kTtftFromSend).mean, 0.1, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kTpot).mean, 0.2 / 4, 1e-9);
  EXPECT_DOUBLE_EQ(s.all.multi_token_share, 1.0 / 3);
  EXPECT_DOUBLE_EQ(s.all.output_tokens_per_second, 5);
}

TEST(Summary, TheServersCountOfTokensComesFirst) {
  RequestRecord request = Request(0, {0.1, 0.2, 0.6});
  request.completion_tokens = 6;  // each event brought text of which nobody said how many tokens it was
  request.prompt_tokens = 120;
  request.cached_tokens = 90;
  RequestRecord silent = Request(0, {0.1, 0.2});
  auto run = RunOf({request, silent}, 1);
  const Summary s = Summarize(run, Slo());
  EXPECT_DOUBLE_EQ(s.all.output_tokens, 8);
  EXPECT_NEAR(s.all.output_tokens_per_second, 8, 1e-9);
  EXPECT_NEAR(s.all.latency(Latency::kTpot).max, 0.1, 1e-9);
  EXPECT_DOUBLE_EQ(s.all.input_tokens, 220);
  EXPECT_DOUBLE_EQ(s.all.cached_tokens, 90);
  EXPECT_DOUBLE_EQ(s.all.cached_share, 0.75);

  run.duration = 0.3;  // two of the first's three events came in it, and both of the other's
  EXPECT_NEAR(Summarize(run, Slo()).all.output_tokens_per_second * 0.3, 4 + 2, 1e-9);
}

TEST(Summary, AnAnswerThatIsNotStreamedCountsAtItsEnd) {
  RequestRecord request = Request(0, {});
  request.completion_tokens = 40;
  const Summary s = Summarize(RunOf({request}, 1), Slo());
  EXPECT_DOUBLE_EQ(s.all.output_tokens_per_second, 40);
  EXPECT_EQ(s.all.latency(Latency::kTtft).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kTpot).count, 0);
  EXPECT_EQ(s.all.latency(Latency::kE2e).count, 1);
}

TEST(Summary, CancelledOnPurposeIsNoErrorAndNoGoodput) {
  RequestRecord cancelled = Request(0, {0.1, 0.2});
  cancelled.outcome = Outcome::kCancelled;
  const Summary s = Summarize(RunOf({cancelled, Request(0, {0.1, 0.2})}, 1), *ParseSlo("ttft:1s"));
  EXPECT_DOUBLE_EQ(s.all.error_share, 0);
  EXPECT_DOUBLE_EQ(s.all.good_share, 1);
  EXPECT_DOUBLE_EQ(s.all.goodput, 1);
  EXPECT_EQ(s.all.latency(Latency::kTtft).count, 2);  // as far as it came
  EXPECT_EQ(s.all.latency(Latency::kItl).count, 2);
  EXPECT_EQ(s.all.latency(Latency::kE2e).count, 1);
}

TEST(Summary, WindowBoundsWhatIsMeasured) {
  std::vector<RequestRecord> requests;
  for (int i = 0; i <= 10; ++i) requests.push_back(Request(i, {0.1, 0.2}));
  auto run = RunOf(requests, 30);
  run.warmup = 2;
  run.cooldown = 3;
  const Summary s = Summarize(run, Slo());
  EXPECT_DOUBLE_EQ(s.window.begin, 2);
  EXPECT_DOUBLE_EQ(s.window.end, 7);  // the last was scheduled at 10, whenever it ended
  EXPECT_EQ(s.all.num_requests, 6);   // scheduled at 2, ..., 7
  EXPECT_EQ(s.num_outside, 5);
  EXPECT_DOUBLE_EQ(s.all.requests_per_second, 5.0 / 5);  // that of 7 ended outside
  EXPECT_DOUBLE_EQ(s.all.output_tokens, 12);
  run.cooldown = 0;
  EXPECT_DOUBLE_EQ(Summarize(run, Slo()).window.end, 30);
}

TEST(Summary, WhereAllIsWarmUp) {
  auto run = RunOf({Request(0, {0.1, 0.2})}, 1);
  run.warmup = 5;
  const Summary s = Summarize(run, *ParseSlo("ttft:1s"));
  EXPECT_EQ(s.all.num_requests, 0);
  EXPECT_EQ(s.num_outside, 1);
  EXPECT_THAT(s.all.output_tokens_per_second, IsNan());
  EXPECT_THAT(s.all.mean_concurrency, IsNan());
  EXPECT_THAT(s.all.good_share, IsNan());
}

TEST(Summary, ByKindAndTenantAndProbesApart) {
  RequestRecord chat = Request(0, {0.1}), document = Request(0, {0.5}), probe = Request(0, {0.9});
  chat.kind = "chat";
  document.kind = "documents";
  probe.kind = "probe";
  probe.is_probe = true;
  chat.tenant = document.tenant = probe.tenant = "one";
  const Summary s = Summarize(RunOf({document, chat, probe}, 1), Slo());
  EXPECT_EQ(s.all.num_requests, 2);
  ASSERT_EQ(s.kinds.size(), 2);
  EXPECT_EQ(s.kinds[0].name, "chat");
  EXPECT_NEAR(s.kinds[0].latency(Latency::kTtftFromSend).max, 0.1, 1e-9);
  EXPECT_NEAR(s.kinds[1].latency(Latency::kTtftFromSend).max, 0.5, 1e-9);
  EXPECT_TRUE(s.tenants.empty());  // there is one
  EXPECT_EQ(s.probes.num_requests, 1);
  EXPECT_NEAR(s.probes.latency(Latency::kTtftFromSend).max, 0.9, 1e-9);
}

TEST(Summary, ConcurrencyIsOfRequestsInFlight) {
  // [0.001, 0.601] and [0.201, 0.401] overlap; the third begins as the first ends.
  RequestRecord third = Request(0.6, {0.1});
  const Summary s = Summarize(RunOf({Request(0, {0.6}), Request(0.2, {0.2}), third}, 1), Slo());
  EXPECT_DOUBLE_EQ(s.all.max_concurrency, 2);
  EXPECT_NEAR(s.all.mean_concurrency, 0.6 + 0.2 + 0.1, 1e-9);
}

TEST(Slo, EachBoundAtItsEdge) {
  RequestRecord request = Request(0, {0.125, 0.25, 0.5});
  request.sent = 0.125;
  request.scheduled = 0;
  request.events = {{0.25, 1}, {0.5, 1}, {1, 1}};
  request.ended = 2;
  EXPECT_TRUE(KeepsSlo(request, Slo()));
  EXPECT_TRUE(KeepsSlo(request, *ParseSlo("ttft:250ms,tpot:375ms,gap:500ms,e2e:2s")));
  EXPECT_FALSE(KeepsSlo(request, *ParseSlo("ttft:249ms")));
  EXPECT_FALSE(KeepsSlo(request, *ParseSlo("tpot:374ms")));
  EXPECT_FALSE(KeepsSlo(request, *ParseSlo("gap:499ms")));
  EXPECT_FALSE(KeepsSlo(request, *ParseSlo("e2e:1999ms")));
  request.outcome = Outcome::kServerError;
  EXPECT_FALSE(KeepsSlo(request, Slo()));
}

TEST(Slo, IsReadAndWritten) {
  EXPECT_EQ(SloText(*ParseSlo(" e2e:10s, ttft:500ms ")), "ttft:500ms,e2e:10s");
  EXPECT_FALSE(ParseSlo("")->IsSet());
  for (const char* bad :
       {"ttft", "ttft:", "ttft:5", "ttft:-5ms", "ttft:0s", "ttft:inf", "latency:5ms", ":5ms"}) {
    EXPECT_THAT(ParseSlo(bad).status().message(), HasSubstr(bad)) << bad;
  }
  EXPECT_THAT(ParseSlo("ttft:1s,ttft:2s").status().message(), HasSubstr("twice"));
}

TEST(Definitions, AreInTheOrderOfTheirEnums) {
  ASSERT_EQ(LatencyDefinitions().size(), kNumLatencies);
  for (int i = 0; i < kNumLatencies; ++i) EXPECT_EQ(static_cast<int>(LatencyDefinitions()[i].which), i);
  for (int i = 0; i < kNumOutcomes; ++i) EXPECT_EQ(static_cast<int>(OutcomeDefinitions()[i].which), i);
  EXPECT_EQ(OutcomeName(Outcome::kRateLimited), "rate_limited");
}

}  // namespace
}  // namespace sessa::loadtest
