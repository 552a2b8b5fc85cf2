// What the figures mean; see definitions.h.
#include "loadtest/definitions.h"

namespace sessa::loadtest {
namespace {

constexpr LatencyDefinition kLatencies[kNumLatencies] = {
    {Latency::kTtft, "ttft", "TTFT",
     "Time to first token: from the scheduled time to the first event that brought a token, of requests that "
     "came so "
     "far."},
    {Latency::kTtftFromSend, "ttft_from_send", "TTFT from send",
     "The same from the moment the request was sent: without the client's own lag."},
    {Latency::kTpot, "tpot", "TPOT",
     "Time per output token: (last token - first token) / (tokens - 1), of requests that finished and had "
     "more than one "
     "event."},
    {Latency::kItl, "itl", "ITL",
     "Inter-token latency: every gap between two events that brought tokens; an event with several tokens "
     "ends one gap."},
    {Latency::kE2e, "e2e", "E2E",
     "From the scheduled time to the end of the answer, of requests that finished."},
    {Latency::kE2eFromSend, "e2e_from_send", "E2E from send",
     "The same from the moment the request was sent."},
    {Latency::kQueue, "queue", "Queue time",
     "How long the request waited for its first step, by the server's own word."},
    {Latency::kSendLag, "send_lag", "Send lag", "How much later than scheduled the client sent the request."},
};

constexpr FigureDefinition kFigures[] = {
    {&GroupSummary::requests_per_second, "requests_per_second", "Requests/s", Unit::kRequestsPerSecond,
     "Requests that finished in the window over its length."},
    {&GroupSummary::goodput, "goodput", "Goodput", Unit::kRequestsPerSecond,
     "Requests that finished in the window and kept every objective, over its length."},
    {&GroupSummary::good_share, "good_share", "Kept the SLO", Unit::kShare,
     "Requests that kept every objective over all that were not cancelled on purpose; one that failed kept "
     "none."},
    {&GroupSummary::error_share, "error_share", "Failed", Unit::kShare,
     "Requests that neither finished nor were cancelled on purpose, over all."},
    {&GroupSummary::output_tokens_per_second, "output_tokens_per_second", "Output tokens/s",
     Unit::kTokensPerSecond,
     "Tokens that came in the window over its length; the server's count where it gives one."},
    {&GroupSummary::input_tokens_per_second, "input_tokens_per_second", "Input tokens/s",
     Unit::kTokensPerSecond,
     "Prompt tokens of requests whose first token came in the window, over its length."},
    {&GroupSummary::output_tokens, "output_tokens", "Output tokens", Unit::kTokens,
     "Tokens of the requests scheduled in the window."},
    {&GroupSummary::input_tokens, "input_tokens", "Input tokens", Unit::kTokens,
     "Prompt tokens of the requests scheduled in the window."},
    {&GroupSummary::cached_tokens, "cached_tokens", "Cached tokens", Unit::kTokens,
     "Prompt tokens that the server says it had in its prefix cache."},
    {&GroupSummary::cached_share, "cached_share", "Cached share", Unit::kShare,
     "Cached tokens over the prompt tokens of the requests for which the server says so."},
    {&GroupSummary::mean_concurrency, "mean_concurrency", "Mean concurrency", Unit::kRequests,
     "Requests in flight, from sent to ended, averaged over the window."},
    {&GroupSummary::max_concurrency, "max_concurrency", "Max concurrency", Unit::kRequests,
     "The most requests in flight at once in the window."},
    {&GroupSummary::multi_token_share, "multi_token_share", "Multi-token events", Unit::kShare,
     "Events that brought more than one token, over all that brought any: where it is not 0, ITL is of "
     "events, and TPOT "
     "tells of tokens."},
};

constexpr OutcomeDefinition kOutcomes[kNumOutcomes] = {
    {Outcome::kOk, "ok", "It finished, with a finish reason."},
    {Outcome::kCancelled, "cancelled", "Cancelled by the client because the work asked for it."},
    {Outcome::kConnect, "connect", "No connection, or it broke before an answer began."},
    {Outcome::kBroken, "broken", "The answer broke off, or ended without a finish reason."},
    {Outcome::kProtocol, "protocol", "An answer that is not what the API promises."},
    {Outcome::kRateLimited, "rate_limited", "Refused for its rate: HTTP 429 or RESOURCE_EXHAUSTED."},
    {Outcome::kUnavailable, "unavailable", "Refused for the server's state: HTTP 503 or UNAVAILABLE."},
    {Outcome::kDeadline, "deadline", "Too late: HTTP 504, DEADLINE_EXCEEDED or the client's own time limit."},
    {Outcome::kClientError, "client_error", "Another HTTP 4xx, or its gRPC code."},
    {Outcome::kServerError, "server_error",
     "Another HTTP 5xx, its gRPC code, or an error event in the answer."},
};

constexpr TermDefinition kTerms[] = {
    {"window", "Window",
     "What is summarised: from the warm-up's end to the last scheduled time less the cool-down; without a "
     "cool-down to the "
     "end of the run."},
    {"scheduled", "Scheduled time",
     "When the load asked for the request to be sent; latencies from it include what a slow client would "
     "hide."},
    {"percentile", "Percentiles",
     "Exact, from all values, linear between the two neighbouring ranks: position q (n - 1) of n sorted "
     "values."},
    {"worst_gap", "Worst gap", "The longest inter-token latency of any request, and when it ended."},
    {"probe", "Probe",
     "Short requests beside the load that show how long others are kept waiting; not part of its figures."},
    {"self_check", "Self-check",
     "The client watches itself: when it was late enough to distort what it measured, the run has failed and "
     "says why."},
};

}  // namespace

absl::Span<const LatencyDefinition> LatencyDefinitions() { return kLatencies; }
absl::Span<const FigureDefinition> FigureDefinitions() { return kFigures; }
absl::Span<const OutcomeDefinition> OutcomeDefinitions() { return kOutcomes; }
absl::Span<const TermDefinition> TermDefinitions() { return kTerms; }

absl::string_view OutcomeName(Outcome outcome) { return kOutcomes[static_cast<int>(outcome)].key; }

}  // namespace sessa::loadtest
