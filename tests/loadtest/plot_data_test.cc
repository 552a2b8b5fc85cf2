// What the page draws: records reduced to few points, without losing the longest gaps, time or tokens.
#include "loadtest/plot_data.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/loadtest/synthetic_runs.h"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;
using ::testing::Each;
using ::testing::Ge;

std::vector<double> Numbers(const json::value& array) {
  std::vector<double> numbers;
  for (const json::value& element : array.as_array()) numbers.push_back(element.to_number<double>());
  return numbers;
}

RunReport ReportOf(const sessa::loadtest::Run& run) {
  RunReport report{&run, Summarize(run, Slo()), {}};
  report.server = SummarizeServer(run.server_metrics, report.summary.window);
  return report;
}

TEST(PlotData, KeepsTheLongestGapsAndAllOfTheTime) {
  SyntheticLoad load;
  load.num_requests = 3000;
  load.rate = load.capacity = 50;
  const auto run = MakeRun(load, 1);
  const RunReport report = ReportOf(run);
  const GroupSummary& all = report.summary.all;
  const json::value plots = PlotData(report);
  EXPECT_LT(json::serialize(plots).size(), 200'000);

  const std::vector<double> gaps = Numbers(plots.at("gaps").at("seconds"));
  ASSERT_EQ(gaps.size(), kMaxGapPoints);
  EXPECT_NEAR(*std::max_element(gaps.begin(), gaps.end()), all.worst_gap.seconds,
              all.worst_gap.seconds * 1e-4);
  EXPECT_EQ(*std::min_element(gaps.begin(), gaps.end()),
            plots.at("gaps").at("threshold").to_number<double>());
  EXPECT_EQ(plots.at("gaps").at("total").to_number<int64_t>(), all.latency(Latency::kItl).count);

  const json::value& timeline = plots.at("timeline");
  EXPECT_LE(timeline.at("at").as_array().size(), kMaxTimeBins);
  double tokens = 0, in_flight = 0, expected_tokens = 0, expected_in_flight = 0;
  for (double rate : Numbers(timeline.at("output_tokens_per_second"))) tokens += rate;
  for (double mean : Numbers(timeline.at("in_flight"))) in_flight += mean;
  const double bin = timeline.at("bin").to_number<double>();
  for (const RequestRecord& request : run.requests) {
    if (request.is_probe) continue;
    expected_tokens += OutputTokens(request);
    expected_in_flight += request.ended - request.sent;
  }
  EXPECT_NEAR(tokens * bin, expected_tokens, expected_tokens * 1e-4);
  EXPECT_NEAR(in_flight * bin, expected_in_flight, expected_in_flight * 1e-4);

  for (const json::value& histogram : plots.at("histograms").as_array()) {
    double sum = 0;
    for (double share : Numbers(histogram.at("shares"))) sum += share;
    EXPECT_NEAR(sum, 1, 1e-3) << histogram.at("key");
    EXPECT_EQ(histogram.at("edges").as_array().size(), histogram.at("shares").as_array().size() + 1);
  }
  ASSERT_EQ(plots.at("quantiles").as_array().size(), 4);  // TTFT, ITL, TPOT, E2E
  const double longest_ttft = all.latency(Latency::kTtft).max;
  EXPECT_NEAR(Numbers(plots.at("quantiles").at(0).at("values")).back(), longest_ttft, longest_ttft * 1e-4);
}

TEST(PlotData, ManySamplesBecomeMeansAndFewStay) {
  SyntheticLoad load;
  load.num_requests = 2000;  // 200 s with a sample each half a second
  const auto many = MakeRun(load, 1);
  const json::value reduced = PlotData(ReportOf(many)).at("server");
  EXPECT_LE(reduced.at("at").as_array().size(), kMaxTimeBins);
  EXPECT_GT(reduced.at("bin").to_number<double>(), 0);
  EXPECT_EQ(reduced.at("series").as_array().size(), 3);

  load.num_requests = 200;
  const auto few = MakeRun(load, 1);
  const json::value whole = PlotData(ReportOf(few)).at("server");
  EXPECT_EQ(whole.at("bin").to_number<double>(), 0);
  EXPECT_EQ(whole.at("at").as_array().size(), few.server_metrics.size());
}

TEST(PlotData, GapsOfNothingAreDrawn) {
  sessa::loadtest::Run run;
  run.duration = 1;
  RequestRecord request;
  request.scheduled = request.sent = 0;
  request.events = {{0.1, 1}, {0.1, 1}, {0.2, 1}};  // the first two came with one read
  request.ended = 0.2;
  run.requests = {request};
  const json::value plots = PlotData(ReportOf(run));
  for (const json::value& curve : plots.at("quantiles").as_array()) {
    EXPECT_THAT(Numbers(curve.at("values")), Each(Ge(1e-5)));
  }
  EXPECT_EQ(Numbers(plots.at("gaps").at("seconds"))[0], 0);
}

TEST(PlotData, OfNothing) {
  const sessa::loadtest::Run run;
  const json::value plots = PlotData(ReportOf(run));
  EXPECT_TRUE(plots.at("quantiles").as_array().empty());
  EXPECT_TRUE(plots.at("timeline").at("at").as_array().empty());
  EXPECT_EQ(plots.at("gaps").at("total").to_number<int>(), 0);
  EXPECT_TRUE(plots.at("server").is_null());
}

}  // namespace
}  // namespace sessa::loadtest
