#include "engine/model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/round.h"

namespace sessa {
namespace {

// [0, n) cut into `ranks` parts of whole units.
std::vector<int> Bounds(int n, int unit, int ranks) {
  const int units = CeilDiv(n, unit);
  std::vector<int> bounds;
  for (int r = 0; r <= ranks; ++r)
    bounds.push_back(std::min<int64_t>(n, static_cast<int64_t>(units) * r / ranks * unit));
  return bounds;
}

constexpr int kColumnUnit = 16;

}  // namespace

// Reads tensors by name, checks shapes, and remembers the first error, so that loading reads as a list.
class Model::Loader {
 public:
  Loader(const WeightSource& source, Backend* backend, DType dtype)
      : source_(source), backend_(backend), dtype_(dtype) {}

  const absl::Status& status() const { return status_; }

  WeightView View(const std::string& name, std::vector<int64_t> shape) {
    if (!status_.ok()) return {};
    auto view = source_.Get(name);
    if (!view.ok()) {
      status_ = view.status();
      return {};
    }
    if (view->shape != shape) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(view->shape, ", "),
                       "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
      return {};
    }
    return *std::move(view);
  }

  // Rows [begin, end) of name.weight [n, k], and of name.bias when there is one.
  LinearWeights Linear(const std::string& name, int n, int k, int begin, int end, bool has_bias) {
    const WeightView w = View(absl::StrCat(name, ".weight"), {n, k});
    const WeightView b = has_bias ? View(absl::StrCat(name, ".bias"), {n}) : WeightView{};
    if (!status_.ok()) return {};
    if (has_bias && b.dtype != w.dtype) {
      status_ =
          absl::InvalidArgumentError(absl::StrCat("tensors ", name, ".weight and .bias differ in dtype"));
      return {};
    }
    auto at = [&](const WeightView& v, int64_t row) {
      return static_cast<const char*>(v.data) + row * SizeOf(v.dtype);
    };
    auto linear = backend_->MakeLinear(at(w, static_cast<int64_t>(begin) * k),
                                       has_bias ? at(b, begin) : nullptr, w.dtype, end - begin, k, dtype_);
    if (absl::IsInvalidArgument(linear.status())) {
      linear =
          absl::InvalidArgumentError(absl::StrCat("tensor ", name, ".weight: ", linear.status().message()));
    }
    return Take(std::move(linear));
  }

  // A vector as float32.
  Buffer Vector(const std::string& name, std::vector<int64_t> shape) {
    const WeightView v = View(name, shape);
    if (!status_.ok()) return {};
    return Take(backend_->MakeTable(v.data, v.dtype, shape.back(), DType::kF32));
  }

  template <class T>
  T Take(absl::StatusOr<T> result) {
    if (result.ok()) return *std::move(result);
    if (status_.ok()) status_ = result.status();
    return T();
  }

 private:
  const WeightSource& source_;
  Backend* const backend_;
  const DType dtype_;
  absl::Status status_;
};

Model::Model(const ModelConfig& config, int max_rows, Backend* backend, Communicator* communicator)
    : config_(config), max_rows_(max_rows), backend_(backend), communicator_(communicator) {
  const int ranks = communicator->size(), rank = communicator->rank(), d = config.head_dim();
  column_bounds_ = Bounds(config.hidden_size, kColumnUnit, ranks);
  vocab_bounds_ = Bounds(config.vocab_size, kColumnUnit, ranks);
  head_bounds_ = Bounds(config.num_heads, 1, ranks);
  for (int h : head_bounds_) head_column_bounds_.push_back(h * d);
  const int group = config.num_heads / config.num_kv_heads, begin = head_bounds_[rank],
            end = head_bounds_[rank + 1];
  first_kv_head_ = begin / group;
  num_kv_heads_ = end > begin ? (end - 1) / group + 1 - first_kv_head_ : 0;
  for (int h = begin; h < end; ++h) q_to_kv_.push_back(h / group - first_kv_head_);
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelConfig& config, const WeightSource& weights,
                                                   DType weight_dtype, int max_rows, Backend* backend,
                                                   Communicator* communicator) {
  if (absl::Status s = config.Validate(); !s.ok()) return s;
  auto model = std::make_unique<Model>(config, max_rows, backend, communicator);
  if (absl::Status s = model->LoadWeights(weights, weight_dtype); !s.ok()) return s;
  return model;
}

