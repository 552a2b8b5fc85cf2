// The report as JSON; see json_report.h.
#include "loadtest/json_report.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "loadtest/definitions.h"
#include "loadtest/text.h"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;

const char* UnitName(Unit unit) {
  switch (unit) {
    case Unit::kSeconds: return "s";
    case Unit::kRequestsPerSecond: return "requests/s";
    case Unit::kTokensPerSecond: return "tokens/s";
    case Unit::kRequests: return "requests";
    case Unit::kTokens: return "tokens";
    case Unit::kShare: return "share";
    case Unit::kCount: return "count";
  }
  return "";
}

json::object ToJson(const Distribution& d) {
  return {{"count", d.count},           {"mean", JsonNumber(d.mean)}, {"p50", JsonNumber(d.p50)},
          {"p90", JsonNumber(d.p90)},   {"p95", JsonNumber(d.p95)},   {"p99", JsonNumber(d.p99)},
          {"p999", JsonNumber(d.p999)}, {"max", JsonNumber(d.max)}};
}

json::object ToJson(const GroupSummary& group) {
  json::object out;
  out["name"] = group.name;
  out["requests"] = group.num_requests;
  json::object& outcomes = out["outcomes"].emplace_object();
  for (const OutcomeDefinition& d : OutcomeDefinitions()) {
    outcomes[d.key] = group.outcomes[static_cast<int>(d.which)];
  }
  json::object& errors = out["errors"].emplace_object();
  for (const OutcomeDefinition& d : OutcomeDefinitions()) {
    const std::string& error = group.errors[static_cast<int>(d.which)];
    if (!error.empty()) errors[d.key] = error;
  }
  json::object& latencies = out["latencies"].emplace_object();
  for (const LatencyDefinition& d : LatencyDefinitions()) latencies[d.key] = ToJson(group.latency(d.which));
  out["worst_gap"] = nullptr;
  if (!std::isnan(group.worst_gap.seconds)) {
    out["worst_gap"] = {{"seconds", group.worst_gap.seconds},
                        {"at", group.worst_gap.at},
                        {"request", group.worst_gap.request}};
  }
  json::object& figures = out["figures"].emplace_object();
  for (const FigureDefinition& d : FigureDefinitions()) figures[d.key] = JsonNumber(group.*d.figure);
  return out;
}

json::array ToJson(const std::vector<GroupSummary>& groups) {
  json::array out;
  for (const GroupSummary& group : groups) out.push_back(ToJson(group));
  return out;
}

json::value ToJson(const ServerSummary& server) {
  if (server.num_samples == 0) return nullptr;
  json::object figures;
  for (const ServerFigure& figure : server.figures) figures[figure.key] = JsonNumber(figure.value);
  return {{"samples", server.num_samples}, {"figures", std::move(figures)}};
}

json::object ToJson(const RunReport& report) {
  const Run& run = *report.run;
  json::object out;
  out["title"] = run.title;
  out["server"] = run.server;
  out["model"] = run.model;
  json::object& options = out["options"].emplace_object();
  for (const auto& [name, value] : run.options) options[name] = value;
  out["started"] =
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixMillis(run.started_unix_ms), absl::UTCTimeZone());
  out["offered_rate"] = JsonNumber(run.offered_rate);
  out["users"] = std::isnan(run.offered_rate) ? json::value(run.num_users) : json::value(nullptr);
  out["duration"] = JsonNumber(run.duration);
  out["warmup"] = JsonNumber(run.warmup);
  out["cooldown"] = JsonNumber(run.cooldown);
  const ClientHealth& client = run.client;
  out["self_check"] = {{"ok", client.failure.empty()},
                       {"failure", client.failure},
                       {"p99_send_lag", JsonNumber(client.p99_send_lag)},
                       {"max_send_lag", JsonNumber(client.max_send_lag)},
                       {"p99_loop_lag", JsonNumber(client.p99_loop_lag)},
                       {"max_loop_lag", JsonNumber(client.max_loop_lag)},
                       {"cpu_share", JsonNumber(client.cpu_share)}};
  const Summary& summary = report.summary;
  out["window"] = {{"begin", JsonNumber(summary.window.begin)},
                   {"end", JsonNumber(summary.window.end)},
                   {"requests_outside", summary.num_outside}};
  out["all"] = ToJson(summary.all);
  out["kinds"] = ToJson(summary.kinds);
  out["tenants"] = ToJson(summary.tenants);
  out["probes"] =
      summary.probes.num_requests > 0 ? json::value(ToJson(summary.probes)) : json::value(nullptr);
  out["server_metrics"] = ToJson(report.server);
  return out;
}

