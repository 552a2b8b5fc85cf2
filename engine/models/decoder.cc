// Embedding, layers, last norm and head.
#include <algorithm>

#include "engine/models/model.h"

namespace sessa {

Model::Model(const ModelConfig& config, const ModelOptions& options, Backend* backend,
             Communicator* communicator)
    : config_(config),
      options_(options),
      backend_(backend),
      communicator_(communicator),
      vocabulary_(config.vocab_size, kColumnUnit, *communicator) {}

absl::StatusOr<std::unique_ptr<Model>> Model::Create(const ModelConfig& config, const ModelOptions& options,
                                                     Backend* backend, Communicator* communicator) {
  std::unique_ptr<Model> model(new Model(config, options, backend, communicator));
  auto family = MakeFamily({&model->config_, options, backend, communicator,
                            Shard(config.hidden_size, UnitOfColumns(options.state_dtype), *communicator)});
  if (!family.ok()) return family.status();
  model->family_ = *std::move(family);
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelConfig& config, const WeightSource& weights,
                                                   const ModelOptions& options, Backend* backend,
                                                   Communicator* communicator) {
  if (absl::Status s = config.Validate(); !s.ok()) return s;
  auto model = Create(config, options, backend, communicator);
  if (!model.ok()) return model.status();
  if (absl::Status s = (*model)->LoadWeights(weights); !s.ok()) return s;
  return model;
}

absl::Status Model::LoadWeights(const WeightSource& weights) {
  Loader load(weights, backend_, options_.weight_dtype);
  const int D = config_.hidden_size, V = config_.vocab_size;
  for (int i = 0; i < config_.num_layers && load.status().ok(); ++i) family_.layers->Load(i, &load);
  norm_weight_ = load.Vector(family_.norm + ".weight", {D});
  if (family_.norm_kind == Norm::Kind::kLayer) norm_bias_ = load.Vector(family_.norm + ".bias", {D});
  embed_ = load.Table(family_.embed + ".weight", V, D, &embed_dtype_);
  head_ = load.Linear(config_.tie_word_embeddings ? family_.embed : family_.head,
                      {V, D, vocabulary_.begin(), vocabulary_.end()});
  if (!load.status().ok()) return load.status();
  if (absl::Status s = family_.layers->AllocateActivations(); !s.ok()) return s;
  const size_t rows = options_.max_rows;
  return AllocateFloats(backend_, {{&x_, rows * D}, {&logit_in_, rows * D}, {&logits_, rows * V}});
}

std::vector<StateShape> Model::StateShapes() const {
  std::vector<StateShape> shapes;
  for (int i = 0; i < config_.num_layers; ++i) shapes.push_back(family_.layers->Shape(i));
  return shapes;
}

void Model::BeginStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows) {
  step_.token_ids = plan.token_ids;
  step_.positions = plan.positions;
  step_.logit_rows = logit_rows;
  step_.spans.clear();
  for (const PlanSequence& s : plan.sequences)
    step_.spans.push_back({s.first_row, s.num_rows, s.start, s.pages, s.slot, s.state_from, s.snapshots});
  family_.layers->BeginStep(&step_);
  backend_->BeginStep(step_);
}

Matrix Model::Forward(const StepPlan& plan, const std::vector<int32_t>& logit_rows, StateCache* cache,
                      ForwardTrace* trace) {
  const int rows = plan.num_rows(), D = config_.hidden_size;
  BeginStep(plan, logit_rows);
  const Matrix x = RowsOf(x_, rows, D);
  backend_->Embed(embed_, embed_dtype_, x);
  for (int i = 0; i < config_.num_layers; ++i) {
    family_.layers->Run(i, x, cache->layer(i));
    if (trace != nullptr) {
      auto& hidden = trace->hidden.emplace_back(static_cast<size_t>(rows) * D);
      backend_->CopyOut(x.data, hidden.size() * sizeof(float), hidden.data());
    }
  }
  const int n = static_cast<int>(logit_rows.size());
  const Matrix in = RowsOf(logit_in_, n, D), logits = RowsOf(logits_, n, config_.vocab_size);
  backend_->GatherLogitRows(x, in);
  const LinearCall head{&head_, vocabulary_.Of(logits)};
  backend_->Linear(in, {family_.norm_kind, &norm_weight_, &norm_bias_, config_.norm_eps}, {&head, 1});
  communicator_->AllGather({{logits, vocabulary_.bounds()}});
  return logits;
}

}  // namespace sessa
