// See options.h.
#include "server/main/options.h"

#include <arpa/inet.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/engine_options.h"
#include "server/file/read_file.h"
#include "server/main/flags.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

absl::Status ParseDType(absl::string_view flag, absl::string_view value, std::optional<DType>* dtype) {
  if (value == "auto") return absl::OkStatus();
  for (DType known : {DType::kF32, DType::kBF16, DType::kI8}) {
    if (value == Name(known)) {
      *dtype = known;
      return absl::OkStatus();
    }
  }
  return FlagError(flag, absl::StrCat("'", value, "' is not auto, f32, bf16 or int8"));
}

absl::Status CheckPort(absl::string_view flag, int port) {
  if (port >= 0 && port <= 65535) return absl::OkStatus();
  return FlagError(flag, absl::StrCat(port, " is not a port (0 to 65535)"));
}

// False for names but localhost: where they lead is not known here.
bool IsLoopback(const std::string& host) {
  in_addr v4 = {};
  in6_addr v6 = {};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

absl::Status ParseAdmin(MainOptions* options) {
  options->admin_host = absl::GetFlag(FLAGS_admin_host);
  if (options->admin_host.empty()) options->admin_host = options->host;
  const std::string value = absl::GetFlag(FLAGS_admin_port);
  if (value == "off") return absl::OkStatus();
  int port = options->http_port == 0 ? 0 : 8002;
  if (value != "auto" && !absl::SimpleAtoi(value, &port))
    return FlagError("admin_port", absl::StrCat("'", value, "' is not auto, off or a port"));
  options->admin_port = port;
  return CheckPort("admin_port", port);
}

// The last part of the folder's path, also when it ends in a slash or is relative.
std::string FolderName(const std::string& dir) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::canonical(dir, error);
  if (error) path = std::filesystem::path(dir);
  return path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
}

// MODEL, or --model; the folder must be there.
absl::Status ParseModel(const std::vector<std::string>& arguments, MainOptions* options) {
  options->model_dir = absl::GetFlag(FLAGS_model);
  if (!arguments.empty()) {
    if (!options->model_dir.empty() || arguments.size() > 1)
      return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", arguments.back(), "'"));
    options->model_dir = arguments[0];
  }
  if (options->model_dir.empty()) {
    return FlagError("model", "the checkpoint folder is needed: sessa-server MODEL; --help lists the flags");
  }
  struct stat file = {};
  const int error = stat(options->model_dir.c_str(), &file) != 0 ? errno
                    : S_ISDIR(file.st_mode)                      ? 0
                                                                 : ENOTDIR;
  if (error != 0) return FlagError("model", absl::ErrnoToStatus(error, options->model_dir).message());
  options->served_model_name = absl::GetFlag(FLAGS_served_model_name);
  if (options->served_model_name.empty()) options->served_model_name = FolderName(options->model_dir);
  if (FindInvalidUtf8(options->served_model_name) != std::string::npos) {
    return FlagError("served_model_name", "the name must be UTF-8");  // it goes into JSON and metrics
  }
  const std::string generation_config = absl::GetFlag(FLAGS_generation_config);
  if (generation_config != "auto" && generation_config != "none")
    return FlagError("generation_config", absl::StrCat("'", generation_config, "' is not auto or none"));
  options->sampling_defaults = generation_config == "auto";
  options->chat_template = absl::GetFlag(FLAGS_chat_template);
  return absl::OkStatus();
}

absl::Status ParseAddresses(MainOptions* options) {
  options->host = absl::GetFlag(FLAGS_host);
  options->http_port = absl::GetFlag(FLAGS_http_port);
  options->grpc_port = absl::GetFlag(FLAGS_grpc_port);
  if (absl::Status port = CheckPort("http_port", options->http_port); !port.ok()) return port;
  if (absl::Status port = CheckPort("grpc_port", options->grpc_port); !port.ok()) return port;
  options->max_connections = {absl::GetFlag(FLAGS_max_http_connections),
                              absl::GetFlag(FLAGS_max_grpc_connections)};
  if (options->max_connections.http < 1) return FlagError("max_http_connections", "must be at least 1");
  if (options->max_connections.grpc < 1) return FlagError("max_grpc_connections", "must be at least 1");
  return ParseAdmin(options);
}

