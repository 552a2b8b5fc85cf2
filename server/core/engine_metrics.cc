// See engine_metrics.h.
#include "server/core/engine_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"

namespace sessa {
namespace {

using prometheus::MetricType;

struct EngineMetric {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const EngineStats&);
};

// How long the engine's loop has not turned though there is work; 0 while it sleeps idle.
double LoopAgeSeconds(const EngineStats& stats) {
  if (stats.num_running + stats.num_waiting == 0) return 0;
  return std::max(0.0, absl::ToDoubleSeconds(MonotonicNow() - stats.heartbeat));
}

constexpr MetricType kGauge = MetricType::Gauge, kCounter = MetricType::Counter;

const EngineMetric kEngineMetrics[] = {
    {"sessa_num_requests_running", "Sequences that run.", kGauge,
     [](const EngineStats& s) -> double { return s.num_running; }},
    {"sessa_num_requests_waiting", "Sequences that wait.", kGauge,
     [](const EngineStats& s) -> double { return s.num_waiting; }},
    {"sessa_num_tokens_waiting", "Prompt tokens that wait.", kGauge,
     [](const EngineStats& s) -> double { return s.waiting_tokens; }},
    {"sessa_state_cache_usage_ratio",
     "Used pages of the state cache over all, or slots where fewer are left.", kGauge,
     [](const EngineStats& s) -> double { return s.state_cache_usage(); }},
    {"sessa_state_slots", "Slots of recurrent state; 0: the model keeps none.", kGauge,
     [](const EngineStats& s) -> double { return s.num_slots; }},
    {"sessa_state_slots_used", "Slots that running sequences hold.", kGauge,
     [](const EngineStats& s) -> double { return s.num_used_slots; }},
    {"sessa_state_snapshots", "Slots that hold the state after a prefix, from which prompts may start.",
     kGauge, [](const EngineStats& s) -> double { return s.num_snapshots; }},
    {"sessa_prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", kCounter,
     [](const EngineStats& s) -> double { return s.prefix_cache_queries; }},
    {"sessa_prefix_cache_hits_total", "Prompt tokens found in the prefix cache, and not computed.", kCounter,
     [](const EngineStats& s) -> double { return s.prefix_cache_hits; }},
    {"sessa_num_preemptions_total", "Sequences preempted.", kCounter,
     [](const EngineStats& s) -> double { return s.num_preemptions; }},
    {"sessa_recomputed_tokens_total", "Tokens computed again after preemption.", kCounter,
     [](const EngineStats& s) -> double { return s.num_recomputed_tokens; }},
    {"sessa_prompt_tokens_total", "Prompt tokens of the requests taken.", kCounter,
     [](const EngineStats& s) -> double { return s.prompt_tokens; }},
    {"sessa_generation_tokens_total", "Tokens generated.", kCounter,
     [](const EngineStats& s) -> double { return s.generation_tokens; }},
    {"sessa_spec_decode_num_drafts_total", "Decodes that brought drafts into a step.", kCounter,
     [](const EngineStats& s) -> double { return s.num_drafts; }},
    {"sessa_spec_decode_num_draft_tokens_total", "Tokens drafted.", kCounter,
     [](const EngineStats& s) -> double { return s.draft_tokens; }},
    {"sessa_spec_decode_num_accepted_tokens_total", "Drafted tokens that were right.", kCounter,
     [](const EngineStats& s) -> double { return s.accepted_draft_tokens; }},
    {"sessa_shared_read_tokens_total",
     "Tokens of state that were not read again, as one read of a step served several sequences.", kCounter,
     [](const EngineStats& s) -> double { return s.num_shared_reads; }},
    {"sessa_steps_total", "Engine steps.", kCounter,
     [](const EngineStats& s) -> double { return s.num_steps; }},
    {"sessa_engine_healthy", "0 after a device fault.", kGauge,
     [](const EngineStats& s) -> double { return s.health.ok() ? 1 : 0; }},
    {"sessa_engine_loop_age_seconds", "Since the engine's loop last turned; 0 while it has no work.", kGauge,
     LoopAgeSeconds},
};

}  // namespace

prometheus::MetricFamily SingleMetric(const char* name, const char* help, MetricType type, double value,
                                      std::vector<prometheus::ClientMetric::Label> labels) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  (type == kCounter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(std::move(metric));
  return family;
}

void AppendEngineMetrics(const EngineStats& stats, std::vector<prometheus::MetricFamily>* families) {
  for (const EngineMetric& metric : kEngineMetrics) {
    families->push_back(SingleMetric(metric.name, metric.help, metric.type, metric.value(stats)));
  }
  const std::string num_pages = absl::StrCat(stats.num_pages), page_size = absl::StrCat(stats.page_size);
  families->push_back(SingleMetric(
      "sessa_state_cache_info", "Shape of the state cache, under its own names and under vLLM's.", kGauge, 1,
      {{"block_size", page_size},
       {"num_gpu_blocks", num_pages},
       {"num_pages", num_pages},
       {"page_size", page_size}}));
}

}  // namespace sessa
