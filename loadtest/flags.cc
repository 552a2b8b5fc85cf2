// See flags.h.
#include "loadtest/flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(
    std::string, url, "http://127.0.0.1:8000",
    "the server: http://HOST:PORT[/PATH] for the OpenAI API (without /v1), grpc://HOST:PORT for sessa.v1");
ABSL_FLAG(std::string, api, "completions",
          "REST: completions (POST /v1/completions) or chat (POST /v1/chat/completions, prompts as text)");
ABSL_FLAG(std::string, model, "", "its name at the server; without: the first that the server lists");
ABSL_FLAG(
    std::string, prompt_as, "ids",
    "ids: random token ids, so that lengths are exact; text: a common English word for each, for servers "
    "that take no ids (lengths are then near what was asked for, the server's own count is reported)");
ABSL_FLAG(int32_t, vocab_size, 0, "token ids are drawn below this; 0: the server says (a Sessa server does)");
ABSL_FLAG(double, temperature, 0, "of sampling");
ABSL_FLAG(bool, ignore_eos, true, "ask the server to go on to the length asked for (Sessa, vLLM, SGLang)");
ABSL_FLAG(
    bool, return_token_ids, true,
    "REST: ask for the ids of tokens (Sessa, vLLM), so that an event's tokens can be counted and a "
    "conversation goes on exactly; without ids an event counts as one token, and where the server's usage "
    "says another sum in the end it is shared out evenly over the events");
ABSL_FLAG(std::string, extra_body, "", "REST: a JSON object whose members are added to each request");
ABSL_FLAG(std::string, api_key, "", "sent as 'Authorization: Bearer KEY'");
ABSL_FLAG(std::string, tenants_file, "",
          "several keys: lines 'KEY NAME [SHARE]'; requests are dealt out by the shares (1 if not given)");
ABSL_FLAG(sessa::FlagSeconds, request_timeout_seconds, {600},
          "a request that has not ended after so long is ended");
ABSL_FLAG(std::string, metrics_url, "auto",
          "http://HOST:PORT whose /metrics are read; auto: the server's own with REST, none with gRPC; none");
ABSL_FLAG(sessa::FlagSeconds, metrics_interval_seconds, {1}, "between two readings of /metrics");

ABSL_FLAG(
    std::string, rate, "",
    "open loop: conversations begun per second (requests, if they have one turn). 4: one run. 1,2,4,8: a run "
    "for each. search or search:0.5: doubled from 1 or 0.5 until the server no longer follows, then halved "
    "in "
    "between until known to a tenth");
ABSL_FLAG(double, ramp_to, 0,
          "open loop: the rate changes linearly from --rate to this over the run; 0: it stays");
ABSL_FLAG(std::string, arrivals, "poisson",
          "open loop: poisson, constant, or gamma with --burstiness; how the gaps between arrivals are "
          "distributed");
ABSL_FLAG(double, burstiness, 1,
          "shape of gamma arrivals: their coefficient of variation is 1/sqrt(this); 1 is Poisson, lower is "
          "burstier");
ABSL_FLAG(int32_t, users, 0, "closed loop: so many users, each sends when its last answer has ended");
ABSL_FLAG(sessa::FlagSeconds, think_seconds, {0},
          "mean of the exponential time between an answer and the next request of a user, or turn of a "
          "conversation");
ABSL_FLAG(sessa::FlagSeconds, duration_seconds, {60},
          "requests are sent for so long; of a trace: all of it, if not given");
ABSL_FLAG(int64_t, num_requests, 0, "requests are sent at most (probes aside), of each run; 0: no limit");
ABSL_FLAG(sessa::FlagSeconds, drain_seconds, {60},
          "what still runs so long after the last was sent is ended as too late");
ABSL_FLAG(double, search_share, 0.9,
          "--rate=search: the server follows if it serves this share of the load: of the requests within "
          "--slo where "
          "it is given, else of the output tokens, while requests come");
ABSL_FLAG(
    uint64_t, seed, 1,
    "all that is random comes from it: the same seed, the same requests at the same times. A server with a "
    "prefix cache knows the prompts when they come again: give another seed then (the runs of a sweep "
    "have prompts of their own)");

ABSL_FLAG(
    std::string, lengths, "",
    "tokens of prompt and answer, 'IN,OUT' or weighted 'IN,OUT:WEIGHT;IN,OUT:WEIGHT'; each of IN and OUT is "
    "512 "
    "(8K is 8192), uniform 256-1024, log-normal 512~0.8 (median~sigma) or bounded 512~0.8[16-4096]; prompts "
    "include a shared prefix. Without --mix and --trace: 512,128");
ABSL_FLAG(std::string, mix, "", "a named mix of work in place of --lengths; list: what there is");
ABSL_FLAG(
    int32_t, max_context, 0,
    "a mix or a trace with longer requests (prompt and answer) is scaled down until its longest has so many "
    "tokens; 0: it is not");
