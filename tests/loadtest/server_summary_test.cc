// The server's metrics joined to a run: names, labels, counters that begin anew, quantiles of histograms.
#include "loadtest/server_summary.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa::loadtest {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsNan;

double Figure(const ServerSummary& summary, const std::string& key) {
  for (const ServerFigure& figure : summary.figures) {
    if (key == figure.key) return figure.value;
  }
  ADD_FAILURE() << "no figure " << key;
  return kNever;
}

TEST(ServerSummary, CountersOverTheWindow) {
  const std::vector<MetricsSample> samples = {
      {0, {{"sessa_prefix_cache_hits_total", 10}, {"sessa_prefix_cache_queries_total", 20}}},
      {5, {{"sessa_prefix_cache_hits_total", 30}, {"sessa_prefix_cache_queries_total", 60}}},
      {10, {{"sessa_prefix_cache_hits_total", 60}, {"sessa_prefix_cache_queries_total", 160}}},
      {15, {{"sessa_prefix_cache_hits_total", 99}, {"sessa_prefix_cache_queries_total", 999}}}};
  const ServerSummary all = SummarizeServer(samples, {0, 20});
  EXPECT_EQ(all.num_samples, 4);
  EXPECT_DOUBLE_EQ(Figure(all, "cache_hit_tokens"), 89);
  EXPECT_DOUBLE_EQ(Figure(all, "cache_hit_share"), 89.0 / 979);
  EXPECT_THAT(Figure(all, "preemptions"), IsNan());
  const ServerSummary middle = SummarizeServer(samples, {6, 9});  // the samples that enclose it
  EXPECT_DOUBLE_EQ(Figure(middle, "cache_hit_tokens"), 30);
  EXPECT_DOUBLE_EQ(Figure(middle, "cache_hit_share"), 0.3);
}

TEST(ServerSummary, SumsOverLabelsAndAveragesRatios) {
  const std::vector<MetricsSample> samples = {{0,
                                               {{"sessa_num_requests_running{model_name=\"a\"}", 2},
                                                {"sessa_num_requests_running{model_name=\"b\"}", 3},
                                                {"sessa_num_requests_running_not{model_name=\"b\"}", 100},
                                                {"sessa_num_requests_waiting", 7},
                                                {"sessa_state_cache_usage_ratio{model_name=\"a\"}", 0.2},
                                                {"sessa_state_cache_usage_ratio{model_name=\"b\"}", 0.6}}},
                                              {1, {{"sessa_num_requests_running{model_name=\"a\"}", 1}}}};
  const ServerSummary s = SummarizeServer(samples, {0, 1});
  EXPECT_DOUBLE_EQ(Figure(s, "running_mean"), 3);
  EXPECT_DOUBLE_EQ(Figure(s, "running_max"), 5);
  EXPECT_DOUBLE_EQ(Figure(s, "waiting_max"), 7);
  EXPECT_DOUBLE_EQ(Figure(s, "cache_usage_mean"), 0.4);
  EXPECT_THAT(s.times, ElementsAre(0, 1));
  EXPECT_THAT(s.series[0].values, ElementsAre(5, 1));
  EXPECT_THAT(s.series[2].values, ElementsAre(DoubleEq(0.4), IsNan()));
}

