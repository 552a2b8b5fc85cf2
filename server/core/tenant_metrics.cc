// What /metrics says of each tenant; see engine_metrics.h.
#include "server/core/engine_metrics.h"

namespace sessa {
namespace {

using prometheus::MetricType;

struct TenantMetric {
  const char* name;
  const char* help;
  MetricType type;
  const char *label, *value;  // a second label, null: none
  int64_t TenantUse::*count;
};

constexpr TenantMetric kMetrics[] = {
    {"sessa_tenant_requests_total", "Requests of a tenant that ran and have ended.", MetricType::Counter,
     nullptr, nullptr, &TenantUse::requests},
    {"sessa_tenant_tokens_total", "Tokens of those requests.", MetricType::Counter, "kind", "prompt",
     &TenantUse::prompt_tokens},
    {"sessa_tenant_tokens_total", "", MetricType::Counter, "kind", "generation",
     &TenantUse::generation_tokens},
    {"sessa_tenant_refused_total", "Requests refused with 429, by the tenant's limit that was reached.",
     MetricType::Counter, "limit", "rate", &TenantUse::over_rate},
    {"sessa_tenant_refused_total", "", MetricType::Counter, "limit", "tokens", &TenantUse::over_tokens},
    {"sessa_tenant_refused_total", "", MetricType::Counter, "limit", "max_requests",
     &TenantUse::over_requests},
};

}  // namespace

void AppendTenantMetrics(const std::vector<TenantUse>& tenants,
                         std::vector<prometheus::MetricFamily>* families) {
  if (tenants.empty()) return;
  const auto family_of = [families](const char* name, const char* help, MetricType type) {
    if (families->empty() || families->back().name != name) {  // rows of one family stand together
      prometheus::MetricFamily& added = families->emplace_back();
      added.name = name;
      added.help = help;
      added.type = type;
    }
    return &families->back();
  };
  prometheus::MetricFamily* running =
      family_of("sessa_tenant_requests_running", "Requests of a tenant that run or wait.", MetricType::Gauge);
  for (const TenantUse& tenant : tenants) {
    prometheus::ClientMetric& sample = running->metric.emplace_back();
    sample.label = {{"tenant", tenant.label}};
    sample.gauge.value = tenant.running;
  }
  for (const TenantMetric& m : kMetrics) {
    prometheus::MetricFamily* family = family_of(m.name, m.help, m.type);
    for (const TenantUse& tenant : tenants) {
      prometheus::ClientMetric& sample = family->metric.emplace_back();
      sample.label = {{"tenant", tenant.label}};
      if (m.label != nullptr) sample.label.push_back({m.label, m.value});
      sample.counter.value = static_cast<double>(tenant.*m.count);
    }
  }
}

}  // namespace sessa
