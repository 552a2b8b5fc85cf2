// Requests as CSV; see csv_report.h.
#include "loadtest/csv_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "loadtest/definitions.h"

namespace sessa::loadtest {
namespace {

constexpr char kHead[] =
    "run,index,kind,tenant,probe,conversation,turn,in_window,input_tokens_asked,output_tokens_asked,prompt_"
    "tokens,"
    "completion_tokens,cached_tokens,events,scheduled,sent,headers,ended,ttft,ttft_from_send,tpot,longest_"
    "gap,e2e,"
    "e2e_from_send,queue,outcome,status,finish_reason,error\r\n";

std::string Text(absl::string_view text) {
  if (text.find_first_of(",\"\r\n") == absl::string_view::npos) return std::string(text);
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

// Empty where it did not come to that.
std::string Seconds(double value) { return std::isnan(value) ? "" : absl::StrFormat("%.6f", value); }
std::string Count(int64_t value) { return value < 0 ? "" : absl::StrCat(value); }

void AddRequest(size_t run, const RequestRecord& r, const Window& window, std::string& out) {
  double longest_gap = kNever;
  ForEachGap(r, [&](const Gap& gap) {
    if (!(gap.seconds <= longest_gap)) longest_gap = gap.seconds;
  });
  absl::StrAppend(&out, run, ",", r.index, ",", Text(r.kind), ",", Text(r.tenant), ",", r.is_probe ? 1 : 0,
                  ",");
  absl::StrAppend(&out, Count(r.conversation), ",", r.turn, ",", window.Has(r.scheduled) ? 1 : 0, ",",
                  r.input_tokens, ",");
  absl::StrAppend(&out, r.output_tokens, ",", Count(r.prompt_tokens), ",", Count(r.completion_tokens), ",",
                  Count(r.cached_tokens), ",", r.events.size(), ",");
  for (double at : {r.scheduled, r.sent, r.headers, r.ended}) absl::StrAppend(&out, Seconds(at), ",");
  for (Latency which : {Latency::kTtft, Latency::kTtftFromSend, Latency::kTpot}) {
    absl::StrAppend(&out, Seconds(LatencyOf(r, which)), ",");
  }
  absl::StrAppend(&out, Seconds(longest_gap), ",", Seconds(LatencyOf(r, Latency::kE2e)), ",",
                  Seconds(LatencyOf(r, Latency::kE2eFromSend)), ",", Seconds(r.queue_seconds), ",");
  absl::StrAppend(&out, OutcomeName(r.outcome), ",", r.status, ",", Text(r.finish_reason), ",", Text(r.error),
                  "\r\n");
}

}  // namespace

std::string CsvReport(const std::vector<RunReport>& runs) {
  std::string out = kHead;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const RequestRecord& request : runs[i].run->requests) {
      AddRequest(i, request, runs[i].summary.window, out);
    }
  }
  return out;
}

}  // namespace sessa::loadtest