// Arrays, so that who shows them keeps their order.
json::object Definitions(const std::vector<RunReport>& runs) {
  json::array terms, latencies, figures, outcomes, server;
  for (const TermDefinition& d : TermDefinitions()) {
    terms.push_back({{"key", d.key}, {"label", d.label}, {"meaning", d.meaning}});
  }
  for (const LatencyDefinition& d : LatencyDefinitions()) {
    latencies.push_back({{"key", d.key}, {"label", d.label}, {"unit", "s"}, {"meaning", d.meaning}});
  }
  for (const FigureDefinition& d : FigureDefinitions()) {
    figures.push_back(
        {{"key", d.key}, {"label", d.label}, {"unit", UnitName(d.unit)}, {"meaning", d.meaning}});
  }
  for (const OutcomeDefinition& d : OutcomeDefinitions()) {
    outcomes.push_back({{"key", d.key}, {"meaning", d.meaning}});
  }
  for (const RunReport& report : runs) {
    if (!server.empty()) break;
    for (const ServerFigure& f : report.server.figures) {
      server.push_back(
          {{"key", f.key}, {"label", f.label}, {"unit", UnitName(f.unit)}, {"meaning", f.meaning}});
    }
  }
  return {{"terms", std::move(terms)},
          {"latencies", std::move(latencies)},
          {"figures", std::move(figures)},
          {"outcomes", std::move(outcomes)},
          {"server_metrics", std::move(server)}};
}

void Print(const json::value& value, int indent, int depth, std::string& out) {
  const std::string line = absl::StrCat("\n", std::string(indent * (depth + 1), ' '));
  const std::string last = absl::StrCat("\n", std::string(indent * depth, ' '));
  if (value.is_object() && !value.get_object().empty()) {
    const char* separator = "{";
    for (const auto& [key, member] : value.get_object()) {
      absl::StrAppend(&out, separator, line, json::serialize(key), ": ");
      Print(member, indent, depth + 1, out);
      separator = ",";
    }
    absl::StrAppend(&out, last, "}");
  } else if (value.is_array() && !value.get_array().empty()) {
    const char* separator = "[";
    for (const json::value& element : value.get_array()) {
      absl::StrAppend(&out, separator, line);
      Print(element, indent, depth + 1, out);
      separator = ",";
    }
    absl::StrAppend(&out, last, "]");
  } else if (value.is_double()) {
    absl::StrAppendFormat(&out, "%.9g", value.get_double());  // Boost writes 0.25 as 2.5E-1
  } else {
    out += json::serialize(value);
  }
}

}  // namespace

json::value JsonNumber(double value) {
  return std::isfinite(value) ? json::value(value) : json::value(nullptr);
}

json::object JsonReport(const std::vector<RunReport>& runs, const Slo& slo) {
  json::object root;
  root["schema"] = "sessa-loadtest";
  root["version"] = kJsonVersion;
  root["title"] = runs.empty() ? "" : ReportTitle(runs);
  root["slo"] = SloText(slo);
  json::array& list = root["runs"].emplace_array();
  for (const RunReport& report : runs) list.push_back(ToJson(report));
  root["definitions"] = Definitions(runs);
  return root;
}

std::string PrettyJson(const json::value& value, int indent) {
  std::string out;
  Print(value, indent, 0, out);
  return out + "\n";
}

}  // namespace sessa::loadtest
