// Metrics; see metrics.h. Engine counters are emitted at scrape from one EngineStats, everything else is
// counted as it happens.
#include "server/core/metrics.h"

#include <array>
#include <atomic>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace sessa {
namespace {

constexpr std::array<const char*, 11> kOutcomes = {"stop",      "length",      "cancelled", "slow_reader",
                                                   "deadline",  "rejected",    "invalid",   "unauthenticated",
                                                   "not_found", "unavailable", "error"};

const std::vector<double> kSeconds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                      1,     2,     5,     10,   20,   50,   100, 200, 500};
const std::vector<double> kTokens = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                                     512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};

prometheus::MetricFamily Family(const char* name, const char* help, prometheus::MetricType type, double value,
                                std::vector<prometheus::ClientMetric::Label> labels) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
  return family;
}

}  // namespace

absl::string_view OutcomeName(Outcome outcome) { return kOutcomes[static_cast<size_t>(outcome)]; }

struct Metrics::Families {
  prometheus::Registry registry;
  std::array<std::atomic<int64_t>, kOutcomes.size()> outcome_counts = {};
  std::atomic<int64_t> received_count{0};
  std::array<prometheus::Counter*, kOutcomes.size()> outcomes = {};
  prometheus::Family<prometheus::Counter>* received = nullptr;
  prometheus::Counter* prompt_tokens = nullptr;
  prometheus::Histogram *ttft, *itl, *e2e, *queue, *prefill, *decode, *request_prompt, *request_generation,
      *iteration_tokens, *step_duration, *prediction_error;
  prometheus::Counter* predicted_seconds = nullptr;

