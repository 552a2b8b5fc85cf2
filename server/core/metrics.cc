// Metrics; see metrics.h.
#include "server/core/metrics.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/core/engine_metrics.h"
#include "server/core/errors.h"
#include "server/core/log.h"

namespace sessa {
namespace {

constexpr std::array<const char*, 11> kOutcomes = {"stop",      "length",      "cancelled", "slow_reader",
                                                   "deadline",  "rejected",    "invalid",   "unauthenticated",
                                                   "not_found", "unavailable", "error"};
// What a client is told of an outcome where no error says it more exactly.
constexpr std::array<int, kOutcomes.size()> kStatuses = {200, 200, 499, 499, 504, 503,
                                                         400, 401, 404, 503, 500};
constexpr const char* kProtocols[] = {"rest", "grpc", "kserve"};
// The series that are there from the start: a rate cannot see the first of a series that begins with it.
constexpr int kUsualStatuses[] = {200, 400, 401, 404, 429, 499, 500, 503, 504};

const std::vector<double> kSeconds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                      1,     2,     5,     10,   20,   50,   100, 200, 500};
const std::vector<double> kTokens = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                                     512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
const std::vector<double> kChoices = {1, 2, 4, 8, 16, 32, 64, 128};

// Families that are given twice, since dashboards and gateways made for vLLM know them by another name.
constexpr std::pair<const char*, const char*> kAliases[] = {
    {"sessa_state_cache_usage_ratio", "sessa_kv_cache_usage_perc"},
    {"sessa_state_cache_info", "sessa_cache_config_info"},
    {"sessa_inter_token_latency_seconds", "sessa_time_per_output_token_seconds"},
};

#ifdef __clang__
constexpr char kCompiler[] = "clang " __clang_version__;
#else
constexpr char kCompiler[] = "gcc " __VERSION__;
#endif

}  // namespace

absl::string_view OutcomeName(Outcome outcome) { return kOutcomes[static_cast<size_t>(outcome)]; }

struct Metrics::Families {
  prometheus::Registry registry;
  std::array<std::atomic<int64_t>, kOutcomes.size()> outcome_counts = {};
  std::atomic<int64_t> received_count{0};
  std::array<prometheus::Counter*, kOutcomes.size()> outcomes = {};
  prometheus::Family<prometheus::Counter>*received = nullptr, *responses = nullptr;
  prometheus::Histogram *ttft, *itl, *e2e, *queue, *prefill, *decode, *inference, *time_per_token;
  prometheus::Histogram *request_prompt, *prefill_computed, *request_generation, *longest_choice;
  prometheus::Histogram *params_n, *params_max_tokens, *iteration_tokens, *step_duration, *prediction_error;
  prometheus::Counter *predicted_seconds = nullptr, *cache_events_dropped = nullptr;
  std::string model_name, version;

  prometheus::Histogram* AddHistogram(const char* name, const char* help,
                                      const std::vector<double>& buckets) {
    return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }
};

