// See summary.h.
#include "server/main/summary.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/core/load_progress.h"

namespace sessa {
namespace {

// Where a client on this machine finds what listens on `host`.
std::string Reachable(const std::string& host) {
  return host == "0.0.0.0" || host == "::" || host == "*" ? "localhost" : host;
}

std::string ModelLine(const ServedModel& model) {
  const ModelConfig& config = model.engine->config();
  return absl::StrCat("model: ", model.name, ", ", config.num_layers, " layers of width ", config.hidden_size,
                      config.num_heads > 0 ? absl::StrCat(", ", config.num_heads, " heads") : "",
                      ", vocabulary of ", config.vocab_size,
                      model.tokenizer == nullptr ? ", no tokenizer: token ids alone" : "",
                      model.chat_template == nullptr ? ", no chat" : "");
}

std::string FormatsLine(const EngineOptions& engine, bool in_processes) {
  std::string line = absl::StrCat("formats: weights ", Name(engine.weight_dtype), ", state ",
                                  Name(engine.state_dtype), ", activations ", Name(engine.activation_dtype));
  if (engine.device == DeviceType::kCuda) {
    return absl::StrCat(line, ", on ", engine.tensor_parallel_size, " GPUs",
                        engine.batch_invariant ? ", the same bits in any batch" : "");
  }
  absl::StrAppend(&line, ", on ", engine.tensor_parallel_size * engine.num_threads, " CPU threads");
  if (in_processes) absl::StrAppend(&line, " of ", engine.tensor_parallel_size, " processes");
  if (engine.amx && engine.weight_dtype != DType::kF32) {
    absl::StrAppend(&line, ", linears", engine.state_dtype != DType::kF32 ? " and attention" : "", " on AMX");
  }
  if (engine.activation_dtype == DType::kI8) {
    absl::StrAppend(&line,
                    "; 8 bits of a linear's input cost up to 3 % of the largest logit; "
                    "--activation_dtype=bf16 keeps 16, and takes in prompts 0.7 to 0.8 times as fast");
  } else if (engine.activation_dtype == DType::kBF16 && engine.weight_dtype == DType::kBF16) {
    absl::StrAppend(&line,
                    "; rounding activations costs up to 1 % of the largest logit, which "
                    "--activation_dtype=f32 saves at half the speed");
  }
  return line;
}

std::string CacheLine(const ServedModel& model) {
  const EngineStats stats = model.engine->Stats();
  const EngineOptions& engine = model.engine->options();
  const std::string holds =
      stats.num_slots > 0 ? absl::StrCat(stats.num_slots, " states, of sequences that run and of prefixes")
                          : absl::StrCat(int64_t{stats.num_pages} * stats.page_size, " tokens in ",
                                         stats.num_pages, " pages of ", stats.page_size);
  return absl::StrCat("cache: ", holds, ", of ", FormatBytes(engine.state_cache_bytes), "; context up to ",
                      engine.max_model_len, " tokens");
}

std::string LimitsLine(const MainOptions& options, const EngineOptions& engine) {
  std::string line =
      absl::StrCat("limits: ", engine.max_num_seqs, " sequences and ", engine.max_step_tokens,
                   " new tokens in a step, ", engine.max_queued_requests, " requests may wait");
  if (engine.max_queue_time != absl::InfiniteDuration())
    absl::StrAppend(&line, " for ", absl::FormatDuration(engine.max_queue_time));
  if (engine.num_speculative_tokens > 0)
    absl::StrAppend(&line, "; up to ", engine.num_speculative_tokens, " tokens are guessed ahead");
  return absl::StrCat(line, ", ", absl::FormatDuration(options.limits.default_timeout),
                      " for each, bodies of ", FormatBytes(options.limits.max_body_bytes),
                      options.api_keys_file.empty() ? "" : "; API keys are asked for");
}

}  // namespace

std::string Address(const std::string& host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

std::vector<std::string> Summary(const MainOptions& options, const ServedModel& model, const Ports& ports) {
  const EngineOptions& engine = model.engine->options();
  const std::string scheme = options.tls.cert.empty() ? "http://" : "https://";
  const std::string http = absl::StrCat(scheme, Address(Reachable(options.host), ports.http));
  const std::string metrics =
      ports.admin == 0 ? http : absl::StrCat("http://", Address(Reachable(options.admin_host), ports.admin));
  return {ModelLine(model), FormatsLine(engine, options.group.has_value()), CacheLine(model),
          LimitsLine(options, engine),
          absl::StrCat("try: ", http, "/ (a page to chat), ", http, "/v1 (OpenAI's API), ", metrics,
                       "/metrics, gRPC on ", Address(Reachable(options.host), ports.grpc))};
}

}  // namespace sessa
