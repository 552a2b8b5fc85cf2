// See load_model.h.
#include "server/main/load_model.h"

#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/engine_options.h"
#include "engine/group_engine.h"
#include "server/cache_events/cache_events.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/generation_config.h"
#include "server/core/load_progress.h"
#include "server/core/log.h"
#include "server/main/join_group.h"
#include "server/main/tokenizer_info.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

// What the engine keeps weights in when the user leaves it open: the checkpoint's own type, f32 for f16,
// which the engine has not.
DType AutoWeightDType(const Checkpoint& checkpoint) {
  return checkpoint.most_common_dtype() == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

// What ends an answer: tokens that config.json or generation_config.json name, or else the tokenizer.
absl::StatusOr<ModelConfig> WithEndTokens(ModelConfig config, const std::vector<int32_t>& more,
                                          const std::string& dir, const Tokenizer* tokenizer) {
  for (const int32_t id : more) {
    if (!absl::c_linear_search(config.eos_token_ids, id)) config.eos_token_ids.push_back(id);
  }
  if (absl::Status valid = config.Validate(); !valid.ok())
    return absl::InvalidArgumentError(absl::StrCat(dir, "/generation_config.json: ", valid.message()));
  if (config.eos_token_ids.empty() && tokenizer != nullptr) {
    const std::optional<int32_t> eos = tokenizer->IdOf(tokenizer->eos_token());
    if (eos.has_value() && *eos < config.vocab_size) config.eos_token_ids.push_back(*eos);
  }
  return config;
}

std::string Describe(const SamplingDefaults& defaults) {
  std::string out;
  const auto add = [&out](const char* name, const auto& value) {
    if (value.has_value()) absl::StrAppend(&out, out.empty() ? "" : ", ", name, " ", *value);
  };
  add("temperature", defaults.temperature);
  add("top_p", defaults.top_p);
  add("top_k", defaults.top_k);
  add("min_p", defaults.min_p);
  add("repetition_penalty", defaults.repetition_penalty);
  return out;
}

// What requests that do not say are sampled with, and the most that any gets; nothing under
// --generation_config=none.
absl::StatusOr<SamplingDefaults> DefaultsOf(const GenerationConfig& generation, const MainOptions& options) {
  if (!options.sampling_defaults) return SamplingDefaults();
  if (absl::Status valid = CheckSamplingValues(generation.sampling); !valid.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(options.model_dir,
                                                   "/generation_config.json: ", valid.message(),
                                                   "; --generation_config=none leaves it out"));
  }
  if (const std::string what = Describe(generation.sampling); !what.empty())
    Log(absl::StrCat("generation_config.json: requests that do not say get ", what));
  if (const auto most = generation.sampling.max_tokens; most.has_value())
    Log(absl::StrCat("generation_config.json: no answer has more than ", *most, " tokens (max_new_tokens)"));
  return generation.sampling;
}

// Routers are told of pages, where pages alone are found again.
absl::Status PublishCache(const MainOptions& options, const ModelConfig& config, Metrics* metrics,
                          EngineOptions* engine) {
  if (options.cache_events.endpoint.empty()) return absl::OkStatus();
  if (!engine->enable_prefix_caching || config.is_recurrent()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--cache_events: ", engine->enable_prefix_caching
                                ? "prefixes of this model are found by recurrent states, not pages"
                                : "goes with --prefix_caching"));
  }
  CacheEventsOptions events = options.cache_events;
  events.medium = engine->device == DeviceType::kCuda ? "GPU" : "CPU";
  events.on_dropped = [metrics](int64_t num) { metrics->OnCacheEventsDropped(num); };
  auto started = CacheEvents::Start(std::move(events));
  if (!started.ok())
    return absl::UnavailableError(absl::StrCat("--cache_events: ", started.status().message()));
  Log(absl::StrCat("cache events: on ", (*started)->endpoint()));
  engine->cache_observer = *std::move(started);
  return absl::OkStatus();
}