Metrics::Metrics(std::string model_name, std::string version) : families_(std::make_unique<Families>()) {
  Families& f = *families_;
  f.model_name = std::move(model_name);
  f.version = std::move(version);
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
  f.responses = &prometheus::BuildCounter()
                     .Name("sessa_responses_total")
                     .Help("Generation requests ended, by protocol and the HTTP status that tells how.")
                     .Register(f.registry);
  for (const char* protocol : kProtocols) {
    f.received->Add({{"protocol", protocol}});
    for (int code : kUsualStatuses) {
      f.responses->Add({{"protocol", protocol}, {"code", absl::StrCat(code)}});
    }
  }
  f.ttft = f.AddHistogram("sessa_time_to_first_token_seconds", "From arrival to the first token.", kSeconds);
  f.itl = f.AddHistogram("sessa_inter_token_latency_seconds", "Between two tokens of one choice.", kSeconds);
  f.e2e = f.AddHistogram("sessa_e2e_request_latency_seconds", "From arrival to the end, however it ended.",
                         kSeconds);
  f.queue = f.AddHistogram("sessa_request_queue_time_seconds", "From arrival to the first step.", kSeconds);
  f.prefill = f.AddHistogram("sessa_request_prefill_time_seconds", "From the first step to the first token.",
                             kSeconds);
  f.decode =
      f.AddHistogram("sessa_request_decode_time_seconds", "From the first token to the end.", kSeconds);
  f.inference =
      f.AddHistogram("sessa_request_inference_time_seconds", "From the first step to the end.", kSeconds);
  f.time_per_token = f.AddHistogram("sessa_request_time_per_output_token_seconds",
                                    "Decode time over the tokens after the first, of a request.", kSeconds);
  f.request_prompt = f.AddHistogram("sessa_request_prompt_tokens", "Prompt tokens of a request.", kTokens);
  f.prefill_computed = f.AddHistogram("sessa_request_prefill_kv_computed_tokens",
                                      "Prompt tokens that were not found in the prefix cache.", kTokens);
  f.request_generation =
      f.AddHistogram("sessa_request_generation_tokens", "Tokens generated for a request.", kTokens);
  f.longest_choice = f.AddHistogram("sessa_request_max_num_generation_tokens",
                                    "Tokens generated for the longest choice of a request.", kTokens);
  f.params_n = f.AddHistogram("sessa_request_params_n", "Choices asked for.", kChoices);
  f.params_max_tokens =
      f.AddHistogram("sessa_request_params_max_tokens", "Most tokens asked for, a choice.", kTokens);
  f.iteration_tokens = f.AddHistogram("sessa_iteration_tokens", "New tokens in one engine step.", kTokens);
  f.step_duration = f.AddHistogram("sessa_step_duration_seconds", "Duration of one engine step.", kSeconds);
  f.predicted_seconds = &prometheus::BuildCounter()
                             .Name("sessa_step_predicted_seconds_total")
                             .Help(
                                 "Durations of engine steps as the cost model predicted them; beside "
                                 "sessa_step_duration_seconds_sum.")
                             .Register(f.registry)
                             .Add({});
  f.cache_events_dropped = &prometheus::BuildCounter()
                                .Name("sessa_cache_events_dropped_total")
                                .Help("Events of the prefix cache that came faster than they could be sent.")
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

void Metrics::OnOutcome(absl::string_view protocol, Outcome outcome, int http_status) {
  families_->responses->Add({{"protocol", std::string(protocol)}, {"code", absl::StrCat(http_status)}})
      .Increment();
  families_->outcomes[static_cast<size_t>(outcome)]->Increment();
  families_->outcome_counts[static_cast<size_t>(outcome)].fetch_add(1, std::memory_order_relaxed);
}

void Metrics::OnPrompt(const PromptInfo& prompt) {
  families_->request_prompt->Observe(prompt.num_tokens);
  families_->prefill_computed->Observe(prompt.num_tokens - prompt.num_cached_tokens);
}

void Metrics::OnInterToken(absl::Duration gap) { families_->itl->Observe(absl::ToDoubleSeconds(gap)); }

void Metrics::OnEnd(const RequestEnd& end, const RequestShape& shape) {
  auto observe = [](prometheus::Histogram* histogram, absl::Time from, absl::Time to) {
    if (from == absl::InfinitePast() || to == absl::InfinitePast() || to < from) return;
    histogram->Observe(absl::ToDoubleSeconds(to - from));
  };
  observe(families_->ttft, end.arrival, end.first_token);
  observe(families_->e2e, end.arrival, end.finished);
  observe(families_->queue, end.arrival, end.scheduled);
  observe(families_->prefill, end.scheduled, end.first_token);
  observe(families_->decode, end.first_token, end.finished);
  observe(families_->inference, end.scheduled, end.finished);
  if (shape.longest_choice > 1) {
    observe(families_->time_per_token, end.first_token,
            end.first_token + (end.finished - end.first_token) / (shape.longest_choice - 1));
  }
  families_->request_generation->Observe(end.num_generated_tokens);
  families_->longest_choice->Observe(shape.longest_choice);
  families_->params_n->Observe(shape.n);
  families_->params_max_tokens->Observe(shape.max_tokens);
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

void Metrics::OnCacheEventsDropped(int64_t num) {
  families_->cache_events_dropped->Increment(static_cast<double>(num));
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

RequestTimes Metrics::times() const {
  const auto sum = [](const prometheus::Histogram& histogram) {
    const prometheus::ClientMetric::Histogram collected = histogram.Collect().histogram;
    return RequestTimes::Sum{static_cast<int64_t>(collected.sample_count), collected.sample_sum};
  };
  return {sum(*families_->e2e), sum(*families_->queue), sum(*families_->prefill), sum(*families_->decode)};
}

// vLLM's family: what was generated, to whatever end. Requests that were refused are not in it.
prometheus::MetricFamily Metrics::SuccessFamily() const {
  const std::pair<const char*, int64_t> reasons[] = {
      {"stop", outcome(Outcome::kStop)},
      {"length", outcome(Outcome::kLength)},
      {"abort", outcome(Outcome::kCancelled) + outcome(Outcome::kSlowReader) + outcome(Outcome::kDeadline)},
      {"error", outcome(Outcome::kError)}};
  prometheus::MetricFamily family;
  family.name = "sessa_request_success_total";
  family.help = "Requests ended, by finish reason: stop, length, abort (the client's) and error.";
  family.type = prometheus::MetricType::Counter;
  for (const auto& [reason, count] : reasons) {
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    metric.label = {{"finished_reason", reason}};
    metric.counter.value = count;
  }
  return family;
}

std::string Metrics::Render(const EngineStats* stats, bool live, bool ready,
                            const std::vector<TenantUse>& tenants) {
  std::vector<prometheus::MetricFamily> all = families_->registry.Collect();
  auto gauge = [&all](const char* name, const char* help, double value,
                      std::vector<prometheus::ClientMetric::Label> labels = {}) {
    all.push_back(SingleMetric(name, help, prometheus::MetricType::Gauge, value, std::move(labels)));
  };
  gauge("sessa_live", "0 when the watchdog finds the engine dead.", live ? 1 : 0);
  gauge("sessa_ready", "1 when requests are taken.", ready ? 1 : 0);
  const int64_t num_ended =
      ended();  // before received(): a request that comes between them is in flight, not below zero
  gauge("sessa_num_requests_in_flight", "Requests received that have not ended.", received() - num_ended);
  if (byte_budget_ != nullptr) {
    auto counter = [&all](const char* name, const char* help, int64_t value) {
      all.push_back(
          SingleMetric(name, help, prometheus::MetricType::Counter, static_cast<double>(value), {}));
    };
    gauge("sessa_buffered_bytes", "Held for clients: bodies, tokens that wait for a reader, answers.",
          static_cast<double>(byte_budget_->used()));
    gauge("sessa_max_buffered_bytes", "What may be held for clients.",
          static_cast<double>(byte_budget_->max_bytes()));
    counter("sessa_buffered_refused_total", "Times that there was no room for more bytes of a client.",
            byte_budget_->num_refused());
    counter("sessa_buffered_evicted_total",
            "Slow bodies and unread answers that were given up to make room for others.",
            byte_budget_->num_evicted());
  }
  gauge("sessa_build_info", "What this server was built from and with.", 1,
        {{"version", families_->version}, {"compiler", kCompiler}, {"cuda", SESSA_CUDA_VERSION}});
  all.push_back(SingleMetric("sessa_log_lines_dropped_total",
                             "Lines that stderr's reader or disk did not take in time.",
                             prometheus::MetricType::Counter, StderrLog().num_dropped()));
  all.push_back(SuccessFamily());
  AppendConnectionMetrics(connections_, &all);
  if (stats != nullptr) AppendEngineMetrics(*stats, &all);
  AppendTenantMetrics(tenants, &all);
  for (prometheus::MetricFamily& family : all) {
    for (prometheus::ClientMetric& metric : family.metric) {
      metric.label.insert(metric.label.begin(), {"model_name", families_->model_name});
    }
  }
  for (const auto& [name, alias] : kAliases) {
    const auto is_named = [name = name](const auto& family) { return family.name == name; };
    const auto found = std::find_if(all.begin(), all.end(), is_named);
    if (found == all.end()) continue;
    prometheus::MetricFamily copy = *found;
    copy.name = alias;
    copy.help = absl::StrCat("The same as ", name, ".");
    all.push_back(std::move(copy));
  }
  AppendProcessMetrics(&all);
  return prometheus::TextSerializer().Serialize(all);
}

RequestTicket::RequestTicket(Metrics* metrics, absl::string_view protocol)
    : metrics_(metrics), protocol_(protocol) {
  metrics_->OnReceived(protocol);
}
RequestTicket::RequestTicket(RequestTicket&& other) noexcept
    : metrics_(std::exchange(other.metrics_, nullptr)), protocol_(other.protocol_) {}
RequestTicket& RequestTicket::operator=(RequestTicket&& other) noexcept {
  if (this != &other) {
    Finish(Outcome::kError);
    metrics_ = std::exchange(other.metrics_, nullptr);
    protocol_ = other.protocol_;
  }
  return *this;
}
RequestTicket::~RequestTicket() { Finish(Outcome::kError); }

void RequestTicket::Finish(Outcome outcome) { Finish(outcome, kStatuses[static_cast<size_t>(outcome)]); }

void RequestTicket::Finish(Outcome outcome, int http_status) {
  if (Metrics* metrics = std::exchange(metrics_, nullptr)) {
    metrics->OnOutcome(protocol_, outcome, http_status);
  }
}

void RequestTicket::Finish(const absl::Status& error) {
  const int http_status = Describe(error).http_status;
  switch (error.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange: return Finish(Outcome::kInvalid, http_status);
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied: return Finish(Outcome::kUnauthenticated, http_status);
    case absl::StatusCode::kNotFound: return Finish(Outcome::kNotFound, http_status);
    case absl::StatusCode::kResourceExhausted: return Finish(Outcome::kRejected, http_status);
    case absl::StatusCode::kUnavailable: return Finish(Outcome::kUnavailable, http_status);
    case absl::StatusCode::kCancelled: return Finish(Outcome::kCancelled, http_status);
    case absl::StatusCode::kDeadlineExceeded: return Finish(Outcome::kDeadline, http_status);
    default: return Finish(Outcome::kError, http_status);
  }
}

}  // namespace sessa
