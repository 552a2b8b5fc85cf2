#include "kernels/cuda/attention.h"

#include <cmath>

namespace sessa::cuda {

void Attention::BeginStep() {
  const int n = step_->bucket();
  half_ = static_cast<int>(step_->rows().inv_freq.size());
  if (half_ == 0 || !context_->Reserve(2 * sizeof(float) * n * half_, &rope_)) return;
  queue_->Enqueue(&RopeAngles, RowLaunch{context_->stream(), step_->live()}, step_->positions(),
                  step_->inv_freq(), step_->rows().rope_scale, n, half_, rope_.floats(),
                  rope_.floats() + int64_t{n} * half_);
}

void Attention::Append(const AppendCall& call, const FeedbackRows* feedback) {
  AppendArgs args = {};
  args.q = call.q, args.k = call.k, args.v = call.v;
  const RowLaunch on = queue_->Pad(&args.q, &args.k, &args.v);
  args.rows = args.q.rows;
  if (call.q_norm != nullptr) args.q_norm = call.q_norm->floats(), args.k_norm = call.k_norm->floats();
  args.norm_eps = call.norm_eps;
  args.half = half_;
  if (half_ > 0) args.cos = rope_.floats(), args.sin = args.cos + int64_t{step_->bucket()} * half_;
  args.spans = step_->spans(), args.row_span = step_->row_span();
  args.keys = VectorsOf(*call.keys), args.values = VectorsOf(*call.values);
  if (feedback != nullptr) {
    args.k_b = feedback->k_b, args.u = feedback->u;
    queue_->Pad(&args.k_b, &args.u);
    args.gamma_ctx = feedback->gamma_ctx->floats(), args.gamma_bias = feedback->gamma_bias->floats();
    args.gamma_max = feedback->gamma_max;
    args.gamma = feedback->gamma;
    args.feedback_keys = VectorsOf(*feedback->keys);
  }
  queue_->Enqueue(&AppendRows, on, args);
}

PlannedRead Attention::Plan(const AttendCall& call) {
  if (call.q_to_kv.empty() || !reads_.CanRead(*call.keys, *call.values)) return {};
  const PagedShape& shape = call.keys->shape;
  PagedRead read = {};
  read.q = call.q;
  read.keys = VectorsOf(*call.keys), read.values = VectorsOf(*call.values);
  read.scale = 1.0f / std::sqrt(static_cast<float>(shape.dim));
  read.window = call.window;
  read.num_chains = read.num_ranks = 1;
  read.out = call.out;
  const DeviceStep::Attention& plans = step_->AttentionOf({{call.q_to_kv.begin(), call.q_to_kv.end()},
                                                           shape.dim,
                                                           shape.dtype,
                                                           call.window,
                                                           call.keys->page_size});
  return {read, &plans.plan, {}, nullptr, &plans.panels};
}

}  // namespace sessa::cuda
