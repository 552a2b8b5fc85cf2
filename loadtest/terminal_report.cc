// The report as text; see terminal_report.h.
#include "loadtest/terminal_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "loadtest/definitions.h"
#include "loadtest/text.h"

namespace sessa::loadtest {
namespace {

constexpr int kWidth = 100;
constexpr int kNameWidth = 14;

std::string SelfCheck(absl::string_view prefix, const Run& run) {
  if (run.client.failure.empty()) return "";
  return absl::StrCat(
      Wrap(absl::StrCat(prefix, "SELF-CHECK FAILED: "),
           absl::StrCat(Printable(run.client.failure, 1000), ". Do not trust the figures of this run."),
           kWidth),
      "\n\n");
}

std::string Head(const std::vector<RunReport>& runs) {
  const Run& run = *runs.front().run;
  return absl::StrCat(Printable(ReportTitle(runs), kWidth), "\n",
                      Printable(absl::StrCat("  server  ", run.server, ", model ", run.model), kWidth), "\n");
}

std::string Measured(const RunReport& report) {
  const Window& window = report.summary.window;
  return absl::StrFormat(
      "  load    %s\n  window  %.1f s to %.1f s of %.1f s; requests: %d in it, %d outside\n\n",
      LoadText(*report.run), window.begin, window.end, report.run->duration, report.summary.all.num_requests,
      report.summary.num_outside);
}

void AddLatencyRow(const std::string& label, const Distribution& d, TextTable& table) {
  std::vector<std::string> row = {label};
  for (double value : {d.mean, d.p50, d.p90, d.p95, d.p99, d.p999, d.max}) {
    row.push_back(MillisecondsText(value, d.max));
  }
  row.push_back(FigureText(d.count, Unit::kCount));
  table.AddRow(std::move(row));
}

std::string Latencies(const GroupSummary& group, absl::string_view head) {
  TextTable table;
  table.AddRow({std::string(head), "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "count"});
  for (const LatencyDefinition& definition : LatencyDefinitions()) {
    const Distribution& d = group.latency(definition.which);
    if (d.count > 0) AddLatencyRow(definition.label, d, table);
  }
  return table.Render(0, 3);
}

// Label and value pairs, two beside one another.
std::string Pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  TextTable table;
  const size_t rows = (pairs.size() + 1) / 2;
  for (size_t i = 0; i < rows; ++i) {
    std::vector<std::string> row = {pairs[i].first, pairs[i].second};
    if (i + rows < pairs.size()) {
      const auto& [label, value] = pairs[i + rows];
      row.push_back(absl::StrFormat("     %-20s", label));
      row.push_back(value);
    }
    table.AddRow(std::move(row));
  }
  return table.Render(2, 3);
}

std::string Figures(const GroupSummary& group) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const FigureDefinition& definition : FigureDefinitions()) {
    const double value = group.*definition.figure;
    if (!std::isnan(value)) pairs.emplace_back(definition.label, FigureText(value, definition.unit));
  }
  return Pairs(pairs);
}

std::string ServerFigures(const ServerSummary& server) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const ServerFigure& figure : server.figures) {
    if (!std::isnan(figure.value)) pairs.emplace_back(figure.label, FigureText(figure.value, figure.unit));
  }
  return Pairs(pairs);
}

std::string Outcomes(const GroupSummary& group) {
  std::string counts, errors;
  for (const OutcomeDefinition& definition : OutcomeDefinitions()) {
    const int64_t count = group.outcomes[static_cast<int>(definition.which)];
    if (count == 0) continue;
    absl::StrAppend(&counts, counts.empty() ? "" : ", ", definition.key, " ",
                    FigureText(count, Unit::kCount));
    const std::string& error = group.errors[static_cast<int>(definition.which)];
    if (error.empty()) continue;
    absl::StrAppend(&errors, Printable(absl::StrCat("  ", definition.key, ": ", error), kWidth), "\n");
  }
  return absl::StrCat(Wrap("Outcomes: ", counts, kWidth), "\n", errors);
}

std::string WorstGap(const GroupSummary& group) {
  if (std::isnan(group.worst_gap.seconds)) return "";
  return absl::StrFormat("Worst gap: %s, at %.2f s, in request %d\n",
                         FigureText(group.worst_gap.seconds, Unit::kSeconds), group.worst_gap.at,
                         group.worst_gap.request);
}

// A row each; the columns that tell groups, or the rates of a sweep, apart.
std::vector<std::string> GroupHead(absl::string_view first) {
  return {std::string(first), "requests", "failed",  "req/s", "tok/s",
          "TTFT p50",         "p99",      "ITL p50", "p99",   "E2E p99"};
}

std::vector<std::string> GroupRow(absl::string_view first, const GroupSummary& group) {
  std::vector<std::string> row = {Printable(first, kNameWidth), FigureText(group.num_requests, Unit::kCount),
                                  FigureText(group.error_share, Unit::kShare),
                                  FigureText(group.requests_per_second, Unit::kRequestsPerSecond),
                                  FigureText(group.output_tokens_per_second, Unit::kTokensPerSecond)};
  for (Latency which : {Latency::kTtft, Latency::kItl, Latency::kE2e}) {
    const Distribution& d = group.latency(which);
    if (which != Latency::kE2e) row.push_back(MillisecondsText(d.p50, d.p99));
    row.push_back(MillisecondsText(d.p99, d.p99));
  }
  return row;
}