absl::Status Model::LoadWeights(const WeightSource& weights, DType weight_dtype) {
  Loader load(weights, backend_, weight_dtype);
  const int D = config_.hidden_size, V = config_.vocab_size, kv = config_.kv_size(), d = config_.head_dim();
  const int rank = communicator_->rank();
  const int c0 = column_bounds_[rank], c1 = column_bounds_[rank + 1];
  const int h0 = head_column_bounds_[rank], h1 = head_column_bounds_[rank + 1];
  const int kv0 = first_kv_head_ * d, kv1 = kv0 + num_kv_heads_ * d;
  for (int i = 0; i < config_.num_layers && load.status().ok(); ++i) {
    const std::string p = absl::StrCat("layers.", i, ".");
    Layer& l = layers_.emplace_back();
    l.ln_weight = load.Vector(p + "ln.weight", {D});
    l.ln_bias = load.Vector(p + "ln.bias", {D});
    l.w_a = load.Linear(p + "W_in", 2 * D, D, c0, c1, true);
    l.w_g = load.Linear(p + "W_in", 2 * D, D, D + c0, D + c1, true);
    l.q = load.Linear(p + "mixer.q_proj", D, D, h0, h1, true);
    l.k = load.Linear(p + "mixer.k_proj", kv, D, kv0, kv1, true);
    l.v = load.Linear(p + "mixer.v_proj", kv, D, kv0, kv1, true);
    l.q_b = load.Linear(p + "mixer.proj_fb", 2 * D, D, c0, c1, true);
    l.k_b = load.Linear(p + "mixer.proj_fb", 2 * D, D, D + c0, D + c1, true);
    if (config_.num_heads > 1) l.out = load.Linear(p + "mixer.out_proj", D, D, c0, c1, false);
    l.gamma_ctx = load.Vector(p + "mixer.gamma_ctx.weight", {1, D});
    l.gamma_bias = load.Vector(p + "mixer.gamma_bias", {1});
    l.w_out = load.Linear(p + "W_out", D, D, c0, c1, true);
  }
  norm_weight_ = load.Vector("norm.weight", {D});
  norm_bias_ = load.Vector("norm.bias", {D});
  const WeightView embed = load.View("embed.weight", {V, D});
  lm_head_ = load.Linear(config_.tie_word_embeddings ? "embed" : "lm_head", V, D, vocab_bounds_[rank],
                         vocab_bounds_[rank + 1], false);
  if (!load.status().ok()) return load.status();
  // The embedding is read a row at a time: kept as a plain table, in the checkpoint's precision or float.
  embed_dtype_ = embed.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  embed_ = load.Take(backend_->MakeTable(embed.data, embed.dtype, static_cast<int64_t>(V) * D, embed_dtype_));
  if (!load.status().ok()) return load.status();
  return AllocateActivations();
}

absl::Status Model::AllocateActivations() {
  const size_t D = config_.hidden_size, rows = max_rows_, d = config_.head_dim();
  const size_t width = RoundUp(config_.hidden_size, kColumnUnit);
  for (auto [buffer, floats] : std::initializer_list<std::pair<Buffer*, size_t>>{
           {&x_, rows * D},
           {&u_, rows * D},
           {&g_, rows * D},
           {&q_, rows * D},
           {&k_, rows * num_kv_heads_ * d},
           {&v_, rows * num_kv_heads_ * d},
           {&o_, rows * D},
           {&q_b_, rows * D},
           {&k_b_, rows * D},
           {&f_, rows * D},
           {&s_, rows * D},
           {&sg_, rows * D},
           {&gamma_, rows},
           {&logit_in_, rows * D},
           {&logits_, rows * config_.vocab_size},
           {&max_, rows * kFeedbackChains},
           {&sum_, rows * kFeedbackChains},
           {&acc_, rows * kFeedbackChains * width},
           {&p_, rows * kFeedbackTile * communicator_->size()}}) {
    auto memory = backend_->Allocate(floats * sizeof(float));
    if (!memory.ok()) return memory.status();
    *buffer = *std::move(memory);
  }
  return absl::OkStatus();
}

