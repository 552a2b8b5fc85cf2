// What /metrics says of connections; see engine_metrics.h.
#include "server/core/engine_metrics.h"
#include "server/net/connection_stats.h"

namespace sessa {
namespace {

using Labels = std::vector<prometheus::ClientMetric::Label>;

prometheus::MetricFamily Family(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void Add(prometheus::MetricFamily* family, Labels labels, int64_t value) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  // One of the two is read, by the family's type.
  metric.counter.value = metric.gauge.value = static_cast<double>(value);
}

}  // namespace

void AppendConnectionMetrics(const ConnectionStats& stats, std::vector<prometheus::MetricFamily>* families) {
  using prometheus::MetricType;
  auto open = Family("sessa_connections", "Open connections, by listener.", MetricType::Gauge);
  auto accepted =
      Family("sessa_connections_accepted_total", "Connections taken, by listener.", MetricType::Counter);
  auto refused = Family("sessa_connections_refused_total",
                        "Connections closed as they came, by listener and reason.", MetricType::Counter);
  auto cut = Family("sessa_connections_cut_total",
                    "Connections that the server closed for what the client did or left undone, by reason.",
                    MetricType::Counter);
  auto reloads = Family("sessa_tls_reloads_total", "Times that the TLS files were read again, by outcome.",
                        MetricType::Counter);
  for (int i = 0; i < kNumListeners; ++i) {
    const Listener listener = static_cast<Listener>(i);
    const std::string name(Name(listener));
    Add(&open, {{"listener", name}}, stats.open(listener));
    Add(&accepted, {{"listener", name}}, stats.accepted(listener));
    for (int r = 0; r < kNumRefusals; ++r) {
      const Refusal reason = static_cast<Refusal>(r);
      Add(&refused, {{"listener", name}, {"reason", std::string(Name(reason))}},
          stats.refused(listener, reason));
    }
    for (int c = 0; c < kNumCuts; ++c) {
      const Cut reason = static_cast<Cut>(c);
      // HTTP/1.1 connections are evicted only, and those of gRPC are cut for all else.
      if ((reason == Cut::kEvicted) == (listener == Listener::kGrpc)) continue;
      Add(&cut, {{"listener", name}, {"reason", std::string(Name(reason))}}, stats.cut(listener, reason));
    }
  }
  Add(&reloads, {{"outcome", "success"}}, stats.tls_reloads(true));
  Add(&reloads, {{"outcome", "failure"}}, stats.tls_reloads(false));
  for (auto* family : {&open, &accepted, &refused, &cut, &reloads}) families->push_back(std::move(*family));
}

}  // namespace sessa
