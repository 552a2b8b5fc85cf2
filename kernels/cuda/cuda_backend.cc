// The host side of the CUDA backend: the choice of kernels. Errors of enqueued work are kept and returned by
// Synchronize, and by every later one.
#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/device_step.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_layers.h"
#include "kernels/cuda/step_queue.h"

namespace sessa {
namespace {

using cuda::RowLaunch;

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaOptions& options, cudaStream_t stream, std::unique_ptr<cuda::Gemm> gemm)
      : options_(options),
        context_(options.device, stream),
        step_(&context_, /*use_tensor_cores=*/!options.batch_invariant),
        graphs_(stream),
        queue_(&context_, &step_, &graphs_),
        linears_(&context_, &queue_, std::move(gemm), options.batch_invariant) {}
  // Nothing may use the memory that is freed next.
  ~CudaBackend() override { context_.Wait("the last step"); }

  cudaStream_t stream() const { return context_.stream(); }
  const DecodeGraphCounts& graph_counts() const { return graphs_.counts(); }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return context_.Allocate(bytes); }

  int64_t FreeBytes() const override {
    size_t free = 0, total = 0;
    (void)cudaSetDevice(options_.device);
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  void CopyIn(const void* host, size_t bytes, void* device) override {
    queue_.Flush();
    if (bytes > 0)
      context_.Note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream()),
                    "copying to the GPU");
  }
  void CopyOut(const void* device, size_t bytes, void* host) override {
    queue_.Flush();
    context_.CopyOut(device, bytes, host);
  }

  absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n, int k,
                                           DType to) override {
    return linears_.Make(weight, bias, from, n, k, to);
  }

  absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) override {
    return context_.Upload(data, from, 1, n, n, to);
  }

  int MaxBlockRows(DType state_dtype) const override {
    return state_dtype == DType::kBF16 && !options_.batch_invariant ? cuda::kMaxPanelQueries : kFeedbackTile;
  }
  size_t StateBytesPerPage(const LayerState& s, bool feedback) const override {
    const size_t dim = feedback ? cuda::Padded(s.hidden_size) : s.num_kv_heads * cuda::Padded(s.head_dim);
    return 2 * SizeOf(s.dtype) * s.page_size * dim;
  }

  absl::Status AllocateState(int num_pages, LayerState* s) override {
    if (s->hidden_size > cuda::kMaxDim) {
      return absl::InvalidArgumentError(absl::StrCat("hidden_size: the CUDA backend takes at most ",
                                                     cuda::kMaxDim, ", the model has ", s->hidden_size));
    }
    const size_t forward = StateBytesPerPage(*s, false) / 2 * num_pages,
                 feedback = StateBytesPerPage(*s, true) / 2 * s->num_feedback_pages;
    for (auto [buffer, bytes] :
         {std::pair{&s->k_f, forward}, {&s->v_f, forward}, {&s->k_b, feedback}, {&s->s, feedback}}) {
      auto memory = Allocate(bytes);
      if (!memory.ok()) return memory.status();
      *buffer = *std::move(memory);
    }
    return absl::OkStatus();
  }

  void BeginStep(const StepRows& rows) override {
    queue_.Flush();
    context_.Use();
    context_.Wait("waiting for the last step");
    context_.FreeOutgrown();
    step_.Begin(rows);
    if (options_.decode_graphs && cuda::launch_switches().graphs && step_.is_decode()) graphs_.Defer();
    const int n = step_.bucket(), half = rows.head_dim / 2;
    if (half > 0 && context_.Reserve(2 * sizeof(float) * n * half, &rope_)) {
      queue_.Enqueue(&cuda::RopeAngles, RowLaunch{stream(), step_.live()}, step_.positions(),
                     step_.inv_freq(), n, half, rope_.floats(), rope_.floats() + int64_t{n} * half);
    }
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    const RowLaunch on = Pad(&x);
    queue_.Enqueue(&cuda::Embed, on, step_.token_ids(), table.data(), dtype, x);
  }
  void GatherLogitRows(Matrix x, Matrix y) override {
    const RowLaunch on = Pad(&x, &y);
    queue_.Enqueue(&cuda::GatherRows, on, x, step_.logit_rows(), y);
  }

  void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
              int32_t* tokens) override {
    const cuda::SampleTask* tasks = step_.SampleTasks(rows, edits, logits.cols);
    if (tasks == nullptr) return;  // no rows, or no memory
    struct {
      int rows;
    } count{static_cast<int>(rows.size())};
    const RowLaunch on = Pad(&count);
    Pad(&logits);
    queue_.Enqueue(&cuda::Sample, on, logits, tasks, count.rows, tokens);
  }

  void Linear(Matrix x, absl::Span<const LinearCall> calls) override { linears_.Run(x, nullptr, calls); }
  void LayerNormLinear(Matrix x, const LayerNorm& norm, absl::Span<const LinearCall> calls) override {
    linears_.Run(x, &norm, calls);
  }

  void AppendRows(const LayerRows& rows, LayerState* s) override {
    LayerRows r = rows;
    const RowLaunch on = Pad(&r.q, &r.k, &r.v, &r.k_b, &r.u);
    const int half = step_.head_dim() / 2;
    const float* cos = rope_.floats();
    const cuda::AppendArgs args{
        .q = r.q,
        .k = r.k,
        .v = r.v,
        .k_b = r.k_b,
        .u = r.u,
        .gamma_ctx = r.gamma_ctx->floats(),
        .gamma_bias = r.gamma_bias->floats(),
        .gamma_max = r.gamma_max,
        .gamma = r.gamma,
        .cos = cos,
        .sin = half > 0 ? cos + int64_t{step_.bucket()} * half : nullptr,
        .half = half,
        .spans = step_.spans(),
        .row_span = step_.row_span(),
        .keys = Keys(*s),
        .values = Values(*s),
        .feedback_keys = FeedbackKeys(*s),
    };
    queue_.Enqueue(&cuda::AppendRows, on, args);
  }
  void AppendFeedbackStates(Matrix x, int wave, LayerState* s) override {
    const cuda::DeviceStep::Wave& w = step_.WaveOf({wave, s->hidden_size, s->dtype});
    struct {
      int rows;
    } count{w.num_rows};
    const RowLaunch on = Pad(&count);
    Pad(&x);
    queue_.Enqueue(&cuda::Append, on, x, w.rows, count.rows, step_.spans(), step_.row_span(),
                   FeedbackStates(*s));
  }

  void Attend(const AttendCall& call, const LayerState& s) override { Read(PlanAttention(call, s)); }
  void FeedbackRead(const FeedbackReadCall& call, const LayerState& s) override {
    Read(PlanFeedback(call, s));
  }
  // Blocks of few queries are read together, the feedback, whose tiles are larger, first.
  void AttendAndFeedbackRead(const AttendCall& attend, const FeedbackReadCall& read,
                             const LayerState& s) override {
    const PlannedRead forward = PlanAttention(attend, s), feedback = PlanFeedback(read, s);
    const size_t both = std::min(forward.num_few_groups(), feedback.num_few_groups());
    for (size_t i = 0; i < both; ++i) {
      const int num_ctas = step_.NumCtas(feedback.plan->groups[i], forward.plan->groups[i].num_items);
      EnqueueFew({{OfGroup(feedback, i), OfGroup(forward, i)}, 2}, num_ctas);
    }
    Read(feedback, both);
    Read(forward, both);
  }

  void FeedbackSolve(const FeedbackSolveCall& call, LayerState* state) override {
    const FeedbackPartials& in = call.partials;
    const auto& wave = step_.WaveOf({call.wave, state->hidden_size, state->dtype});
    const cuda::ReadPlan& plan = wave.plan;
    FeedbackPartials padded = in;
    Matrix f = call.f, s = call.s, g = call.g, gated = call.gated;
    const RowLaunch on = Pad(&padded, &f, &s, &g, &gated);
    const cuda::FeedbackSolveArgs args{
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
        .states = call.append ? FeedbackStates(*state) : cuda::PagedVectors{},
        .gamma = call.gamma,
        .round_to_bf16 = state->dtype == DType::kBF16,
        .begin = call.begin,
        .end = call.end,
    };
    for (const cuda::ReadGroup& group : plan.groups) {
      const bool by_inverse = group.path != cuda::ReadPath::kFewQueries && !options_.batch_invariant;
      const cuda::ReadBlock* blocks = plan.device_blocks + group.first;
      queue_.Enqueue(&cuda::FeedbackSolve, stream(), args, blocks, group.count, by_inverse);
    }
    if (!wave.own.blocks.empty()) {
      const cuda::PanelSolve solve{in.max,
                                   in.sum,
                                   in.acc,
                                   in.rows,
                                   in.width,
                                   f,
                                   s,
                                   g,
                                   gated,
                                   call.gamma,
                                   call.begin,
                                   call.end,
                                   call.append ? FeedbackStates(*state) : cuda::PagedVectors{},
                                   step_.panel_scratch(),
                                   wave.own.panel_rows,
                                   wave.own.device_blocks,
                                   static_cast<int>(wave.own.blocks.size()),
                                   wave.max_panel_rows};
      queue_.Enqueue(&cuda::SolvePanels, stream(), solve);
    }
  }

  void ReadState(const LayerState& state, const int32_t* pages, int n, float* k_f, float* v_f, float* k_b,
                 float* s) override {
    queue_.Flush();
    auto table = context_.Upload(pages, DType::kI32, 1, CeilDiv(n, state.page_size), 0, DType::kI32);
    for (auto [from, to] : {std::pair{Keys(state), k_f},
                            {Values(state), v_f},
                            {FeedbackKeys(state), k_b},
                            {FeedbackStates(state), s}}) {
      if (to == nullptr) continue;
      const size_t bytes = sizeof(float) * n * from.num_heads * from.dim;
      auto rows = Allocate(bytes);
      if (!table.ok() || !rows.ok()) return context_.Fail(table.ok() ? rows.status() : table.status());
      cuda::ReadBack(stream(), from, static_cast<const int32_t*>(table->data()), n, rows->floats());
      CopyOut(rows->data(), bytes, to);
      context_.Wait("reading state back");
    }
  }

  absl::Status Synchronize() override {
    queue_.Flush();
    if (const std::string failure = cuda::TakeLaunchFailure(); !failure.empty())
      context_.Fail(absl::InternalError(absl::StrCat("GPU ", options_.device, ", starting ", failure)));
    context_.Wait("running kernels");
    context_.Note(cudaGetLastError(), "starting kernels");
    return context_.status();
  }

 private:
  template <class... M>
  RowLaunch Pad(M*... operands) const {
    return queue_.Pad(operands...);
  }

  static cuda::PagedVectors Forward(const Buffer& b, const LayerState& s) {
    return {b.data(), s.dtype, s.page_size, s.num_kv_heads, s.head_dim, 0, std::numeric_limits<int>::max()};
  }
  static cuda::PagedVectors Feedback(const Buffer& b, const LayerState& s) {
    return {b.data(), s.dtype, s.page_size, 1, s.hidden_size, s.first_feedback_page, s.num_feedback_pages};
  }
  static cuda::PagedVectors Keys(const LayerState& s) { return Forward(s.k_f, s); }
  static cuda::PagedVectors Values(const LayerState& s) { return Forward(s.v_f, s); }
  static cuda::PagedVectors FeedbackKeys(const LayerState& s) { return Feedback(s.k_b, s); }
  static cuda::PagedVectors FeedbackStates(const LayerState& s) { return Feedback(s.s, s); }

  struct PlannedRead {
    cuda::PagedRead read;
    const cuda::ReadPlan* plan;  // null: there is nothing to read
    // Of blocks of many queries: the step's own keys, the wave's own tiles and what is before them.
    Matrix k;
    const cuda::PanelPlan *own, *panels;

    size_t num_few_groups() const {  // they come first
      const auto is_many = [](const cuda::ReadGroup& g) { return g.path != cuda::ReadPath::kFewQueries; };
      return plan == nullptr ? 0 : std::ranges::find_if(plan->groups, is_many) - plan->groups.begin();
    }
  };
  PlannedRead PlanAttention(const AttendCall& call, const LayerState& s) {
    if (call.q_to_kv.empty()) return {};
    cuda::PagedRead read = {};
    read.q = call.q;
    read.keys = Keys(s);
    read.values = Values(s);
    read.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    read.num_chains = read.num_ranks = 1;
    read.out = call.out;
    const auto& attention =
        step_.AttentionOf({{call.q_to_kv.begin(), call.q_to_kv.end()}, s.head_dim, s.dtype});
    return {read, &attention.plan, {}, nullptr, &attention.panels};
  }
  PlannedRead PlanFeedback(const FeedbackReadCall& call, const LayerState& s) {
    FeedbackPartials out = call.partials;
    cuda::PagedRead read = {};
    read.q = call.q_b;
    read.keys = FeedbackKeys(s);
    read.values = FeedbackStates(s);
    read.scale = 1.0f / std::sqrt(static_cast<float>(s.hidden_size));
    read.feedback = true;
    read.num_chains = kFeedbackChains;
    read.rank = call.rank;
    read.num_ranks = call.num_ranks;
    read.max = out.max, read.sum = out.sum, read.acc = out.acc, read.p = out.p;
    read.width = out.width;
    read.live = Pad(&out).live;
    read.partial_rows = out.rows;
    const cuda::DeviceStep::WaveKey key{call.wave, s.hidden_size, s.dtype};
    const auto& wave = step_.WaveOf(key);
    return {read, &wave.plan, call.k_b, &wave.own, &step_.PastOf(key, call.num_ranks).plan};
  }
  cuda::PagedRead OfGroup(const PlannedRead& planned, size_t i) const {
    const cuda::ReadGroup& g = planned.plan->groups[i];
    cuda::PagedRead read = planned.read;
    Pad(&read.q, &read.out);
    read.work = planned.plan->device_work + i;
    read.blocks = planned.plan->device_blocks + g.first;
    read.num_blocks = g.count;
    read.max_queries = g.max_queries;
    return read;
  }

  // The groups from `first` on, and the panels.
  void Read(const PlannedRead& planned, size_t first = 0) {
    if (planned.plan == nullptr) return;
    for (size_t i = first; i < planned.plan->groups.size(); ++i) {
      const cuda::ReadPath path = planned.plan->groups[i].path;
      const int num_ctas = step_.NumCtas(planned.plan->groups[i]);
      const cuda::PagedRead read = OfGroup(planned, i);
      if (path == cuda::ReadPath::kFewQueries) {
        EnqueueFew({{read, {}}, 1}, num_ctas);
        continue;
      }
      if (!context_.status().ok()) return;  // no scratch, perhaps
      queue_.Enqueue(path == cuda::ReadPath::kManyQueries ? &cuda::ReadManyQueries : &cuda::FusedAttention,
                     stream(), read, num_ctas);
    }
    ReadPanels(planned.read, planned.k, planned.own, *planned.panels);
  }
  void EnqueueFew(const cuda::FewReads& reads, int num_ctas) {
    if (!context_.status().ok()) return;  // no scratch, perhaps
    queue_.Enqueue(&cuda::ReadFewQueries, stream(), reads, num_ctas);
  }

  void ReadPanels(const cuda::PagedRead& read, Matrix k, const cuda::PanelPlan* own,
                  const cuda::PanelPlan& plan) {
    if (!context_.status().ok() || plan.blocks.empty()) return;
    constexpr float kLog2E = 1.44269504f;
    cuda::PanelRead r = {};
    r.q = read.q, r.k = k;
    r.keys = read.keys, r.values = read.values;
    r.scale = read.scale * kLog2E;
    r.feedback = read.feedback;
    r.rank = read.rank, r.num_ranks = read.num_ranks;
    r.scratch = step_.panel_scratch();
    r.out = read.out;
    r.max = read.max, r.sum = read.sum, r.acc = read.acc;
    r.partial_rows = read.partial_rows, r.width = read.width;
    if (own != nullptr) {
      const cuda::PanelPass& pass = own->passes[0];
      queue_.Enqueue(&cuda::ReadOwnPanels, stream(), OfPass(r, *own, pass), pass);
    }
    for (const cuda::PanelPass& pass : plan.passes) {
      const bool round = own == nullptr && plan.blocks[pass.first].pass == 0;
      queue_.Enqueue(&cuda::ReadPanels, stream(), OfPass(r, plan, pass), pass, round);
    }
  }

  const CudaOptions options_;
  cuda::Context context_;
  cuda::DeviceStep step_;
  cuda::DecodeGraphs graphs_;
  cuda::StepQueue queue_;
  cuda::LinearLayers linears_;

  Buffer rope_;  // cos, then sin: [bucket, head_dim / 2] of the step
};

}  // namespace

