// See options.h.
#include "loadtest/options.h"

#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "boost/json.hpp"
#include "loadtest/flags.h"
#include "loadtest/mixes.h"

namespace sessa::loadtest {
namespace {

// Written so that NaN fails too.
absl::Status CheckRange(absl::string_view flag, double value, double low, double high) {
  if (value >= low && value <= high && std::isfinite(value)) return absl::OkStatus();
  return FlagError(flag, absl::StrCat(value, " is not within ", low, " and ", high));
}

constexpr double kMaxSeconds = 1e7, kMaxRate = 1e6;

absl::Status CheckNumbers() {
  const double least = 1e-6;
  absl::Status status;
  const auto check = [&status](const char* flag, double value, double low, double high) {
    status.Update(CheckRange(flag, value, low, high));
  };
  check("vocab_size", absl::GetFlag(FLAGS_vocab_size), 0, 1 << 30);
  check("temperature", absl::GetFlag(FLAGS_temperature), 0, 100);
  check("request_timeout_seconds", absl::GetFlag(FLAGS_request_timeout_seconds).value, 1e-3, kMaxSeconds);
  check("metrics_interval_seconds", absl::GetFlag(FLAGS_metrics_interval_seconds).value, 0.01, kMaxSeconds);
  check("ramp_to", absl::GetFlag(FLAGS_ramp_to), 0, kMaxRate);
  check("burstiness", absl::GetFlag(FLAGS_burstiness), 1e-3, 1e6);
  check("users", absl::GetFlag(FLAGS_users), 0, 1e6);
  check("think_seconds", absl::GetFlag(FLAGS_think_seconds).value, 0, kMaxSeconds);
  check("duration_seconds", absl::GetFlag(FLAGS_duration_seconds).value, least, kMaxSeconds);
  check("num_requests", static_cast<double>(absl::GetFlag(FLAGS_num_requests)), 0, 1e9);
  check("drain_seconds", absl::GetFlag(FLAGS_drain_seconds).value, 0, kMaxSeconds);
  check("search_share", absl::GetFlag(FLAGS_search_share), 0.01, 1);
  check("max_context", absl::GetFlag(FLAGS_max_context), 0, kMaxTokens);
  check("prefixes", absl::GetFlag(FLAGS_prefixes), 0, 1 << 20);
  check("prefix_share", absl::GetFlag(FLAGS_prefix_share), 0, 1);
  check("trace_time_scale", absl::GetFlag(FLAGS_trace_time_scale), least, 1e6);
  check("trace_offset_seconds", absl::GetFlag(FLAGS_trace_offset_seconds).value, 0, 1e12);
  check("cancel_share", absl::GetFlag(FLAGS_cancel_share), 0, 1);
  check("probe_rate", absl::GetFlag(FLAGS_probe_rate), 0, 1000);
  check("warmup_seconds", absl::GetFlag(FLAGS_warmup_seconds).value, 0, kMaxSeconds);
  check("cooldown_seconds", absl::GetFlag(FLAGS_cooldown_seconds).value, 0, kMaxSeconds);
  check("max_send_lag_ms", absl::GetFlag(FLAGS_max_send_lag_ms).value, 0, 1e6);
  check("max_loop_lag_ms", absl::GetFlag(FLAGS_max_loop_lag_ms).value, 0, 1e6);
  check("max_cpu_share", absl::GetFlag(FLAGS_max_cpu_share), 0, 1e3);
  return status;
}

absl::StatusOr<Lengths> ParseLengths(absl::string_view flag, const std::string& text) {
  absl::StatusOr<Lengths> lengths = Lengths::Parse(text);
  if (!lengths.ok()) return FlagError(flag, lengths.status().message());
  return lengths;
}

// ---- the server ----

absl::Status ParseTenants(std::vector<Tenant>* tenants) {
  const std::string path = absl::GetFlag(FLAGS_tenants_file);
  if (path.empty()) {
    tenants->push_back({"", absl::GetFlag(FLAGS_api_key), 1});
    return absl::OkStatus();
  }
  if (IsGiven("api_key")) return FlagError("tenants_file", "holds the keys: --api_key can't be given too");
  std::ifstream file(path);
  if (!file) return FlagError("tenants_file", absl::ErrnoToStatus(errno, path).message());
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (parts.empty() || parts[0][0] == '#') continue;
    double share = 1;
    if (parts.size() < 2 || parts.size() > 3 ||
        (parts.size() == 3 && (!absl::SimpleAtod(parts[2], &share) || !(share > 0 && share <= 1e9)))) {
      return FlagError("tenants_file", absl::StrCat("line ", number, " is not 'KEY NAME [SHARE]'"));
    }
    tenants->push_back({parts[1], parts[0], share});
  }
  if (tenants->empty()) return FlagError("tenants_file", absl::StrCat(path, " holds no key"));
  return absl::OkStatus();
}

absl::Status ParseUrls(Options* options) {
  std::string url = absl::GetFlag(FLAGS_url);
  options->grpc = absl::StartsWith(url, "grpc://");
  // A gRPC address is checked as an HTTP one without a path.
  absl::StatusOr<HttpUrl> parsed = ParseHttpUrl(options->grpc ? url.substr(7) : url);
  if (!parsed.ok()) return FlagError("url", parsed.status().message());
  if (options->grpc && !parsed->path.empty())
    return FlagError("url", "gRPC takes grpc://HOST:PORT, without a path");
  if (options->grpc) options->grpc_address = parsed->authority;
  options->http = *std::move(parsed);

  const std::string metrics = absl::GetFlag(FLAGS_metrics_url);
  options->has_metrics = metrics != "none" && !(metrics == "auto" && options->grpc);
  options->metrics = options->http;
  if (options->has_metrics && metrics != "auto") {
    parsed = ParseHttpUrl(absl::StripSuffix(metrics, "/metrics"));
    if (!parsed.ok()) return FlagError("metrics_url", parsed.status().message());
    options->metrics = *std::move(parsed);
  }
  options->metrics_interval = absl::GetFlag(FLAGS_metrics_interval_seconds).value;
  return absl::OkStatus();
}

absl::Status ParseRequest(Options* options) {
  RequestOptions& request = options->request;
  request.model = absl::GetFlag(FLAGS_model);
  request.temperature = absl::GetFlag(FLAGS_temperature);
  request.ignore_eos = absl::GetFlag(FLAGS_ignore_eos);
  request.return_token_ids = absl::GetFlag(FLAGS_return_token_ids);
  request.timeout_seconds = absl::GetFlag(FLAGS_request_timeout_seconds).value;
  const std::string prompt_as = absl::GetFlag(FLAGS_prompt_as), api = absl::GetFlag(FLAGS_api);
  if (prompt_as != "ids" && prompt_as != "text")
    return FlagError("prompt_as", absl::StrCat("'", prompt_as, "' is not ids or text"));
  if (api != "completions" && api != "chat")
    return FlagError("api", absl::StrCat("'", api, "' is not completions or chat"));
  request.chat = api == "chat";
  request.prompt_as_text = request.chat || prompt_as == "text";
  if (options->grpc && request.prompt_as_text)
    return FlagError(request.chat ? "api" : "prompt_as", "prompts over gRPC are token ids");
  if (const std::string extra = absl::GetFlag(FLAGS_extra_body); !extra.empty()) {
    boost::system::error_code error;
    const boost::json::value value = boost::json::parse(extra, error);
    if (error || !value.is_object() || value.get_object().empty())
      return FlagError("extra_body", "not a JSON object with members");
    if (options->grpc) return FlagError("extra_body", "is for REST");
    const std::string members = boost::json::serialize(value);
    request.extra_body = members.substr(1, members.size() - 2);
  }
  if (absl::Status tenants = ParseTenants(&request.tenants); !tenants.ok()) return tenants;
  options->work.tenants = request.tenants;
  return absl::OkStatus();
}

// ---- when ----

absl::Status ParseRates(Options* options) {
  const std::string text = absl::GetFlag(FLAGS_rate);
  std::string list = text;
  if (text == "search" || absl::StartsWith(text, "search:")) {
    options->search_rates = true;
    list = text == "search" ? "1" : text.substr(7);
  }
  for (const absl::string_view item : absl::StrSplit(list, ',')) {
    double rate = 0;
    if (!absl::SimpleAtod(item, &rate) || !(rate > 0 && rate <= kMaxRate))
      return FlagError("rate", absl::StrCat("'", item, "' is not a number above 0 and at most ", kMaxRate));
    options->rates.push_back(rate);
  }
  if (options->search_rates && options->rates.size() != 1)
    return FlagError("rate", "search begins at one rate");
  return absl::OkStatus();
}

absl::Status ParseLoad(Options* options) {
  LoadOptions& load = options->load;
  load.num_users = absl::GetFlag(FLAGS_users);
  load.think_seconds = absl::GetFlag(FLAGS_think_seconds).value;
  load.duration = absl::GetFlag(FLAGS_duration_seconds).value;
  load.max_requests = absl::GetFlag(FLAGS_num_requests);
  load.drain_seconds = absl::GetFlag(FLAGS_drain_seconds).value;
  load.probe_rate = absl::GetFlag(FLAGS_probe_rate);
  load.seed = absl::GetFlag(FLAGS_seed);
  absl::StatusOr<Lengths> probe = ParseLengths("probe_tokens", absl::GetFlag(FLAGS_probe_tokens));
  if (!probe.ok()) return probe.status();
  if (probe->low() != probe->high()) return FlagError("probe_tokens", "is one number");
  load.probe_tokens = probe->low();

  const bool trace = IsGiven("trace"), open = IsGiven("rate");
  if (open + (load.num_users > 0) + (trace && load.num_users == 0) != 1)
    return FlagError("rate", "give one of --rate (open loop), --users (closed loop) and --trace");
  if (trace && !IsGiven("duration_seconds")) load.duration = std::numeric_limits<double>::infinity();

  ArrivalOptions& arrivals = options->arrivals;
  const std::string process = absl::GetFlag(FLAGS_arrivals);
  if (process == "constant") {
    arrivals.process = ArrivalOptions::Process::kConstant;
  } else if (process == "gamma") {
    arrivals.process = ArrivalOptions::Process::kGamma;
  } else if (process != "poisson") {
    return FlagError("arrivals", absl::StrCat("'", process, "' is not poisson, constant or gamma"));
  }
  arrivals.burstiness = absl::GetFlag(FLAGS_burstiness);
  if (IsGiven("burstiness") && process != "gamma") return FlagError("burstiness", "is for --arrivals=gamma");
  arrivals.duration = load.duration;
  arrivals.seed = load.seed;
  for (const char* flag : {"arrivals", "ramp_to"}) {
    if (!open && IsGiven(flag)) return FlagError(flag, "is for --rate");
  }
  if (!open) return absl::OkStatus();
  if (absl::Status rates = ParseRates(options); !rates.ok()) return rates;
  if (IsGiven("ramp_to") && options->search_rates) return FlagError("ramp_to", "can't be searched over");
  arrivals.end_rate = absl::GetFlag(FLAGS_ramp_to);  // 0: as the rate of each run
  return absl::OkStatus();
}

// ---- what ----

absl::Status ParseTrace(Options* options) {
  const std::string path = absl::GetFlag(FLAGS_trace);
  std::ifstream file(path);
  if (!file) return FlagError("trace", absl::ErrnoToStatus(errno, path).message());
  absl::StatusOr<std::vector<TraceEntry>> trace = ReadTrace(
      &file, {absl::GetFlag(FLAGS_trace_offset_seconds).value, absl::GetFlag(FLAGS_trace_time_scale), 0});
  if (!trace.ok()) return FlagError("trace", absl::StrCat(path, ": ", trace.status().message()));
  options->work.trace = *std::move(trace);
  return absl::OkStatus();
}

absl::Status ParseParts(Options* options) {
  const std::string text = absl::GetFlag(FLAGS_lengths);
  absl::StatusOr<std::vector<LengthPair>> pairs = ParseLengthPairs(text.empty() ? "512,128" : text);
  if (!pairs.ok()) return FlagError("lengths", pairs.status().message());
  absl::StatusOr<Lengths> prefix = ParseLengths("prefix_tokens", absl::GetFlag(FLAGS_prefix_tokens));
  if (!prefix.ok()) return prefix.status();
  if (prefix->low() != prefix->high()) return FlagError("prefix_tokens", "is one number");
  absl::StatusOr<Lengths> turns = ParseLengths("turns", absl::GetFlag(FLAGS_turns));
  if (!turns.ok()) return turns.status();
  std::optional<Lengths> turn_input;
  if (const std::string later = absl::GetFlag(FLAGS_turn_input); !later.empty()) {
    absl::StatusOr<Lengths> parsed = ParseLengths("turn_input", later);
    if (!parsed.ok()) return parsed.status();
    turn_input = *parsed;
  }
  for (const LengthPair& pair : *pairs) {
    WorkloadPart part;
    part.kind = pair.text;
    part.weight = pair.weight;
    part.input = pair.input;
    part.output = pair.output;
    part.num_prefixes = absl::GetFlag(FLAGS_prefixes);
    part.prefix_tokens = prefix->low();
    part.prefix_share = absl::GetFlag(FLAGS_prefix_share);
    part.turns = *turns;
    part.turn_input = turn_input.value_or(pair.input);
    options->work.parts.push_back(std::move(part));
  }
  return absl::OkStatus();
}

absl::Status ParseWork(Options* options) {
  options->work.vocab_size = absl::GetFlag(FLAGS_vocab_size);
  if (options->work.vocab_size == 1) return FlagError("vocab_size", "is at least 2");
  options->work.cancel_share = absl::GetFlag(FLAGS_cancel_share);
  options->work.seed = absl::GetFlag(FLAGS_seed);
  options->max_context = absl::GetFlag(FLAGS_max_context);
  const bool mix = IsGiven("mix"), trace = IsGiven("trace");
  for (const char* flag : {"lengths", "prefixes", "prefix_tokens", "prefix_share", "turns", "turn_input"}) {
    if ((mix || trace) && IsGiven(flag))
      return FlagError(flag,
                       absl::StrCat("can't be given with --", mix ? "mix" : "trace", ", which says it"));
  }
  if (mix && trace) return FlagError("mix", "can't be given with --trace");
  for (const char* flag : {"trace_time_scale", "trace_offset_seconds"}) {
    if (!trace && IsGiven(flag)) return FlagError(flag, "is for --trace");
  }
  if (trace) return ParseTrace(options);
  if (!mix) return ParseParts(options);
  absl::StatusOr<std::vector<WorkloadPart>> parts = FindMix(absl::GetFlag(FLAGS_mix));
  if (!parts.ok())
    return FlagError("mix", absl::StrCat(parts.status().message(), " (--mix list describes them)"));
  options->work.parts = *std::move(parts);
  return absl::OkStatus();
}

absl::Status ParseReport(Options* options) {
  absl::StatusOr<Slo> slo = ParseSlo(absl::GetFlag(FLAGS_slo));
  if (!slo.ok()) return FlagError("slo", slo.status().message());
  options->slo = *slo;
  options->warmup = absl::GetFlag(FLAGS_warmup_seconds).value;
  options->cooldown = absl::GetFlag(FLAGS_cooldown_seconds).value;
  if (options->warmup + options->cooldown >= options->load.duration)
    return FlagError("warmup_seconds", "with --cooldown_seconds leaves nothing of --duration_seconds");
  options->health = {absl::GetFlag(FLAGS_max_send_lag_ms).value / 1e3,
                     absl::GetFlag(FLAGS_max_loop_lag_ms).value / 1e3, absl::GetFlag(FLAGS_max_cpu_share)};
  options->search_share = absl::GetFlag(FLAGS_search_share);
  options->title = absl::GetFlag(FLAGS_title);
  options->json_path = absl::GetFlag(FLAGS_json);
  options->csv_path = absl::GetFlag(FLAGS_csv);
  options->html_path = absl::GetFlag(FLAGS_html);
  options->progress = absl::GetFlag(FLAGS_progress);
  options->flags = FlagValues(LoadTester());
  options->flags.erase("api_key");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(int argc, char** argv, std::string* text) {
  absl::StatusOr<CommandLine> line = ReadCommandLine(LoadTester(), argc, argv);
  if (!line.ok()) return line.status();
  *text = std::move(line->text);
  if (!text->empty()) return Options();
  if (!line->arguments.empty())
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", line->arguments[0], "'"));
  if (absl::GetFlag(FLAGS_mix) == "list") {
    *text = MixList();
    return Options();
  }
  Options options;
  absl::Status status = CheckNumbers();
  for (auto* parse : {ParseUrls, ParseRequest, ParseLoad, ParseWork, ParseReport}) {
    if (status.ok()) status = parse(&options);
  }
  if (!status.ok()) return status;
  return options;
}

}  // namespace sessa::loadtest