absl::Status ParseAccess(MainOptions* options) {
  options->api_keys_file = absl::GetFlag(FLAGS_api_keys_file);
  options->tls = {absl::GetFlag(FLAGS_tls_cert), absl::GetFlag(FLAGS_tls_key),
                  absl::GetFlag(FLAGS_tls_client_ca)};
  if (options->tls.cert.empty() != options->tls.key.empty())
    return FlagError("tls_cert", "goes with --tls_key");
  if (options->tls.cert.empty() && !options->tls.client_ca.empty())
    return FlagError("tls_client_ca", "goes with --tls_cert and --tls_key");
  const bool takes_requests = absl::GetFlag(FLAGS_rank) == 0;
  if (options->api_keys_file.empty() && options->tls.client_ca.empty() && !absl::GetFlag(FLAGS_insecure) &&
      takes_requests && !IsLoopback(options->host)) {
    return FlagError("host",
                     absl::StrCat("'", options->host,
                                  "' can be reached from elsewhere, and without API keys anyone there "
                                  "may use it: give --api_keys_file (--make_key=NAME makes a key) or "
                                  "--tls_client_ca, or say --insecure"));
  }
  auto cors = Cors::Parse(absl::GetFlag(FLAGS_cors_allow_origins));
  if (!cors.ok()) return FlagError("cors_allow_origins", cors.status().message());
  options->cors = *std::move(cors);
  return absl::OkStatus();
}

absl::Status ParseCacheEvents(MainOptions* options) {
  CacheEventsOptions& events = options->cache_events;
  events.endpoint = absl::GetFlag(FLAGS_cache_events);
  events.topic = absl::GetFlag(FLAGS_cache_events_topic);
  if (events.endpoint.empty()) {
    return events.topic.empty() ? absl::OkStatus()
                                : FlagError("cache_events_topic", "goes with --cache_events");
  }
  absl::string_view host = events.endpoint;
  if (absl::ConsumePrefix(&host, "ipc://")) return absl::OkStatus();
  if (!absl::ConsumePrefix(&host, "tcp://") || !absl::StrContains(host, ':')) {
    return FlagError("cache_events",
                     absl::StrCat("'", events.endpoint, "' is not tcp://HOST:PORT or ipc://PATH"));
  }
  host = absl::StripSuffix(absl::StripPrefix(host.substr(0, host.rfind(':')), "["), "]");
  if (IsLoopback(std::string(host)) || absl::GetFlag(FLAGS_insecure)) return absl::OkStatus();
  return FlagError("cache_events",
                   absl::StrCat("'", host, "' can be reached from elsewhere, and whoever reads there reads ",
                                "the tokens of all prompts: say --insecure if routers alone reach it"));
}

absl::Status ParseLog(MainOptions* options) {
  const std::string format = absl::GetFlag(FLAGS_log_format), level = absl::GetFlag(FLAGS_log_level),
                    access = absl::GetFlag(FLAGS_access_log);
  if (format != "text" && format != "json")
    return FlagError("log_format", absl::StrCat("'", format, "' is not text or json"));
  options->log.format = format == "json" ? LogFormat::kJson : LogFormat::kText;
  if (access != "on" && access != "off")
    return FlagError("access_log", absl::StrCat("'", access, "' is not on or off"));
  options->access_log = access == "on";
  for (LogLevel known : {LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (level != LevelName(known)) continue;
    options->log.least = known;
    return absl::OkStatus();
  }
  return FlagError("log_level", absl::StrCat("'", level, "' is not info, warning or error"));
}

absl::Status ParseEnd(MainOptions* options) {
  options->settle = absl::Seconds(absl::GetFlag(FLAGS_settle_seconds).value);
  options->drain = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds).value);
  if (options->settle < absl::ZeroDuration()) return FlagError("settle_seconds", "must be at least 0");
  if (options->drain < absl::ZeroDuration()) return FlagError("drain_seconds", "must be at least 0");
  return absl::OkStatus();
}

