// The scripted server as a program, to show what any load tester makes of delays that are known: every
// request is answered alike. It prints "ready http=HOST:PORT", and when its standard input ends, what it did,
// as JSON:
// [{"received": s, "prompt_tokens": n, "client_left": b, "ended": s, "events": [[s, tokens], ...]}, ...] with
// seconds since its start.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "tests/loadtest/scripted_server.h"

ABSL_FLAG(double, first_token_ms, 50, "from a request's last byte to its first token");
ABSL_FLAG(double, between_events_ms, 10, "from one event to the next");
ABSL_FLAG(int, tokens_per_event, 1, "");
ABSL_FLAG(int, stall_at, -1, "the token that comes late; -1: none");
ABSL_FLAG(double, stall_ms, 0, "by how much");

namespace {

sessa::loadtest::Delay Milliseconds(double ms) {
  return std::chrono::duration_cast<sessa::loadtest::Delay>(std::chrono::duration<double, std::milli>(ms));
}

}  // namespace

int main(int argc, char** argv) {
  using sessa::loadtest::ServedRequest;
  absl::SetProgramUsageMessage("answers every completion by the same script");
  absl::ParseCommandLine(argc, argv);
  sessa::loadtest::ScriptedAnswer script;
  script.to_first_token = Milliseconds(absl::GetFlag(FLAGS_first_token_ms));
  script.between_events = Milliseconds(absl::GetFlag(FLAGS_between_events_ms));
  script.tokens_per_event = absl::GetFlag(FLAGS_tokens_per_event);
  script.stall_at = absl::GetFlag(FLAGS_stall_at);
  script.stall = Milliseconds(absl::GetFlag(FLAGS_stall_ms));
  sessa::loadtest::ScriptedServerOptions options;
  options.script = [&script](const ServedRequest&) { return script; };
  options.keep_bodies = false;
  const sessa::loadtest::SteadyTime start = std::chrono::steady_clock::now();
  const sessa::loadtest::ScriptedServer server(options);
  std::printf("ready http=127.0.0.1:%d\n", server.port());
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) continue;

  const auto since = [&start](sessa::loadtest::SteadyTime at) {
    return std::chrono::duration<double>(at - start).count();
  };
  const char* comma = "[";
  for (const ServedRequest& request : server.Requests()) {
    std::printf("%s\n{\"received\":%.9f,\"prompt_tokens\":%d,\"client_left\":%s,\"ended\":%.9f,\"events\":[",
                comma, since(request.received), request.prompt_tokens, request.client_left ? "true" : "false",
                since(request.ended));
    const char* inner = "";
    for (const auto& event : request.events) {
      std::printf("%s[%.9f,%d]", inner, since(event.at), event.num_tokens);
      inner = ",";
    }
    std::printf("]}");
    comma = ",";
  }
  std::printf("%s]\n", comma[0] == '[' ? "[" : "\n");
}