ABSL_FLAG(int32_t, prefixes, 0,
          "with --lengths: so many shared prefixes, one of which begins a prompt; 0: none");
ABSL_FLAG(std::string, prefix_tokens, "256", "of each shared prefix");
ABSL_FLAG(double, prefix_share, 1, "of conversations that begin with a shared prefix");
ABSL_FLAG(std::string, turns, "1",
          "with --lengths: requests of a conversation, like IN. Each turn's prompt is the one before, its "
          "answer, and "
          "--turn_input new tokens");
ABSL_FLAG(std::string, turn_input, "", "new tokens of a later turn, like IN; without: as the first prompt");
ABSL_FLAG(
    std::string, trace, "",
    "replay a trace in the Mooncake format: JSON lines with timestamp (ms), input_length, output_length and "
    "hash_ids of blocks of 512 tokens");
ABSL_FLAG(double, trace_time_scale, 1, "2: the trace takes twice as long");
ABSL_FLAG(sessa::FlagSeconds, trace_offset_seconds, {0}, "of the trace that are skipped at its start");
ABSL_FLAG(double, cancel_share, 0, "of requests, each cancelled after a random number of its tokens");
ABSL_FLAG(
    double, probe_rate, 0,
    "requests of one token per second beside the load, which see stalls; they have figures of their own");
ABSL_FLAG(std::string, probe_tokens, "16", "of a probe's prompt");

ABSL_FLAG(sessa::FlagSeconds, warmup_seconds, {0}, "requests scheduled before are left out of the figures");
ABSL_FLAG(sessa::FlagSeconds, cooldown_seconds, {0},
          "so many last seconds of sending are left out of the figures");
ABSL_FLAG(std::string, slo, "",
          "what a good request keeps: 'ttft:500ms,tpot:50ms,gap:200ms,e2e:10s', any of them");
ABSL_FLAG(sessa::FlagMilliseconds, max_send_lag_ms, {10},
          "the run fails if this client sent 1 % of the requests later than so, after their scheduled time");
ABSL_FLAG(
    sessa::FlagMilliseconds, max_loop_lag_ms, {10},
    "the run fails if 1 % of the timers of this client's loop fired later than so: answers are read as late");
ABSL_FLAG(double, max_cpu_share, 0.9,
          "the run fails if this client used more of a CPU core for each of its threads");
ABSL_FLAG(std::string, title, "", "of the report");
ABSL_FLAG(std::string, json, "", "a file for everything");
ABSL_FLAG(std::string, csv, "", "a file with a line for each request");
ABSL_FLAG(std::string, html, "", "a file with plots, for a browser");
ABSL_FLAG(bool, progress, true, "show how it goes on stderr");

namespace sessa::loadtest {

const Program& LoadTester() {
  static const auto* const program = new Program{
      "sessa-loadtest",
      "sessa-loadtest: sends load to a server of language models and tells how it behaved.\n\n"
      "  sessa-loadtest --url http://127.0.0.1:8000 --rate 4 --lengths 512,128 --duration_seconds 60\n"
      "  sessa-loadtest --url grpc://127.0.0.1:8001 --users 16 --mix chat --html report.html\n"
      "  sessa-loadtest --rate search --mix documents --max_context 4096 --slo ttft:2s,tpot:100ms\n\n"
      "Exit codes: 0; 1 with a line that says what is wrong; 3 when this client itself was too slow.\n"
      "An interrupt (SIGINT) ends the run and reports it. Times are seconds, or as 250ms or 2m.\n",
      "SESSA_LOADTEST_",
      {
          {"The server",
           {"url", "model", "api", "prompt_as", "vocab_size", "temperature", "ignore_eos", "return_token_ids",
            "extra_body", "api_key", "tenants_file", "request_timeout_seconds", "metrics_url",
            "metrics_interval_seconds"}},
          {"When requests are sent: --rate (open loop), --users (closed loop) or --trace",
           {"rate", "arrivals", "burstiness", "ramp_to", "users", "think_seconds", "duration_seconds",
            "num_requests", "drain_seconds", "search_share", "seed"}},
          {"What is asked",
           {"lengths", "mix", "max_context", "prefixes", "prefix_tokens", "prefix_share", "turns",
            "turn_input", "trace", "trace_time_scale", "trace_offset_seconds", "cancel_share", "probe_rate",
            "probe_tokens"}},
          {"What is said of it",
           {"slo", "warmup_seconds", "cooldown_seconds", "title", "json", "csv", "html", "progress"}},
          {"When this client's own figures are not to be trusted (exit code 3)",
           {"max_send_lag_ms", "max_loop_lag_ms", "max_cpu_share"}},
      }};
  return *program;
}

}  // namespace sessa::loadtest