absl::Status ParseLimits(MainOptions* options) {
  Limits& limits = options->limits;
  limits.default_timeout = absl::Seconds(absl::GetFlag(FLAGS_request_timeout_seconds).value);
  if (limits.default_timeout <= absl::ZeroDuration())
    return FlagError("request_timeout_seconds", "must be above 0");
  limits.max_timeout = std::max(limits.max_timeout, limits.default_timeout);
  limits.max_body_bytes = absl::GetFlag(FLAGS_max_body_bytes).bytes;
  if (limits.max_body_bytes < 1024 || limits.max_body_bytes > (1 << 30)) {
    return FlagError("max_body_bytes", "must be between 1 KiB and 1 GiB");
  }
  limits.max_answer_bytes = absl::GetFlag(FLAGS_max_answer_bytes).bytes;
  limits.max_buffered_bytes = absl::GetFlag(FLAGS_max_buffered_bytes).bytes;
  if (limits.max_answer_bytes < 1024) return FlagError("max_answer_bytes", "must be at least 1 KiB");
  // Bodies have half of it, and one whose length is not said may take twice its bytes while it grows.
  if (limits.max_buffered_bytes < 4 * limits.max_body_bytes ||
      limits.max_buffered_bytes < limits.max_answer_bytes) {
    return FlagError("max_buffered_bytes",
                     "must be at least four times --max_body_bytes and at least --max_answer_bytes");
  }
  limits.max_requests_per_tenant = absl::GetFlag(FLAGS_max_requests_per_tenant);
  if (limits.max_requests_per_tenant < 0) return FlagError("max_requests_per_tenant", "must be at least 0");
  return absl::OkStatus();
}

absl::Status ParseFormats(MainOptions* options) {
  const std::string device = absl::GetFlag(FLAGS_device);
  if (device == "cuda" && !BuiltWithCuda())
    return FlagError("device", "this build has no CUDA backend; use --device=cpu");
  if (device != "cpu" && device != "cuda")
    return FlagError("device", absl::StrCat("'", device, "' is not cpu or cuda"));
  options->engine.device = device == "cuda" ? DeviceType::kCuda : DeviceType::kCpu;
  absl::Status dtype = ParseDType("weight_dtype", absl::GetFlag(FLAGS_weight_dtype), &options->weight_dtype);
  dtype.Update(ParseDType("state_dtype", absl::GetFlag(FLAGS_state_dtype), &options->state_dtype));
  dtype.Update(
      ParseDType("activation_dtype", absl::GetFlag(FLAGS_activation_dtype), &options->activation_dtype));
  const std::string amx = absl::GetFlag(FLAGS_amx);
  if (amx != "auto" && amx != "off")
    dtype.Update(FlagError("amx", absl::StrCat("'", amx, "' is not auto or off")));
  options->engine.amx = amx == "auto";
  return dtype;
}

// The engine judges what it is given before it knows a model; its words open with the name of an option,
// which is the flag's but for the threads.
absl::Status CheckEngine(const MainOptions& options) {
  EngineOptions engine = options.engine;
  engine.weight_dtype = options.weight_dtype.value_or(DType::kBF16);  // auto: nothing is known against it yet
  engine.state_dtype = options.state_dtype.value_or(DType::kBF16);
  engine.activation_dtype = options.activation_dtype.value_or(DType::kF32);
  ModelConfig any;
  any.max_position_embeddings = std::numeric_limits<int>::max();
  const absl::Status judged = CompleteOptions(engine, any).status();
  if (judged.ok()) return judged;
  const absl::string_view message = judged.message(), name = message.substr(0, message.find(": "));
  return FlagError(name == "num_threads" ? "threads" : name, message.substr(name.size() + 2));
}

absl::Status ParseSpeculation(int* num_tokens) {
  const std::string text = absl::GetFlag(FLAGS_speculation);
  absl::string_view number = text;
  if (text == "auto" || text == "off") {
    *num_tokens = text == "off" ? 0 : -1;
  } else if (!absl::ConsumePrefix(&number, "ngram:") || !absl::SimpleAtoi(number, num_tokens) ||
             *num_tokens < 1 || *num_tokens > kMaxDrafts) {
    return FlagError("speculation",
                     absl::StrCat("'", text, "' is not auto, off or ngram:K, K from 1 to ", kMaxDrafts));
  }
  return absl::OkStatus();
}

