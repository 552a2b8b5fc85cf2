// ./dev bench loadtest: what sessa-loadtest itself can do, as a Markdown table: the load is raised, by half
// each time, until its own self-check fails or the server of the test no longer keeps up (which then is the
// limit, and is said so). The server follows a script, runs no model, and is a process of its own on the same
// machine.
//   requests   one token each, prompts of 512 token ids, open loop
//   tokens     streams of 100 tokens/s each, an event a token
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "loadtest/session.h"
#include "loadtest/summary.h"
#include "tests/loadtest/scripted_server.h"

namespace sessa::loadtest {
namespace {

constexpr double kSeconds = 4;    // of sending, at each step
constexpr double kWarmup = 1;     // of them
constexpr double kServed = 0.95;  // of what is asked, below which the server did not keep up
constexpr int kStreamTokens = 300;

// Serves until the parent is gone; its port is written to `out`.
[[noreturn]] void RunServer(int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ScriptedServerOptions options;
  options.keep_bodies = false;
  options.script = [](const ServedRequest& request) {
    ScriptedAnswer answer;
    if (request.max_tokens > 1) answer.between_events = std::chrono::milliseconds(10);
    return answer;
  };
  const ScriptedServer server(std::move(options));
  const int port = server.port();
  if (write(out, &port, sizeof(port)) != sizeof(port)) _exit(1);
  while (true) pause();
}

Options BenchOptions(int port) {
  Options options;
  options.http = *ParseHttpUrl(absl::StrCat("127.0.0.1:", port));
  options.has_metrics = false;
  options.request.tenants = options.work.tenants = {{"", "", 1}};
  options.work.parts.resize(1);
  options.work.parts[0].kind = "bench";
  options.load.duration = options.arrivals.duration = kSeconds;
  options.arrivals.end_rate = 0;
  options.warmup = kWarmup;
  return options;
}

// One step; false: it was too much for somebody.
bool Step(const char* what, Options options, double rate, int users, double asked_tokens) {
  options.load.num_users = users;
  const absl::StatusOr<Target> target = Reach(&options);
  if (!target.ok()) {
    std::fprintf(stderr, "%s\n", std::string(target.status().message()).c_str());
    return false;
  }
  Progress silent({});
  bool interrupted = false;
  const Run run = RunOnce(options, *target, rate, &silent, &interrupted);
  const Summary summary = Summarize(run, Slo());
  const bool served =
      summary.all.output_tokens_per_second >= kServed * asked_tokens && summary.all.error_share == 0;
  const bool lagged = !run.client.failure.empty();
  std::printf("| %s | %.0f | %d | %.0f | %.0f | %.2f | %.2f | %.0f %% | %s |\n", what, rate, users,
              asked_tokens, summary.all.output_tokens_per_second, run.client.p99_send_lag * 1e3,
              run.client.p99_loop_lag * 1e3, run.client.cpu_share * 100,
              lagged   ? "the client lags"
              : served ? "fine"
                       : "the server lags");
  std::fflush(stdout);
  return served && !lagged;
}

int Main(int port) {
  std::printf(
      "| load | requests/s | streams | tokens/s asked | tokens/s received | send lag p99, ms | loop lag p99, "
      "ms | CPU of a "
      "core | verdict |\n|---|---|---|---|---|---|---|---|---|\n");
  Options requests = BenchOptions(port);
  requests.work.parts[0].input = Lengths::Fixed(512);
  double rate = 1000;
  while (rate < 1e6 && Step("requests", requests, rate, 0, rate)) rate *= 1.5;
  Options tokens = BenchOptions(port);
  tokens.work.parts[0].input = Lengths::Fixed(16);
  tokens.work.parts[0].output = Lengths::Fixed(kStreamTokens);
  int streams = 64;
  while (streams < 1 << 15 && Step("tokens", tokens, 0, streams, streams * 100)) streams += streams / 2;
  return 0;
}

}  // namespace
}  // namespace sessa::loadtest

int main() {
  // Before there are threads.
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return 1;
  const pid_t server = fork();
  if (server < 0) return 1;
  if (server == 0) sessa::loadtest::RunServer(pipe_ends[1]);
  int port = 0;
  if (read(pipe_ends[0], &port, sizeof(port)) != sizeof(port)) return 1;
  const int code = sessa::loadtest::Main(port);
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  return code;
}