// Reads the weights, says how far it is, and warms up.
absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const MainOptions& options, const ModelConfig& config,
                                                   const Checkpoint& checkpoint, Metrics* metrics,
                                                   GroupEvents events) {
  EngineOptions engine_options = WithFormats(options, checkpoint);
  if (absl::Status published = PublishCache(options, config, metrics, &engine_options); !published.ok())
    return published;
  std::shared_ptr<ProcessGroup> group;
  if (options.group.has_value()) {
    auto joined = JoinGroup(options, engine_options, checkpoint, std::move(events));
    if (!joined.ok()) return joined.status();
    group = *std::move(joined);
  }
  Log(absl::StrCat("loading weights: ", config.num_layers, " layers of width ", config.hidden_size,
                   ", weights ", Name(engine_options.weight_dtype), ", state ",
                   Name(engine_options.state_dtype)));
  absl::StatusOr<std::unique_ptr<Engine>> engine;
  {
    const LoadProgress progress(
        [&checkpoint, ranks = options.group.has_value() ? 1 : engine_options.tensor_parallel_size] {
          return checkpoint.num_bytes_read() / ranks;
        },
        checkpoint.num_bytes(), &StderrLog(),
        {.is_terminal = log_options().format == LogFormat::kText && isatty(STDERR_FILENO) == 1});
    engine = CreateGroupEngine(engine_options, group == nullptr ? nullptr : RanksOf(group), config,
                               checkpoint, &Metrics::StepObserver, metrics);
  }
  if (!engine.ok() && group != nullptr) group->Fail(engine.status());
  if (const std::vector<std::string> unused = checkpoint.unused_tensors(); engine.ok() && !unused.empty()) {
    Log(absl::StrCat(unused.size(), " tensors of the checkpoint are not used, the first is ", unused[0]),
        LogLevel::kWarning);
  }
  if (engine.ok()) {
    const std::string warning = PrefixCacheWarning((*engine)->options(), (*engine)->Stats().num_slots);
    if (!warning.empty()) Log(warning, LogLevel::kWarning);
  }
  return engine;
}

}  // namespace

EngineOptions WithFormats(const MainOptions& options, const Checkpoint& checkpoint) {
  EngineOptions engine = options.engine;
  const DType weights = options.weight_dtype.value_or(AutoWeightDType(checkpoint));
  engine.weight_dtype = weights;
  engine.state_dtype = options.state_dtype.value_or(weights == DType::kI8 ? DType::kBF16 : weights);
  engine.activation_dtype = options.activation_dtype.value_or(AutoActivationDType(engine));
  return engine;
}

absl::StatusOr<ServedModel> LoadModel(const MainOptions& options, Metrics* metrics, GroupEvents events) {
  Log(absl::StrCat("opening ", options.model_dir));
  auto checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  auto generation = ReadGenerationConfig(options.model_dir);
  if (!generation.ok()) return generation.status();
  auto defaults = DefaultsOf(*generation, options);
  if (!defaults.ok()) return defaults.status();

  Log("reading the tokenizer");
  auto tokenizer = Tokenizer::Load(options.model_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  if (*tokenizer == nullptr) {
    Log(absl::StrCat(options.model_dir,
                     "/tokenizer.json is not there: the model is served with token ids alone"),
        LogLevel::kWarning);
  }
  auto with_ends =
      WithEndTokens((*checkpoint)->config(), generation->eos_token_ids, options.model_dir, tokenizer->get());
  if (!with_ends.ok()) return with_ends.status();
  const ModelConfig& config = *with_ends;
  auto chat_template = ChatTemplate::Load(options.model_dir, options.chat_template);
  if (!chat_template.ok()) return chat_template.status();
  if (*chat_template != nullptr && !(*chat_template)->status().ok()) {
    Log(absl::StrCat("chats are refused, as their template cannot be read: ",
                     (*chat_template)->status().message()),
        LogLevel::kWarning);
  }

  auto engine = LoadEngine(options, config, **checkpoint, metrics, std::move(events));
  if (!engine.ok()) return engine.status();
  ServedModel model;
  model.name = options.served_model_name;
  model.engine = std::shared_ptr<Engine>(*std::move(engine));
  model.defaults = *defaults;
  model.tokenizer = *std::move(tokenizer);
  model.chat_template = *std::move(chat_template);
  model.tokenizer_info = TokenizerInfo(options.model_dir, options.chat_template);
  return model;
}

}  // namespace sessa
