// What a run of the load tester remembers, and all that its summaries and reports are made of: one record for
// each request, samples of the server's metrics, and how late the client itself was. Plain data; filled by
// one thread, read when the run is over (a copy of the counters is read while it runs).
//
// Times are seconds since the run's start on the monotonic clock, as double (exact to well below a
// microsecond); NaN: it did not come to that. Tokens are counts.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace sessa::loadtest {

inline constexpr double kNever = std::numeric_limits<double>::quiet_NaN();

// How a request ended, as the client saw it.
enum class Outcome {
  kOk,
  kCancelled,    // by this client, because the work asked for it
  kConnect,      // no connection, or it broke before an answer began
  kBroken,       // the stream broke off, or ended without a finish reason
  kProtocol,     // an answer that is not what the API promises
  kRateLimited,  // 429, RESOURCE_EXHAUSTED
  kUnavailable,  // 503, UNAVAILABLE
  kDeadline,     // 504, DEADLINE_EXCEEDED, or this client's own time limit
  kClientError,  // other 4xx
  kServerError,  // other 5xx, an error event in the stream
};
inline constexpr int kNumOutcomes = 10;

// Something that brought tokens: an SSE event or a gRPC message.
struct TokenEvent {
  double at = kNever;
  int num_tokens = 0;
};

struct RequestRecord {
  int64_t index = 0;
  std::string kind;    // the part of the work that it belongs to ("documents", "probe", ...): summaries are
                       // also made by kind
  std::string tenant;  // the name, never the key
  int64_t conversation = -1;  // multi-turn: which one, and which turn of it
  int turn = 0;
  bool is_probe = false;  // the stall probe's: not part of the load's figures

  int input_tokens = 0;   // asked for
  int output_tokens = 0;  // asked for, at most
  int prompt_tokens = -1, completion_tokens = -1,
      cached_tokens = -1;  // the server's own count; -1: it said none

  double scheduled = kNever;  // when it should have been sent
  double sent = kNever;       // when its first byte was handed to the system
  double headers = kNever;    // the answer began (status line, or the first gRPC message)
  std::vector<TokenEvent> events;
  double ended = kNever;
  double queue_seconds = kNever;  // the server's own word, where it gives one

  Outcome outcome = Outcome::kOk;
  int status = 0;             // HTTP or gRPC code
  std::string finish_reason;  // "stop", "length", ...
  std::string error;          // a sentence; empty when fine
};

// One reading of the server's /metrics: a value for each series, named as in the text format
// ("name{label=\"x\"}").
struct MetricsSample {
  double at = kNever;
  std::map<std::string, double> values;
};

// How much the client itself was behind.
struct ClientHealth {
  double max_send_lag = 0;  // seconds that a request was sent after it was scheduled, open loop
  double p99_send_lag = 0;
  double max_loop_lag = 0;  // seconds that a timer of the client's loop fired late
  double cpu_share = 0;     // CPU seconds of this process over wall seconds
  std::string failure;      // why the run's figures can't be trusted; empty: they can
  double p99_loop_lag = 0;  // of all firings: the worst one may be the system's hiccup
};

struct Run {
  std::string title;                           // one line: what was done
  std::map<std::string, std::string> options;  // every flag that made this run, by name: keys are left out
  std::string server;                          // address and protocol
  std::string model;
  double offered_rate = kNever;               // requests/s asked for; NaN in closed loop
  int num_users = 0;                          // closed loop
  double duration = 0;                        // from the start to the last end
  double warmup = 0, cooldown = 0;            // requests scheduled within these are left out of summaries
  int64_t started_unix_ms = 0;                // wall clock, for people
  std::vector<RequestRecord> requests;        // by index
  std::vector<MetricsSample> server_metrics;  // by time; empty: the server has none
  ClientHealth client;
};

}  // namespace sessa::loadtest
