// What /metrics says of the engine and of this process: families made at each scrape from one snapshot, so
// that nothing is counted twice and no step pays for them. A new figure of EngineStats is one line in the
// table of engine_metrics.cc (and one in docs/metrics.md, which a test holds against this). Called by
// Metrics::Render.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "prometheus/metric_family.h"
#include "server/core/tenants.h"

namespace sessa {

// A family with one sample. Names and help must be fit for the text format; label values may be any UTF-8.
prometheus::MetricFamily SingleMetric(const char* name, const char* help, prometheus::MetricType type,
                                      double value, std::vector<prometheus::ClientMetric::Label> labels = {});

void AppendEngineMetrics(const EngineStats& stats, std::vector<prometheus::MetricFamily>* families);

// sessa_tenant_*, with the label tenant; none without tenants.
void AppendTenantMetrics(const std::vector<TenantUse>& tenants,
                         std::vector<prometheus::MetricFamily>* families);

// process_*, with the names and meanings that Prometheus' own clients use; one that /proc does not tell is
// left out.
void AppendProcessMetrics(std::vector<prometheus::MetricFamily>* families);

}  // namespace sessa
