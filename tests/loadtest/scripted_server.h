// An OpenAI-compatible server without a model, for tests of the load tester: what it answers, and when, is
// said by a script, and it remembers by the monotonic clock when each request came and when each event was
// handed to the socket. A test compares what the load tester says with what was.
//
// One thread with one timer queue serves all connections, so thousands of streams may be open. Every event is
// a write of its own. Times that the script asks for are never undercut; a late event (the record says so)
// does not delay those after it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sessa::loadtest {

using SteadyTime = std::chrono::steady_clock::time_point;
using Delay = std::chrono::nanoseconds;

// How one request is answered.
struct ScriptedAnswer {
  int status = 200;              // else an error object follows the headers, and nothing more
  std::string retry_after = {};  // the header's value; empty: no such header

  // A stream's token k (from 0) is due to_headers + to_first_token + (k / tokens_per_event) × between_events
  // after the request's last byte, and `stall` later from token `stall_at` on. A whole answer is due with its
  // last token.
  Delay to_headers{0};
  Delay to_first_token{0};
  Delay between_events{0};
  int stall_at = -1;
  Delay stall{0};

  int num_tokens = 0;  // 0: as many as the request's max_tokens
  int tokens_per_event = 1;
  int cached_tokens = 0;                 // in the usage
  std::string finish_reason = "length";  // empty: none is ever said
  int break_after = -1;                  // the connection is closed after so many tokens
  std::string end_with = {};  // sent as an event's data in place of finish reason, usage and [DONE]: an error
                              // object, or what is no JSON
};

struct SentEvent {
  SteadyTime at;  // just before it was handed to the socket
  int num_tokens = 0;
};

// One POST, in order of arrival.
struct ServedRequest {
  int64_t index = 0;
  std::string path;
  std::string authorization;  // the header's value
  std::string body;           // empty when the server keeps none
  bool stream = false;
  int prompt_tokens = 0;  // ids, or words of a text
  int max_tokens = 0;

  SteadyTime head_received;  // its header was read
  SteadyTime received;       // its last byte was read
  SteadyTime headers_sent;   // the epoch while they were not
  std::vector<SentEvent> events;
  SteadyTime ended;  // nothing more was sent; the epoch while it goes on
  int status = 0;
  bool client_left = false;  // it closed the connection before the end
};

struct ScriptedServerOptions {
  std::function<ScriptedAnswer(const ServedRequest&)> script = nullptr;  // called on the server's thread
  std::string model = "scripted";
  int vocab_size = 1000;
  int max_model_len = 1 << 20;
  bool takes_token_ids = true;                     // false: a prompt of ids is answered 400
  std::string limits = {};                         // body of /v1/limits; empty: 404
  std::function<std::string()> metrics = nullptr;  // body of /metrics, on the server's thread; empty: 404
  bool keep_bodies = true;
};

// Thread-safe.
class ScriptedServer {
 public:
  explicit ScriptedServer(ScriptedServerOptions options);
  ~ScriptedServer();  // closes all connections

  int port() const;  // on 127.0.0.1
  std::vector<ServedRequest> Requests() const;
  int num_open_connections() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sessa::loadtest