std::string Groups(absl::string_view head, const std::vector<GroupSummary>& groups) {
  if (groups.empty()) return "";
  TextTable table;
  table.AddRow(GroupHead(head));
  for (const GroupSummary& group : groups)
    table.AddRow(GroupRow(group.name.empty() ? "(none)" : group.name, group));
  return absl::StrCat("\n", table.Render(0, 2));
}

std::string Client(const ClientHealth& client) {
  auto text = [](double seconds) { return FigureText(seconds, Unit::kSeconds); };
  return absl::StrFormat("Client's lag at p99 and at most: sends %s, %s; loop %s, %s; CPU %.2f cores\n",
                         text(client.p99_send_lag), text(client.max_send_lag), text(client.p99_loop_lag),
                         text(client.max_loop_lag), client.cpu_share);
}

std::string OneRun(const RunReport& report, const Slo& slo) {
  const Summary& summary = report.summary;
  std::string out =
      absl::StrCat(Measured(report), SelfCheck("", *report.run), Latencies(summary.all, "Latency, ms"), "\n");
  if (slo.IsSet()) absl::StrAppend(&out, "Objectives (SLO): ", SloText(slo), "\n");
  absl::StrAppend(&out, Figures(summary.all), Outcomes(summary.all), WorstGap(summary.all),
                  Client(report.run->client));
  absl::StrAppend(&out, Groups("Kind", summary.kinds), Groups("Tenant", summary.tenants));
  if (summary.probes.num_requests > 0) {
    absl::StrAppend(&out, "\n", Latencies(summary.probes, "Probe, ms"), Outcomes(summary.probes));
  }
  if (report.server.num_samples > 0) {
    absl::StrAppend(&out, "\nThe server's own metrics, ", report.server.num_samples, " samples\n",
                    ServerFigures(report.server));
  }
  return out;
}

std::string Sweep(const std::vector<RunReport>& runs, const Slo& slo) {
  std::string out;
  if (slo.IsSet()) absl::StrAppend(&out, "  SLO     ", SloText(slo), "\n");
  TextTable table;
  std::vector<std::string> head = GroupHead("Load");
  head[1] = "good";  // of the requests; how many there were says little of a rate
  table.AddRow(head);
  std::string failures;
  for (const RunReport& report : runs) {
    const bool failed = !report.run->client.failure.empty();
    std::vector<std::string> row = GroupRow(LoadText(*report.run) + (failed ? " !" : ""), report.summary.all);
    row[1] = FigureText(report.summary.all.good_share, Unit::kShare);
    table.AddRow(row);
    if (failed)
      absl::StrAppend(&failures, "\n",
                      SelfCheck(absl::StrCat("! ", LoadText(*report.run), ": "), *report.run));
  }
  return absl::StrCat(out, "\n", table.Render(0, 2), "Latencies in ms.\n", failures);
}

// What each figure that was shown means.
std::string Meanings(const std::vector<RunReport>& runs) {
  std::string out = "What the figures mean\n";
  auto add = [&](const char* label, const char* meaning) {
    absl::StrAppend(&out, Wrap(absl::StrFormat("  %-20s  ", label), meaning, kWidth), "\n");
  };
  auto any = [&](auto has) { return std::any_of(runs.begin(), runs.end(), has); };
  for (const TermDefinition& definition : TermDefinitions()) add(definition.label, definition.meaning);
  for (const LatencyDefinition& d : LatencyDefinitions()) {
    if (any([&](const RunReport& report) { return report.summary.all.latency(d.which).count > 0; })) {
      add(d.label, d.meaning);
    }
  }
  for (const FigureDefinition& d : FigureDefinitions()) {
    if (any([&](const RunReport& report) { return !std::isnan(report.summary.all.*d.figure); })) {
      add(d.label, d.meaning);
    }
  }
  for (const OutcomeDefinition& d : OutcomeDefinitions()) {
    if (any([&](const RunReport& r) { return r.summary.all.outcomes[static_cast<int>(d.which)] > 0; })) {
      add(d.key, d.meaning);
    }
  }
  if (runs.size() > 1) return out;
  for (const ServerFigure& figure : runs.front().server.figures) {
    if (!std::isnan(figure.value)) add(figure.label, figure.meaning);
  }
  return out;
}

}  // namespace

std::string TerminalReport(const std::vector<RunReport>& runs, const Slo& slo) {
  if (runs.empty()) return "Nothing was run.\n";
  // The meanings come first: what was asked for is to be the last on the screen.
  return absl::StrCat(Meanings(runs), "\n", Head(runs),
                      runs.size() == 1 ? OneRun(runs.front(), slo) : Sweep(runs, slo));
}

}  // namespace sessa::loadtest
