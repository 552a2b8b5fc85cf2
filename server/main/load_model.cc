// See load_model.h.
#include "server/main/load_model.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/monotonic.h"
#include "server/checkpoint/checkpoint.h"
#include "server/core/engine_adapter.h"
#include "server/core/log.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

// One line in the log for each stage, with the time since the start.
class Progress {
 public:
  void Say(absl::string_view what) const {
    Log(absl::StrFormat("[%6.2f s] %s", absl::ToDoubleSeconds(MonotonicNow() - start_), what));
  }

 private:
  const absl::Time start_ = MonotonicNow();
};

// What the engine keeps weights in when the user leaves it open: the checkpoint's own type, f32 for f16,
// which the engine has not.
absl::StatusOr<DType> AutoWeightDType(const Checkpoint& checkpoint) {
  absl::StatusOr<DType> embed = checkpoint.TypeOf("embed.weight");
  if (!embed.ok()) return embed.status();
  return *embed == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

}  // namespace

absl::StatusOr<ServedModel> LoadModel(const MainOptions& options, Metrics* metrics) {
  const Progress progress;
  progress.Say(absl::StrCat("opening ", options.model_dir));
  auto checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();

  progress.Say("reading the tokenizer");
  auto tokenizer = Tokenizer::Load(options.model_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  auto chat_template = ChatTemplate::Load(options.model_dir);
  if (!chat_template.ok()) return chat_template.status();

  EngineOptions engine_options = options.engine;
  if (options.weight_dtype.has_value()) {
    engine_options.weight_dtype = *options.weight_dtype;
  } else {
    absl::StatusOr<DType> dtype = AutoWeightDType(**checkpoint);
    if (!dtype.ok()) return dtype.status();
    engine_options.weight_dtype = *dtype;
  }
  const DType weights = engine_options.weight_dtype;
  engine_options.state_dtype = options.state_dtype.value_or(weights == DType::kI8 ? DType::kBF16 : weights);
  progress.Say(absl::StrCat("loading weights: ", config.num_layers, " layers of width ", config.hidden_size,
                            ", weights ", Name(engine_options.weight_dtype), ", state ",
                            Name(engine_options.state_dtype)));
  auto engine = Engine::Create(engine_options, config, **checkpoint, &Metrics::StepObserver, metrics);
  if (!engine.ok()) return engine.status();
  if (const std::vector<std::string> unused = (*checkpoint)->unused_tensors(); !unused.empty()) {
    progress.Say(absl::StrCat("warning: ", unused.size(),
                              " tensors of the checkpoint are not used, the first is ", unused[0]));
  }
  const EngineStats stats = (*engine)->Stats();
  if (const EngineOptions& chosen = (*engine)->options(); chosen.amx && weights == DType::kBF16) {
    progress.Say(absl::StrCat("linears run on AMX, activations ",
                              chosen.activation_dtype == DType::kBF16
                                  ? "rounded to bf16: up to 1 % of the largest logit"
                                  : "as sums of three bf16: as exact as float32",
                              "; --amx=off computes as CPUs without it do"));
  }
  progress.Say(absl::StrCat("warm: ", stats.num_pages, " pages of ", stats.page_size,
                            " tokens, context up to ", (*engine)->options().max_model_len));

  ServedModel model;
  model.name = options.served_model_name;
  model.engine = std::make_shared<EngineAdapter>(*std::move(engine));
  model.tokenizer = *std::move(tokenizer);
  model.chat_template = *std::move(chat_template);
  return model;
}

}  // namespace sessa
