#include "engine/models/sessa_layers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/models/attention_mixer.h"
#include "engine/models/feedback_mixer.h"
#include "engine/models/mamba_mixer.h"

namespace sessa {
namespace {

class GatedMamba final : public SessaMixer {
 public:
  explicit GatedMamba(const ModelRank& rank) : rank_(rank), mixer_(rank) {}
  StateShape Shape() const override { return mixer_.Shape(); }
  void Load(int, const std::string& prefix, Loader* load) override { mixer_.Load(prefix, load); }
  absl::Status AllocateActivations() override { return mixer_.AllocateActivations(); }
  void Run(int layer, Matrix u, Matrix g, LayerState* state) override {
    mixer_.Run(layer, u, {}, rank_.columns.Of(g), Epilogue::kMultiply, state);
    rank_.communicator->AllGather({{g, rank_.columns.bounds()}});
  }

 private:
  const ModelRank rank_;
  MambaMixer mixer_;
};

}  // namespace

std::unique_ptr<Layers> MakeSessaLayers(const ModelRank& rank) {
  std::unique_ptr<SessaMixer> mixer;
  switch (std::get<SessaConfig>(rank.config->family).mixer) {
    case SessaConfig::Mixer::kFeedback: mixer = std::make_unique<FeedbackMixer>(rank); break;
    case SessaConfig::Mixer::kAttention: mixer = std::make_unique<AttentionMixer>(rank); break;
    case SessaConfig::Mixer::kMamba2: mixer = std::make_unique<GatedMamba>(rank); break;
  }
  return std::make_unique<SessaLayers>(rank, std::move(mixer));
}

SessaLayers::SessaLayers(const ModelRank& rank, std::unique_ptr<SessaMixer> mixer)
    : rank_(rank), mixer_(std::move(mixer)) {}

void SessaLayers::Load(int layer, Loader* load) {
  const int D = rank_.config->hidden_size, begin = rank_.columns.begin(), end = rank_.columns.end();
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  Layer& l = layers_.emplace_back();
  l.norm_weight = load->Vector(prefix + "ln.weight", {D});
  l.norm_bias = load->Vector(prefix + "ln.bias", {D});
  l.u = load->Linear(prefix + "W_in", {2 * D, D, begin, end, true});
  l.g = load->Linear(prefix + "W_in", {2 * D, D, D + begin, D + end, true});
  mixer_->Load(layer, prefix + "mixer.", load);
  l.out = load->Linear(prefix + "W_out", {D, D, begin, end, true});
}

absl::Status SessaLayers::AllocateActivations() {
  const size_t size = static_cast<size_t>(rank_.options.max_rows) * rank_.config->hidden_size;
  if (absl::Status s = AllocateFloats(rank_.backend, {{&u_, size}, {&g_, size}}); !s.ok()) return s;
  return mixer_->AllocateActivations();
}

void SessaLayers::Run(int layer, Matrix x, LayerState* state) {
  const Layer& l = layers_[layer];
  const Matrix u = RowsOf(u_, x.rows, x.cols), g = RowsOf(g_, x.rows, x.cols);
  rank_.backend->Linear(x, {Norm::Kind::kLayer, &l.norm_weight, &l.norm_bias, rank_.config->norm_eps},
                        {{&l.u, rank_.columns.Of(u), Epilogue::kGelu}, {&l.g, rank_.columns.Of(g)}});
  rank_.communicator->AllGather({{u, rank_.columns.bounds()}});
  mixer_->Run(layer, u, g, state);
  const LinearCall out{&l.out, rank_.columns.Of(x), Epilogue::kAdd};
  rank_.backend->Linear(g, {}, {&out, 1});
  rank_.communicator->AllGather({{x, rank_.columns.bounds()}});
}

}  // namespace sessa