absl::Status ParseEngine(MainOptions* options) {
  EngineOptions& engine = options->engine;
  if (absl::Status parsed = ParseSpeculation(&engine.num_speculative_tokens); !parsed.ok()) return parsed;
  engine.batch_invariant = absl::GetFlag(FLAGS_batch_invariant);
  engine.page_size = absl::GetFlag(FLAGS_page_size);
  engine.state_cache_bytes = absl::GetFlag(FLAGS_state_cache_bytes).bytes;
  engine.tensor_parallel_size = absl::GetFlag(FLAGS_tensor_parallel_size);
  engine.num_threads = absl::GetFlag(FLAGS_threads);
  engine.max_model_len = absl::GetFlag(FLAGS_max_model_len);
  engine.max_num_seqs = absl::GetFlag(FLAGS_max_num_seqs);
  engine.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  engine.target_step_time = absl::Milliseconds(absl::GetFlag(FLAGS_target_step_ms).value);
  if (engine.target_step_time <= absl::ZeroDuration()) return FlagError("target_step_ms", "must be above 0");
  engine.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  engine.max_queued_tokens = absl::GetFlag(FLAGS_max_queued_tokens);
  const double queue_seconds = absl::GetFlag(FLAGS_max_queue_seconds).value;
  if (queue_seconds < 0) return FlagError("max_queue_seconds", "must be at least 0");
  if (queue_seconds > 0) engine.max_queue_time = absl::Seconds(queue_seconds);
  engine.max_preemptions = absl::GetFlag(FLAGS_max_preemptions);
  engine.enable_prefix_caching = absl::GetFlag(FLAGS_prefix_caching);
  return CheckEngine(*options);
}

// HOST:PORT, with brackets about an IPv6 address.
bool SplitAddress(absl::string_view text, std::string* host, int* port) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(text.substr(colon + 1), port)) return false;
  absl::string_view name = text.substr(0, colon);
  if (absl::ConsumePrefix(&name, "[") && !absl::ConsumeSuffix(&name, "]")) return false;
  *host = std::string(name);
  return !host->empty() && *port >= 0 && *port <= 65535;
}

absl::Status ParseGroup(MainOptions* options) {
  const std::string address = absl::GetFlag(FLAGS_group_address),
                    file = absl::GetFlag(FLAGS_group_secret_file);
  const int rank = absl::GetFlag(FLAGS_rank), size = options->engine.tensor_parallel_size;
  if (address.empty()) {
    if (rank != 0) return FlagError("rank", "goes with --group_address");
    return file.empty() ? absl::OkStatus() : FlagError("group_secret_file", "goes with --group_address");
  }
  GroupOptions& group = options->group.emplace();
  group.rank = rank;
  group.size = size;
  if (size < 2) return FlagError("group_address", "a group has 2 ranks at least: --tensor_parallel_size");
  if (rank < 0 || rank >= size)
    return FlagError("rank", absl::StrCat(rank, " is not in [0, ", size, "), the ranks of the group"));
  if (!SplitAddress(address, &group.host, &group.port))
    return FlagError("group_address", absl::StrCat("'", address, "' is not HOST:PORT"));
  if (rank > 0 && group.port == 0) return FlagError("group_address", "port 0 is the leader's to choose");
  group.silence = absl::Seconds(absl::GetFlag(FLAGS_group_silence_seconds).value);
  group.start = absl::Seconds(absl::GetFlag(FLAGS_group_start_seconds).value);
  if (group.silence < absl::Milliseconds(100))
    return FlagError("group_silence_seconds", "must be at least 0.1");
  if (group.start <= absl::ZeroDuration()) return FlagError("group_start_seconds", "must be above 0");
  if (!file.empty()) {
    absl::StatusOr<std::string> secret = ReadFile(file, /*max_bytes=*/4096);
    if (!secret.ok()) return FlagError("group_secret_file", secret.status().message());
    group.secret = std::string(absl::StripAsciiWhitespace(*secret));
    if (group.secret.size() < 16) return FlagError("group_secret_file", "must have at least 16 bytes");
  } else if (!IsLoopback(group.host) && !absl::GetFlag(FLAGS_insecure)) {
    return FlagError("group_address",
                     absl::StrCat("'", group.host,
                                  "' can be reached from elsewhere, and without a secret anyone "
                                  "there may join: give --group_secret_file, or say --insecure"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MainOptions> ParseOptions(int argc, char** argv) {
  absl::StatusOr<CommandLine> line = ReadCommandLine(Server(), argc, argv);
  if (!line.ok()) return line.status();
  MainOptions options;
  options.text = std::move(line->text);
  options.make_key = absl::GetFlag(FLAGS_make_key);
  options.hash_keys = absl::GetFlag(FLAGS_hash_keys);
  if (!options.text.empty() || !options.make_key.empty() || !options.hash_keys.empty()) return options;
  absl::Status status = ParseModel(line->arguments, &options);
  for (auto* parse : {ParseAddresses, ParseAccess, ParseCacheEvents, ParseLog, ParseEnd, ParseLimits,
                      ParseFormats, ParseEngine, ParseGroup}) {
    if (status.ok()) status = parse(&options);
  }
  if (!status.ok()) return status;
  return options;
}

}  // namespace sessa
