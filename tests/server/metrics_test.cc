// Metrics alone: what is counted, under which labels, and the text format's escapes. What a real server
// exposes is held against docs/metrics.md by tests/e2e/metrics_test.py.
#include "server/core/metrics.h"

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The value of one series, written as in the text format; empty: it is not there.
std::string Value(const std::string& text, const std::string& series) {
  const std::string line = absl::StrCat("\n", series, " ");
  const size_t at = text.find(line);
  if (at == std::string::npos) return "";
  const size_t begin = at + line.size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

std::string Responses(const std::string& text, const std::string& protocol, int code) {
  return Value(text, absl::StrCat("sessa_responses_total{model_name=\"m\",code=\"", code, "\",protocol=\"",
                                  protocol, "\"}"));
}

TEST(MetricsTest, ATicketCountsOneOutcomeAndOneStatus) {
  Metrics metrics("m", "1");
  RequestTicket(&metrics, "rest").Finish(Outcome::kStop);
  RequestTicket(&metrics, "rest").Finish(Outcome::kInvalid, 413);
  RequestTicket(&metrics, "kserve").Finish(TenantLimitError("too many", absl::Seconds(1)));
  RequestTicket(&metrics, "grpc").Finish(absl::ResourceExhaustedError("the queue is full"));
  {
    RequestTicket twice(&metrics, "grpc");
    twice.Finish(absl::DeadlineExceededError(""));
    twice.Finish(Outcome::kStop);  // the first one counts
    RequestTicket moved = RequestTicket(&metrics, "grpc");
    RequestTicket dropped = std::move(moved);  // without a Finish: an error
  }
  const std::string text = metrics.Render(nullptr, true, false);
  EXPECT_EQ(Responses(text, "rest", 200), "1");
  EXPECT_EQ(Responses(text, "rest", 413), "1");
  EXPECT_EQ(Responses(text, "kserve", 429), "1");
  EXPECT_EQ(Responses(text, "grpc", 503), "1");
  EXPECT_EQ(Responses(text, "grpc", 504), "1");
  EXPECT_EQ(Responses(text, "grpc", 500), "1");
  EXPECT_EQ(Responses(text, "grpc", 200), "0") << "there from the start";
  EXPECT_EQ(metrics.received(), 6);
  EXPECT_EQ(metrics.ended(), 6);
  EXPECT_EQ(metrics.outcome(Outcome::kRejected), 2);
  const auto success = [&text](const char* reason) {
    return Value(
        text, absl::StrCat("sessa_request_success_total{model_name=\"m\",finished_reason=\"", reason, "\"}"));
  };
  EXPECT_EQ(success("stop"), "1");
  EXPECT_EQ(success("length"), "0");
  EXPECT_EQ(success("abort"), "1") << "the deadline is the client's";
  EXPECT_EQ(success("error"), "1") << "refusals are not among them";
}

TEST(MetricsTest, LabelsAreEscaped) {
  Metrics metrics("a\"b\\c\nd\xE2\x98\x83", "1");
  const std::string text = metrics.Render(nullptr, true, true);
  EXPECT_EQ(Value(text, "sessa_ready{model_name=\"a\\\"b\\\\c\\nd\xE2\x98\x83\"}"), "1");
}

TEST(MetricsTest, ARequestsShapeIsCountedAtItsEnd) {
  Metrics metrics("m", "1");
  metrics.OnPrompt({.num_tokens = 100, .num_cached_tokens = 64, .logprobs = {}});
  const absl::Time t = absl::FromUnixSeconds(1000);
  RequestEnd end;
  end.arrival = t;
  end.scheduled = t + absl::Seconds(1);
  end.first_token = t + absl::Seconds(2);
  end.finished = t + absl::Seconds(6);
  end.num_generated_tokens = 8;
  metrics.OnEnd(end, {.n = 2, .max_tokens = 7, .longest_choice = 5});
  end.scheduled = end.first_token = absl::InfinitePast();  // it never ran
  end.num_generated_tokens = 0;
  metrics.OnEnd(end, {.n = 1, .max_tokens = 7, .longest_choice = 0});
  const std::string text = metrics.Render(nullptr, true, true);
  const auto sum_and_count = [&text](const std::string& name) {
    return absl::StrCat(Value(text, absl::StrCat("sessa_", name, "_sum{model_name=\"m\"}")), " of ",
                        Value(text, absl::StrCat("sessa_", name, "_count{model_name=\"m\"}")));
  };
  EXPECT_EQ(sum_and_count("request_prompt_tokens"), "100 of 1");
  EXPECT_EQ(sum_and_count("request_prefill_kv_computed_tokens"), "36 of 1");
  EXPECT_EQ(sum_and_count("time_to_first_token_seconds"), "2 of 1");
  EXPECT_EQ(sum_and_count("request_queue_time_seconds"), "1 of 1");
  EXPECT_EQ(sum_and_count("request_inference_time_seconds"), "5 of 1");
  EXPECT_EQ(sum_and_count("request_decode_time_seconds"), "4 of 1");
  EXPECT_EQ(sum_and_count("request_time_per_output_token_seconds"), "1 of 1");
  EXPECT_EQ(sum_and_count("e2e_request_latency_seconds"), "12 of 2");
  EXPECT_EQ(sum_and_count("request_generation_tokens"), "8 of 2");
  EXPECT_EQ(sum_and_count("request_max_num_generation_tokens"), "5 of 2");
  EXPECT_EQ(sum_and_count("request_params_n"), "3 of 2");
  EXPECT_EQ(sum_and_count("request_params_max_tokens"), "14 of 2");
}

TEST(MetricsTest, PredictionsStandBesideTheStepsTimes) {
  Metrics metrics("m", "1");
  metrics.OnStep({.duration = absl::Seconds(2), .predicted = absl::Seconds(1), .num_tokens = 5});
  metrics.OnStep({.duration = absl::Seconds(1), .predicted = absl::Seconds(4), .num_tokens = 5});
  const std::string text = metrics.Render(nullptr, true, true);
  EXPECT_EQ(Value(text, "sessa_step_duration_seconds_sum{model_name=\"m\"}"), "3");
  EXPECT_EQ(Value(text, "sessa_step_predicted_seconds_total{model_name=\"m\"}"), "5");
  EXPECT_EQ(Value(text, "sessa_step_prediction_error_ratio_sum{model_name=\"m\"}"), "3.5");
}

TEST(MetricsTest, EngineFiguresComeWithTheEngine) {
  Metrics metrics("m", "1");
  EXPECT_THAT(metrics.Render(nullptr, true, false), Not(HasSubstr("sessa_engine_healthy")));
  EngineStats stats;
  stats.num_pages = 8;
  stats.num_used_pages = 2;
  stats.page_size = 16;
  stats.heartbeat = MonotonicNow() - absl::Hours(1);
  std::string text = metrics.Render(&stats, true, true);
  EXPECT_EQ(Value(text, "sessa_state_cache_usage_ratio{model_name=\"m\"}"), "0.25");
  EXPECT_EQ(Value(text, "sessa_kv_cache_usage_perc{model_name=\"m\"}"), "0.25");
  EXPECT_THAT(text,
              HasSubstr("sessa_cache_config_info{model_name=\"m\",block_size=\"16\",num_gpu_blocks=\"8\""));
  EXPECT_EQ(Value(text, "sessa_engine_loop_age_seconds{model_name=\"m\"}"), "0")
      << "it sleeps, it does not hang";
  EXPECT_EQ(Value(text, "sessa_state_slots{model_name=\"m\"}"), "0");
  stats.num_running = 1;
  stats.num_slots = 10;
  stats.num_used_slots = 6;
  stats.num_snapshots = 3;
  text = metrics.Render(&stats, false, false);
  EXPECT_EQ(Value(text, "sessa_state_slots{model_name=\"m\"}"), "10");
  EXPECT_EQ(Value(text, "sessa_state_slots_used{model_name=\"m\"}"), "6");
  EXPECT_EQ(Value(text, "sessa_state_snapshots{model_name=\"m\"}"), "3");
  EXPECT_EQ(Value(text, "sessa_state_cache_usage_ratio{model_name=\"m\"}"), "0.6") << "the scarcer of both";
  EXPECT_GE(std::stod(Value(text, "sessa_engine_loop_age_seconds{model_name=\"m\"}")), 3600);
  EXPECT_EQ(Value(text, "sessa_live{model_name=\"m\"}"), "0");
}

}  // namespace
}  // namespace sessa
