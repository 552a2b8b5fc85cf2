// Made-up runs; see synthetic_runs.h.
#include "tests/loadtest/synthetic_runs.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace sessa::loadtest {
namespace {

void AddAnswer(const SyntheticLoad& load, double start, int tokens, std::mt19937_64& random,
               RequestRecord& request) {
  std::lognormal_distribution<double> gap(-3.5, 0.25);  // about 30 ms
  double at = start;
  for (int token = 0; token < tokens; ++token) {
    double next = at + (token == 0 ? 0 : gap(random));
    if (at < load.stall_at && next >= load.stall_at) next += load.stall_seconds;
    request.events.push_back({next, random() % 50 == 0 ? 2 : 1});
    at = next;
  }
  request.ended = at;
}

MetricsSample Sample(const SyntheticLoad& load, double at, double running, double waiting) {
  MetricsSample sample{at, {}};
  auto set = [&](const char* name, double value) {
    sample.values[absl::StrCat(name, "{model_name=\"demo\"}")] = value;
  };
  set("sessa_num_requests_running", running);
  set("sessa_num_requests_waiting", waiting);
  set("sessa_state_cache_usage_ratio", std::min(0.1 + running * 0.03, 1.0));
  set("sessa_prefix_cache_queries_total", 5000 * at);
  set("sessa_prefix_cache_hits_total", 2100 * at);
  set("sessa_num_preemptions_total", at > load.stall_at ? 3 : 0);
  set("sessa_recomputed_tokens_total", at > load.stall_at ? 4100 : 0);
  set("sessa_step_duration_seconds_sum", at);
  set("sessa_step_duration_seconds_count", at * 34);
  const std::pair<const char*, double> buckets[] = {{"0.02", 4}, {"0.05", 33}, {"0.1", 34}, {"+Inf", 34}};
  for (const auto& [bound, count] : buckets) {
    sample
        .values[absl::StrCat("sessa_step_duration_seconds_bucket{model_name=\"demo\",le=\"", bound, "\"}")] =
        count * at;
  }
  return sample;
}

}  // namespace

Run MakeRun(const SyntheticLoad& load, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> arrival(load.rate);
  std::exponential_distribution<double> length(1.0 / load.tokens);
  std::lognormal_distribution<double> first(-2.0, 0.5);
  Run run;
  run.title = "Chat beside long documents";
  run.server = "http://127.0.0.1:8000, REST";
  run.model = "demo";
  run.options = {{"work", "chat-and-documents"}, {"arrivals", "poisson"}, {"seed", absl::StrCat(seed)}};
  run.offered_rate = load.rate;
  run.started_unix_ms = 1'790'000'000'000;
  run.client = {0.0021, 0.0004, 0.0012, 0.18, load.failure, 0.0003};
  double at = 0, free_at = 0;
  for (int i = 0; i < load.num_requests; ++i) {
    at += arrival(random);
    RequestRecord request;
    request.index = i;
    request.scheduled = at;
    request.sent = at + 0.0002 * (random() % 10);
    request.is_probe = i % 20 == 19;
    request.kind = request.is_probe ? "probe" : i % 6 == 0 ? "documents" : "chat";
    request.tenant = i % 3 == 0 ? "blue" : "green";
    request.prompt_tokens = request.input_tokens = i % 6 == 0 ? 8192 : 300;
    request.output_tokens = load.tokens * 2;
    request.cached_tokens = request.input_tokens / 3;
    free_at =
        std::max(free_at, request.sent) + 1 / load.capacity;  // one after the other, as a full server would
    const double begin = std::max(request.sent, free_at - 1 / load.capacity);
    request.queue_seconds = begin - request.sent;
    request.headers = request.sent + 0.002;
    if (i % 97 == 96) {
      request.outcome = Outcome::kUnavailable;
      request.status = 503;
      request.error = "the queue is full";
      request.ended = request.sent + 0.003;
    } else {
      const int tokens = request.is_probe ? 1 : 2 + static_cast<int>(length(random));
      AddAnswer(load, begin + first(random) * (i % 6 == 0 ? 4 : 1), tokens, random, request);
      request.finish_reason = "length";
      request.status = 200;
    }
    run.duration = std::max(run.duration, request.ended);
    run.requests.push_back(request);
  }
  run.warmup = std::min(5.0, run.duration / 10);
  for (double sample = 0; load.has_server_metrics && sample <= run.duration;
       sample += std::max(run.duration / 400, 0.5)) {
    double live = 0, waiting = 0;
    for (const RequestRecord& request : run.requests) {
      if (request.sent > sample || request.ended < sample) continue;
      (request.events.empty() || request.events.front().at > sample ? waiting : live) += 1;
    }
    run.server_metrics.push_back(Sample(load, sample, live, waiting));
  }
  return run;
}

}  // namespace sessa::loadtest