LayerState Model::StateShape(DType dtype, int page_size, int num_pages) const {
  LayerState s;
  s.dtype = dtype;
  s.page_size = page_size;
  s.num_kv_heads = num_kv_heads_;
  s.head_dim = config_.head_dim();
  s.hidden_size = config_.hidden_size;
  s.num_feedback_pages = num_pages / communicator_->size();
  s.first_feedback_page = s.num_feedback_pages * communicator_->rank();
  return s;
}

void Model::BeginStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows, DType state_dtype) {
  step_.token_ids = plan.token_ids;
  step_.positions = plan.positions;
  step_.logit_rows = logit_rows;
  if (config_.use_forward_rope) {
    step_.head_dim = config_.head_dim();
    step_.rope_theta = config_.rope_theta;
  }
  step_.spans.clear();
  for (const PlanSequence& s : plan.sequences)
    step_.spans.push_back({s.first_row, s.num_rows, s.start, s.pages});
  CutIntoWaves(&step_, backend_->MaxBlockRows(state_dtype));
  backend_->BeginStep(step_);
}

Matrix Model::Forward(const StepPlan& plan, const std::vector<int32_t>& logit_rows, StateCache* cache,
                      ForwardTrace* trace) {
  const int rows = plan.num_rows(), D = config_.hidden_size;
  BeginStep(plan, logit_rows, cache->layer(0)->dtype);
  const Matrix x = Rows(x_, rows, D);
  backend_->Embed(embed_, embed_dtype_, x);
  for (int i = 0; i < config_.num_layers; ++i) {
    RunLayer(layers_[i], rows, cache->layer(i));
    if (trace != nullptr) {
      auto& hidden = trace->hidden.emplace_back(static_cast<size_t>(rows) * D);
      backend_->CopyOut(x.data, hidden.size() * sizeof(float), hidden.data());
    }
  }
  const int n = static_cast<int>(logit_rows.size());
  const Matrix in = Rows(logit_in_, n, D), logits = Rows(logits_, n, config_.vocab_size);
  backend_->GatherLogitRows(x, in);
  const int rank = communicator_->rank();
  const LinearCall head{&lm_head_, logits.Columns(vocab_bounds_[rank], vocab_bounds_[rank + 1])};
  backend_->LayerNormLinear(in, {&norm_weight_, &norm_bias_, config_.norm_eps}, {&head, 1});
  communicator_->AllGather({{logits, vocab_bounds_}});
  return logits;
}

// One layer of docs/architecture.md, "The model", in its order. Every matrix is full width; this rank fills
// its columns and the rest is gathered.
void Model::RunLayer(const Layer& layer, int rows, LayerState* state) {
  const int D = config_.hidden_size, d = config_.head_dim(), rank = communicator_->rank();
  const int c0 = column_bounds_[rank], c1 = column_bounds_[rank + 1];
  const int h0 = head_column_bounds_[rank], h1 = head_column_bounds_[rank + 1];
  const Matrix x = Rows(x_, rows, D), u = Rows(u_, rows, D), g = Rows(g_, rows, D);
  const Matrix q = Rows(q_, rows, D).Columns(h0, h1), o = Rows(o_, rows, D);
  const Matrix k = Rows(k_, rows, num_kv_heads_ * d), v = Rows(v_, rows, num_kv_heads_ * d);
  const Matrix q_b = Rows(q_b_, rows, D), k_b = Rows(k_b_, rows, D), f = Rows(f_, rows, D);

  backend_->LayerNormLinear(
      x, {&layer.ln_weight, &layer.ln_bias, config_.norm_eps},
      {{&layer.w_a, u.Columns(c0, c1), Epilogue::kGelu}, {&layer.w_g, g.Columns(c0, c1)}});
  communicator_->AllGather({{u, column_bounds_}});

  backend_->Linear(u, {{&layer.q, q},
                       {&layer.k, k},
                       {&layer.v, v},
                       {&layer.q_b, q_b.Columns(c0, c1)},
                       {&layer.k_b, k_b.Columns(c0, c1)}});
  communicator_->AllGather({{q_b, column_bounds_}, {k_b, column_bounds_}});
  backend_->AppendRows({q, k, v, k_b, u, &layer.gamma_ctx, &layer.gamma_bias,
                        std::get<SessaConfig>(config_.family).gamma_max, gamma_.floats()},
                       state);
  backend_->AttendAndFeedbackRead({q, q_to_kv_, o.Columns(h0, h1)}, ReadOf(0, rows), *state);
  communicator_->AllGather({{o, head_column_bounds_}});
  if (config_.num_heads > 1) {
    const LinearCall out{&layer.out, f.Columns(c0, c1)};
    backend_->Linear(o, {&out, 1});
  }
  Feedback(rows, state);

  const LinearCall w_out{&layer.w_out, x.Columns(c0, c1), Epilogue::kAdd};
  backend_->Linear(Rows(sg_, rows, D), {&w_out, 1});
  communicator_->AllGather({{x, column_bounds_}});
}

