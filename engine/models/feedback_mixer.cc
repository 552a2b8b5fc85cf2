#include "engine/models/feedback_mixer.h"

namespace sessa {

FeedbackMixer::FeedbackMixer(const ModelRank& rank)
    : rank_(rank), gamma_max_(std::get<SessaConfig>(rank.config->family).gamma_max), attention_(rank) {}

StateShape FeedbackMixer::Shape() const {
  const DType dtype = rank_.options.state_dtype;
  const int D = rank_.config->hidden_size;
  StateShape shape = attention_.Shape();
  for (PagedShape::Use use : {PagedShape::Use::kKey, PagedShape::Use::kValue})
    shape.paged.push_back({use, 1, D, dtype, /*by_tile=*/true});
  return shape;
}

void FeedbackMixer::Load(int, const std::string& prefix, Loader* load) {
  const int D = rank_.config->hidden_size;
  const int begin = rank_.columns.begin(), end = rank_.columns.end();
  Layer& l = layers_.emplace_back();
  l.in = attention_.Load(prefix, /*has_bias=*/true, /*half_split=*/false, load);
  l.q_b = load->Linear(prefix + "proj_fb", {2 * D, D, begin, end, true});
  l.k_b = load->Linear(prefix + "proj_fb", {2 * D, D, D + begin, D + end, true});
  if (rank_.config->num_heads > 1) l.out = load->Linear(prefix + "out_proj", {D, D, begin, end});
  l.gamma_ctx = load->Vector(prefix + "gamma_ctx.weight", {1, D});
  l.gamma_bias = load->Vector(prefix + "gamma_bias", {1});
}

absl::Status FeedbackMixer::AllocateActivations() {
  const size_t D = rank_.config->hidden_size, rows = rank_.options.max_rows;
  const size_t width = RoundUp(rank_.config->hidden_size, kColumnUnit);
  if (absl::Status s = attention_.AllocateActivations(); !s.ok()) return s;
  return AllocateFloats(rank_.backend, {{&q_b_, rows * D},
                                        {&k_b_, rows * D},
                                        {&f_, rows * D},
                                        {&s_, rows * D},
                                        {&gamma_, rows},
                                        {&max_, rows * kFeedbackChains},
                                        {&sum_, rows * kFeedbackChains},
                                        {&acc_, rows * kFeedbackChains * width},
                                        {&p_, rows * kTileTokens * rank_.communicator->size()}});
}

void FeedbackMixer::BeginStep(StepRows* rows) {
  attention_.BeginStep(rows);
  CutIntoWaves(rows, rank_.backend->feedback()->MaxBlockRows(rank_.options.state_dtype));
  step_ = rows;
}

void FeedbackMixer::Run(int layer, Matrix u, Matrix g, LayerState* state) {
  const Layer& l = layers_[layer];
  const int rows = u.rows, D = u.cols;
  const Matrix o = attention_.o(rows);
  const Matrix q_b = RowsOf(q_b_, rows, D), k_b = RowsOf(k_b_, rows, D), f = RowsOf(f_, rows, D);

  rank_.backend->Linear(u, {},
                        {{&l.in.q, attention_.q(rows)},
                         {&l.in.k, attention_.k(rows)},
                         {&l.in.v, attention_.v(rows)},
                         {&l.q_b, rank_.columns.Of(q_b)},
                         {&l.k_b, rank_.columns.Of(k_b)}});
  rank_.communicator->AllGather({{q_b, rank_.columns.bounds()}, {k_b, rank_.columns.bounds()}});
  FeedbackOps* feedback = rank_.backend->feedback();
  feedback->Append(attention_.AppendTo(state, rows), {k_b, u, &l.gamma_ctx, &l.gamma_bias, gamma_max_,
                                                      gamma_.floats(), &state->paged[kFeedbackKeys]});
  feedback->AttendAndRead(attention_.AttendTo(state, rows), ReadOf(0, rows, *state));
  attention_.Gather(rows);
  if (rank_.config->num_heads > 1) {
    const LinearCall out{&l.out, rank_.columns.Of(f)};
    rank_.backend->Linear(o, {}, {&out, 1});
  }
  Feedback(rank_.config->num_heads > 1 ? f : o, g, state);
}

// What the feedback reads for a wave of the step.
FeedbackReadCall FeedbackMixer::ReadOf(int wave, int rows, const LayerState& state) const {
  const int D = rank_.config->hidden_size, rank = rank_.communicator->rank();
  int n = 0;
  for (const RowSpan& block : step_->waves[wave]) n += block.num_rows;
  return {RowsOf(q_b_, rows, D),
          RowsOf(k_b_, rows, D),
          wave,
          rank,
          rank_.communicator->size(),
          {max_.floats(), sum_.floats(), acc_.floats(), p_.floats() + int64_t{rank} * n * kTileTokens, n,
           RoundUp(D, kColumnUnit)},
          &state.paged[kFeedbackKeys],
          &state.paged[kStates]};
}

// (I - diag(gamma) alpha) s = f by forward substitution over blocks of rows: a block reads all earlier states
// from the cache (the first one has, beside the attention), then solves its own triangle. A decode step is a
// block of one row.
void FeedbackMixer::Feedback(Matrix f, Matrix g, LayerState* state) {
  const int ranks = rank_.communicator->size();
  const Matrix s = RowsOf(s_, g.rows, g.cols);
  FeedbackOps* feedback = rank_.backend->feedback();
  PagedTensor* states = &state->paged[kStates];
  for (int i = 0; i < static_cast<int>(step_->waves.size()) && !step_->waves[i].empty(); ++i) {
    const FeedbackReadCall read = ReadOf(i, g.rows, *state);
    if (i > 0) feedback->Read(read);
    FeedbackPartials partials = read.partials;
    partials.p = p_.floats();
    if (ranks > 1) GatherPartials(partials);
    feedback->Solve({i, ranks, partials, f, gamma_.floats(), rank_.columns.begin(), rank_.columns.end(), s, g,
                     g,
                     /*append=*/ranks == 1, states});
    if (ranks > 1) {
      GatherRows(step_->waves[i], {s, g});
      feedback->AppendStates(s, i, states);
    }
  }
}

// A few rows for each chain, whatever the context length. Chain c is rank c % ranks': by columns of rows of
// `ranks` chains.
void FeedbackMixer::GatherPartials(const FeedbackPartials& partials) {
  const int ranks = rank_.communicator->size(), n = partials.rows;
  std::vector<int> one_each, values, weights;  // bounds
  for (int r = 0; r <= ranks; ++r) {
    one_each.push_back(r * n);
    values.push_back(r * n * partials.width);
    weights.push_back(r * n * kTileTokens);
  }
  const auto rows = [](float* data, int num_rows, const std::vector<int>& bounds) {
    return Communicator::Columns{{data, num_rows, bounds.back(), bounds.back()}, bounds};
  };
  const int rounds = kFeedbackChains / ranks;
  rank_.communicator->AllGather({rows(partials.max, rounds, one_each), rows(partials.sum, rounds, one_each),
                                 rows(partials.acc, rounds, values), rows(partials.p, 1, weights)});
}

// The columns of [rows, D] matrices in the rows of some blocks, neighbours together.
void FeedbackMixer::GatherRows(const std::vector<RowSpan>& blocks, absl::Span<const Matrix> matrices) {
  std::vector<Communicator::Columns> parts;
  int begin = 0, end = 0;
  const auto add = [&] {
    for (const Matrix& m : matrices) parts.push_back({m.Rows(begin, end), rank_.columns.bounds()});
  };
  for (const RowSpan& block : blocks) {
    if (block.first_row != end) {
      if (end > begin) add();
      begin = block.first_row;
    }
    end = block.first_row + block.num_rows;
  }
  add();
  rank_.communicator->AllGather(parts);
}

}  // namespace sessa