cudaStream_t CudaStreamOf(const Backend& backend) {
  return static_cast<const CudaBackend&>(backend).stream();
}

DecodeGraphCounts DecodeGraphCountsOf(const Backend& backend) {
  return static_cast<const CudaBackend&>(backend).graph_counts();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options) {
  const auto fail = [](cudaError_t error, const std::string& what) {
    return absl::UnavailableError(absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error)));
  };
  int num_devices = 0;
  if (cudaError_t e = cudaGetDeviceCount(&num_devices); e != cudaSuccess)
    return fail(e, "no GPU can be used");
  if (options.device < 0 || options.device >= num_devices) {
    return absl::UnavailableError(
        absl::StrCat("CUDA: GPU ", options.device, " is asked for, this machine has ", num_devices));
  }
  if (cudaError_t e = cudaSetDevice(options.device); e != cudaSuccess)
    return fail(e, absl::StrCat("GPU ", options.device));
  cudaStream_t stream = nullptr;
  if (cudaError_t e = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); e != cudaSuccess)
    return fail(e, "making a stream");
  auto gemm = cuda::Gemm::Create();
  if (!gemm.ok()) {
    (void)cudaStreamDestroy(stream);
    return gemm.status();
  }
  return std::make_unique<CudaBackend>(options, stream, *std::move(gemm));
}

}  // namespace sessa
