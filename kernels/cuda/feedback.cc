#include "kernels/cuda/feedback.h"

#include <cmath>

namespace sessa::cuda {
void Feedback::AppendStates(Matrix s, int wave, PagedTensor* states) {
  const DeviceStep::Wave& w = step_->WaveOf(KeyOf(wave, *states));
  int num_rows = w.num_rows;
  const RowLaunch on = queue_->Pad(&num_rows);
  queue_->Pad(&s);
  queue_->Enqueue(&cuda::Append, on, s, w.rows, num_rows, step_->spans(), step_->row_span(),
                  VectorsOf(*states));
}

PlannedRead Feedback::Plan(const FeedbackReadCall& call) {
  if (!attention_->reads()->CanRead(*call.keys, *call.states)) return {};
  FeedbackPartials out = call.partials;
  PagedRead read = {};
  read.q = call.q_b;
  read.keys = VectorsOf(*call.keys), read.values = VectorsOf(*call.states);
  read.scale = 1.0f / std::sqrt(static_cast<float>(call.keys->shape.dim));
  read.feedback = true;
  read.num_chains = kFeedbackChains;
  read.rank = call.rank, read.num_ranks = call.num_ranks;
  read.max = out.max, read.sum = out.sum, read.acc = out.acc, read.p = out.p;
  read.width = out.width;
  read.live = queue_->Pad(&out).live;
  read.partial_rows = out.rows;
  const DeviceStep::WaveKey key = KeyOf(call.wave, *call.keys);
  const DeviceStep::Wave& wave = step_->WaveOf(key);
  return {read, &wave.plan, call.k_b, &wave.own, &step_->PastOf(key, call.num_ranks).plan};
}

void Feedback::Solve(const FeedbackSolveCall& call) {
  const FeedbackPartials& in = call.partials;
  const DeviceStep::Wave& wave = step_->WaveOf(KeyOf(call.wave, *call.states));
  const PagedVectors states = call.append ? VectorsOf(*call.states) : PagedVectors{};
  FeedbackPartials padded = in;
  Matrix f = call.f, s = call.s, g = call.g, gated = call.gated;
  const RowLaunch on = queue_->Pad(&padded, &f, &s, &g, &gated);
  const FeedbackSolveArgs args{
      .max = in.max,
      .sum = in.sum,
      .acc = in.acc,
      .p = in.p,
      .num_ranks = call.num_ranks,
      .partial_rows = padded.rows,
      .width = in.width,
      .live = on.live,
      .f = f,
      .s = s,
      .g = g,
      .gated = gated,
      .states = states,
      .gamma = call.gamma,
      .state_dtype = call.states->shape.dtype,
      .begin = call.begin,
      .end = call.end,
  };
  for (const ReadGroup& group : wave.plan.groups) {
    const bool by_inverse =
        group.path != ReadPath::kFewQueries && !batch_invariant_ && args.state_dtype != DType::kI8;
    queue_->Enqueue(&FeedbackSolve, context_->stream(), args, wave.plan.device_blocks + group.first,
                    group.count, by_inverse);
  }
  if (wave.own.blocks.empty()) return;
  PanelSolve solve = {};
  solve.max = in.max, solve.sum = in.sum, solve.acc = in.acc;
  solve.partial_rows = in.rows, solve.width = in.width;
  solve.f = f, solve.s = s, solve.g = g, solve.gated = gated;
  solve.gamma = call.gamma;
  solve.begin = call.begin, solve.end = call.end;
  // A thread block of the triangle has 32 columns, which is half of what shares an exponent.
  const bool is_int8 = call.states->shape.dtype == DType::kI8;
  if (!is_int8) solve.states = states;
  solve.scratch = step_->panel_scratch();
  solve.panel_rows = wave.own.panel_rows;
  solve.blocks = wave.own.device_blocks;
  solve.num_blocks = static_cast<int>(wave.own.blocks.size());
  solve.max_rows = wave.max_panel_rows;
  queue_->Enqueue(&SolvePanels, context_->stream(), solve);
  if (is_int8 && call.append) AppendStates(call.s, call.wave, call.states);
}

}  // namespace sessa::cuda