FeedbackReadCall Model::ReadOf(int wave, int rows) const {
  const int D = config_.hidden_size;
  int n = 0;
  for (const RowSpan& block : step_.waves[wave]) n += block.num_rows;
  return {Rows(q_b_, rows, D),
          Rows(k_b_, rows, D),
          wave,
          communicator_->rank(),
          communicator_->size(),
          {max_.floats(), sum_.floats(), acc_.floats(),
           p_.floats() + int64_t{communicator_->rank()} * n * kFeedbackTile, n, RoundUp(D, kColumnUnit)}};
}

// (I - diag(gamma) alpha) s = f by forward substitution over blocks of rows: a block reads all earlier states
// from the cache (the first one has, beside the attention), then solves its own triangle. A decode step is a
// block of one row.
void Model::Feedback(int rows, LayerState* state) {
  const int D = config_.hidden_size, rank = communicator_->rank(), ranks = communicator_->size();
  const Matrix s = Rows(s_, rows, D), sg = Rows(sg_, rows, D);
  const Matrix f = config_.num_heads > 1 ? Rows(f_, rows, D) : Rows(o_, rows, D);
  for (int i = 0; i < static_cast<int>(step_.waves.size()) && !step_.waves[i].empty(); ++i) {
    const FeedbackReadCall read = ReadOf(i, rows);
    if (i > 0) backend_->FeedbackRead(read, *state);
    FeedbackPartials partials = read.partials;
    partials.p = p_.floats();
    if (ranks > 1) GatherPartials(partials);
    backend_->FeedbackSolve({i, ranks, partials, f, gamma_.floats(), column_bounds_[rank],
                             column_bounds_[rank + 1], s, Rows(g_, rows, D), sg, /*append=*/ranks == 1},
                            state);
    if (ranks > 1) {
      GatherRows(step_.waves[i], {s, sg});
      backend_->AppendFeedbackStates(s, i, state);
    }
  }
}

// A few rows for each chain, whatever the context length. Chain c is rank c % ranks': by columns of rows of
// `ranks` chains.
void Model::GatherPartials(const FeedbackPartials& partials) {
  const int ranks = communicator_->size(), n = partials.rows;
  std::vector<int> one_each, values, weights;  // bounds
  for (int r = 0; r <= ranks; ++r) {
    one_each.push_back(r * n);
    values.push_back(r * n * partials.width);
    weights.push_back(r * n * kFeedbackTile);
  }
  const auto rows = [](float* data, int num_rows, const std::vector<int>& bounds) {
    return Communicator::Columns{{data, num_rows, bounds.back(), bounds.back()}, bounds};
  };
  const int rounds = kFeedbackChains / ranks;
  communicator_->AllGather({rows(partials.max, rounds, one_each), rows(partials.sum, rounds, one_each),
                            rows(partials.acc, rounds, values), rows(partials.p, 1, weights)});
}

// The columns of [rows, D] matrices in the rows of some blocks, neighbours together.
void Model::GatherRows(const std::vector<RowSpan>& blocks, absl::Span<const Matrix> matrices) {
  std::vector<Communicator::Columns> parts;
  int begin = 0, end = 0;
  const auto add = [&] {
    for (const Matrix& m : matrices) parts.push_back({m.Rows(begin, end), column_bounds_});
  };
  for (const RowSpan& block : blocks) {
    if (block.first_row != end) {
      if (end > begin) add();
      begin = block.first_row;
    }
    end = block.first_row + block.num_rows;
  }
  add();
  communicator_->AllGather(parts);
}

}  // namespace sessa
