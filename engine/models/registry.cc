// The families of models by their configuration.
#include <memory>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/models/layers.h"
#include "engine/models/llama_layers.h"
#include "engine/models/mamba_layers.h"
#include "engine/models/sessa_layers.h"

namespace sessa {

absl::StatusOr<Family> MakeFamily(const ModelRank& rank) {
  const ModelConfig& config = *rank.config;
  const auto missing = [&] {
    return absl::UnimplementedError(
        absl::StrCat("model_type ", config.model_type, ": this device has no kernels for its layers"));
  };
  if (config.mamba() != nullptr && rank.backend->scan() == nullptr) return missing();
  if (const auto* sessa = std::get_if<SessaConfig>(&config.family)) {
    if (sessa->mixer == SessaConfig::Mixer::kFeedback && rank.backend->feedback() == nullptr)
      return missing();
    return Family{"embed", "norm", "lm_head", Norm::Kind::kLayer, MakeSessaLayers(rank)};
  }
  if (std::holds_alternative<LlamaConfig>(config.family)) {
    return Family{"model.embed_tokens", "model.norm", "lm_head", Norm::Kind::kRms,
                  std::make_unique<LlamaLayers>(rank)};
  }
  return Family{"backbone.embeddings", "backbone.norm_f", "lm_head", Norm::Kind::kRms,
                std::make_unique<MambaLayers>(rank)};
}

absl::Status AllocateFloats(Backend* backend, std::initializer_list<std::pair<Buffer*, size_t>> buffers) {
  for (auto [buffer, floats] : buffers) {
    auto memory = backend->Allocate(floats * sizeof(float));
    if (!memory.ok()) return memory.status();
    *buffer = *std::move(memory);
  }
  return absl::OkStatus();
}

}  // namespace sessa