  prometheus::Histogram* AddHistogram(const char* name, const char* help,
                                      const std::vector<double>& buckets) {
    return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {
  Families& f = *families_;
  auto& outcomes =
      prometheus::BuildCounter()
          .Name("sessa_requests_total")
          .Help("Requests ended, by outcome; the sum is the requests received less those in flight.")
          .Register(f.registry);
  for (size_t i = 0; i < kOutcomes.size(); ++i) f.outcomes[i] = &outcomes.Add({{"outcome", kOutcomes[i]}});
  f.received = &prometheus::BuildCounter()
                    .Name("sessa_requests_received_total")
                    .Help("Generation requests received, by protocol.")
                    .Register(f.registry);
  f.ttft = f.AddHistogram("sessa_time_to_first_token_seconds", "From arrival to the first token.", kSeconds);
  f.itl = f.AddHistogram("sessa_inter_token_latency_seconds", "Between two tokens of one choice.", kSeconds);
  f.e2e = f.AddHistogram("sessa_e2e_request_latency_seconds", "From arrival to the end, however it ended.",
                         kSeconds);
  f.queue = f.AddHistogram("sessa_request_queue_time_seconds", "From arrival to the first step.", kSeconds);
  f.prefill = f.AddHistogram("sessa_request_prefill_time_seconds", "From the first step to the first token.",
                             kSeconds);
  f.decode =
      f.AddHistogram("sessa_request_decode_time_seconds", "From the first token to the end.", kSeconds);
  f.request_prompt = f.AddHistogram("sessa_request_prompt_tokens", "Prompt tokens of a request.", kTokens);
  f.request_generation =
      f.AddHistogram("sessa_request_generation_tokens", "Tokens generated for a request.", kTokens);
  f.iteration_tokens = f.AddHistogram("sessa_iteration_tokens", "New tokens in one engine step.", kTokens);
  f.step_duration = f.AddHistogram("sessa_step_duration_seconds", "Duration of one engine step.", kSeconds);
  f.predicted_seconds = &prometheus::BuildCounter()
                             .Name("sessa_step_predicted_seconds_total")
                             .Help(
                                 "Durations of engine steps as the cost model predicted them; beside "
                                 "sessa_step_duration_seconds_sum.")
                             .Register(f.registry)
                             .Add({});
  f.prediction_error = f.AddHistogram("sessa_step_prediction_error_ratio",
                                      "Error of a step's predicted duration, over its duration.",
                                      {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10});
}

Metrics::~Metrics() = default;

void Metrics::OnReceived(absl::string_view protocol) {
  families_->received_count.fetch_add(1, std::memory_order_relaxed);
  families_->received->Add({{"protocol", std::string(protocol)}}).Increment();
}

void Metrics::OnOutcome(Outcome outcome) {
  families_->outcome_counts[static_cast<size_t>(outcome)].fetch_add(1, std::memory_order_relaxed);
  families_->outcomes[static_cast<size_t>(outcome)]->Increment();
}

void Metrics::OnPromptTokens(int num_tokens) { families_->request_prompt->Observe(num_tokens); }
void Metrics::OnGeneratedTokens(int num_tokens) { families_->request_generation->Observe(num_tokens); }
void Metrics::OnInterToken(absl::Duration gap) { families_->itl->Observe(absl::ToDoubleSeconds(gap)); }

void Metrics::OnEnd(const RequestEnd& end) {
  auto observe = [](prometheus::Histogram* histogram, absl::Time from, absl::Time to) {
    if (from == absl::InfinitePast() || to == absl::InfinitePast() || to < from) return;
    histogram->Observe(absl::ToDoubleSeconds(to - from));
  };
  observe(families_->ttft, end.arrival, end.first_token);
  observe(families_->e2e, end.arrival, end.finished);
  observe(families_->queue, end.arrival, end.scheduled);
  observe(families_->prefill, end.scheduled, end.first_token);
  observe(families_->decode, end.first_token, end.finished);
  OnGeneratedTokens(end.num_generated_tokens);
}

void Metrics::OnStep(const StepObservation& step) {
  families_->step_duration->Observe(absl::ToDoubleSeconds(step.duration));
  families_->iteration_tokens->Observe(step.num_tokens);
  families_->predicted_seconds->Increment(absl::ToDoubleSeconds(step.predicted));
  if (step.duration > absl::ZeroDuration()) {
    const double ratio = absl::FDivDuration(step.predicted, step.duration);
    families_->prediction_error->Observe(std::abs(ratio - 1));
  }
}

void Metrics::StepObserver(void* context, const StepObservation& step) {
  static_cast<Metrics*>(context)->OnStep(step);
}

int64_t Metrics::received() const { return families_->received_count.load(); }

int64_t Metrics::ended() const {
  int64_t sum = 0;
  for (const auto& count : families_->outcome_counts) sum += count.load();
  return sum;
}

int64_t Metrics::outcome(Outcome outcome) const {
  return families_->outcome_counts[static_cast<size_t>(outcome)].load();
}

std::string Metrics::Render(const EngineStats* stats, const std::string& model, bool ready) {
  std::vector<prometheus::MetricFamily> all = families_->registry.Collect();
  using prometheus::MetricType;
  auto gauge = [&](const char* name, const char* help, double value) {
    all.push_back(Family(name, help, MetricType::Gauge, value, {}));
  };
  auto counter = [&](const char* name, const char* help, double value) {
    all.push_back(Family(name, help, MetricType::Counter, value, {}));
  };
  gauge("sessa_ready", "1 when requests are taken.", ready ? 1 : 0);
  const int64_t num_ended =
      ended();  // before received(): a request that comes between them is in flight, not below zero
  gauge("sessa_num_requests_in_flight", "Requests received that have not ended.", received() - num_ended);
  if (stats != nullptr) {
    gauge("sessa_num_requests_running", "Sequences that run.", stats->num_running);
    gauge("sessa_num_requests_waiting", "Sequences that wait.", stats->num_waiting);
    gauge("sessa_num_tokens_waiting", "Prompt tokens that wait.", stats->waiting_tokens);
    gauge("sessa_state_cache_usage_ratio", "Used pages of the state cache over all.",
          stats->num_pages > 0 ? static_cast<double>(stats->num_used_pages) / stats->num_pages : 0.0);
    counter("sessa_prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            stats->prefix_cache_queries);
    counter("sessa_prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
            stats->prefix_cache_hits);
    counter("sessa_num_preemptions_total", "Sequences preempted.", stats->num_preemptions);
    counter("sessa_recomputed_tokens_total", "Tokens computed again after preemption.",
            stats->num_recomputed_tokens);
    counter("sessa_prompt_tokens_total", "Prompt tokens of the requests taken.", stats->prompt_tokens);
    counter("sessa_generation_tokens_total", "Tokens generated.", stats->generation_tokens);
    counter("sessa_steps_total", "Engine steps.", stats->num_steps);
    gauge("sessa_engine_healthy", "0 after a device fault.", stats->health.ok() ? 1 : 0);
    all.push_back(Family("sessa_state_cache_info", "Shape of the state cache.", MetricType::Gauge, 1,
                         {{"model", model},
                          {"num_pages", absl::StrCat(stats->num_pages)},
                          {"page_size", absl::StrCat(stats->page_size)}}));
  }
  return prometheus::TextSerializer().Serialize(all);
}

RequestTicket::RequestTicket(Metrics* metrics, absl::string_view protocol) : metrics_(metrics) {
  metrics_->OnReceived(protocol);
}
RequestTicket::RequestTicket(RequestTicket&& other) noexcept
    : metrics_(std::exchange(other.metrics_, nullptr)) {}
RequestTicket& RequestTicket::operator=(RequestTicket&& other) noexcept {
  if (this != &other) {
    Finish(Outcome::kError);
    metrics_ = std::exchange(other.metrics_, nullptr);
  }
  return *this;
}
RequestTicket::~RequestTicket() { Finish(Outcome::kError); }

void RequestTicket::Finish(Outcome outcome) {
  if (Metrics* metrics = std::exchange(metrics_, nullptr)) metrics->OnOutcome(outcome);
}

void RequestTicket::Finish(const absl::Status& error) {
  switch (error.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange: return Finish(Outcome::kInvalid);
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied: return Finish(Outcome::kUnauthenticated);
    case absl::StatusCode::kNotFound: return Finish(Outcome::kNotFound);
    case absl::StatusCode::kResourceExhausted: return Finish(Outcome::kRejected);
    case absl::StatusCode::kUnavailable: return Finish(Outcome::kUnavailable);
    case absl::StatusCode::kCancelled: return Finish(Outcome::kCancelled);
    case absl::StatusCode::kDeadlineExceeded: return Finish(Outcome::kDeadline);
    default: return Finish(Outcome::kError);
  }
}

}  // namespace sessa