TEST(ServerSummary, KnowsTheNamesOfVllm) {
  const std::vector<MetricsSample> samples = {{0,
                                               {{"vllm:num_requests_running{engine=\"0\"}", 4},
                                                {"vllm:kv_cache_usage_perc{engine=\"0\"}", 0.5},
                                                {"vllm:generation_tokens_total{engine=\"0\"}", 100},
                                                {"vllm:iteration_tokens_total_sum", 0},
                                                {"vllm:iteration_tokens_total_count", 0},
                                                {"vllm:num_preemptions_total{engine=\"0\"}", 1}}},
                                              {10,
                                               {{"vllm:num_requests_running{engine=\"0\"}", 6},
                                                {"vllm:gpu_cache_usage_perc{engine=\"0\"}", 0.7},
                                                {"vllm:generation_tokens_total{engine=\"0\"}", 600},
                                                {"vllm:iteration_tokens_total_sum", 800},
                                                {"vllm:iteration_tokens_total_count", 10},
                                                {"vllm:num_preemptions_total{engine=\"0\"}", 4}}}};
  const ServerSummary s = SummarizeServer(samples, {0, 10});
  EXPECT_DOUBLE_EQ(Figure(s, "running_mean"), 5);
  EXPECT_DOUBLE_EQ(Figure(s, "cache_usage_mean"), 0.6);
  EXPECT_DOUBLE_EQ(Figure(s, "preemptions"), 3);
  EXPECT_DOUBLE_EQ(Figure(s, "generation_tokens_per_second"), 50);
  EXPECT_DOUBLE_EQ(Figure(s, "step_tokens_mean"), 80);
}

TEST(ServerSummary, ACounterThatFellBeganAnew) {
  const std::vector<MetricsSample> samples = {{0, {{"sessa_num_preemptions_total", 100}}},
                                              {1, {{"sessa_num_preemptions_total", 130}}},
                                              {2, {{"sessa_num_preemptions_total", 5}}},
                                              {3, {{"sessa_num_preemptions_total", 9}}}};
  EXPECT_DOUBLE_EQ(Figure(SummarizeServer(samples, {0, 3}), "preemptions"), 30 + 5 + 4);
}

TEST(ServerSummary, StepTimeFromTheHistogramsGrowth) {
  auto sample = [](double at, double one, double two, double all, double sum) {
    return MetricsSample{
        at,
        {{"sessa_num_requests_running", 1},
         {"sessa_step_duration_seconds_bucket{le=\"0.01\",model_name=\"m\"}", one},
         {"sessa_step_duration_seconds_bucket{model_name=\"m\",le=\"0.02\"}", two},
         {"sessa_step_duration_seconds_bucket{model_name=\"m\",scale=\"9\",le=\"+Inf\"}", all},
         {"sessa_step_duration_seconds_sum{model_name=\"m\"}", sum},
         {"sessa_step_duration_seconds_count{model_name=\"m\"}", all}}};
  };
  // Grew by 90 up to 10 ms and 10 more up to 20 ms: rank 99 is 9/10 into the second bucket.
  const ServerSummary s = SummarizeServer({sample(0, 50, 50, 60, 5), sample(1, 140, 150, 160, 6)}, {0, 1});
  EXPECT_NEAR(Figure(s, "step_p99"), 0.019, 1e-12);
  EXPECT_DOUBLE_EQ(Figure(s, "step_mean"), 0.01);
  // Beyond the last bound nothing is known but the bound.
  const ServerSummary beyond = SummarizeServer({sample(0, 0, 0, 0, 0), sample(1, 1, 2, 100, 6)}, {0, 1});
  EXPECT_DOUBLE_EQ(Figure(beyond, "step_p99"), 0.02);
  const ServerSummary still = SummarizeServer({sample(0, 5, 5, 5, 1), sample(1, 5, 5, 5, 1)}, {0, 1});
  EXPECT_THAT(Figure(still, "step_p99"), IsNan());
  EXPECT_THAT(Figure(still, "step_mean"), IsNan());
}

TEST(ServerSummary, WithoutMetricsThatAreKnown) {
  EXPECT_EQ(SummarizeServer({}, {0, 1}).num_samples, 0);
  EXPECT_EQ(SummarizeServer({{0, {{"other_metric", 1}}}, {1, {}}}, {0, 1}).num_samples, 0);
  const ServerSummary once = SummarizeServer({{0, {{"sessa_num_requests_running", 1}}}}, {0, 1});
  EXPECT_EQ(once.num_samples, 1);
  EXPECT_THAT(Figure(once, "preemptions"), IsNan());  // one reading tells of no growth
}

}  // namespace
}  // namespace sessa::loadtest
