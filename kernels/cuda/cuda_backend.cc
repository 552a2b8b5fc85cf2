// The host side of the CUDA backend: the choice of kernels, and whether they are enqueued at once or, in a
// decode step, by a graph. Errors of enqueued work are kept and returned by Synchronize, and by every later
// one.
#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/device_step.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernels.h"

namespace sessa {
namespace {

using cuda::RowLaunch;

// cuBLASLt's tiles are worth it from here on; below, reading the weights is the work.
constexpr int kGemmRows = 64;
// Of the partial sums of one launch; about the L2 cache of an H100.
constexpr int64_t kScratchFloats = int64_t{8} << 20;

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaOptions& options, cudaStream_t stream, std::unique_ptr<cuda::Gemm> gemm)
      : options_(options),
        gemm_(std::move(gemm)),
        context_(options.device, stream),
        step_(&context_, /*use_tensor_cores=*/!options.batch_invariant),
        graphs_(stream) {}
  // Nothing may use the memory that is freed next.
  ~CudaBackend() override { context_.Wait("the last step"); }

  cudaStream_t stream() const { return context_.stream(); }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return context_.Allocate(bytes); }

  int64_t FreeBytes() const override {
    size_t free = 0, total = 0;
    (void)cudaSetDevice(options_.device);
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  void CopyIn(const void* host, size_t bytes, void* device) override {
    Flush();
    if (bytes > 0)
      context_.Note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream()),
                    "copying to the GPU");
  }
  void CopyOut(const void* device, size_t bytes, void* host) override {
    Flush();
    if (bytes > 0)
      context_.Note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream()),
                    "copying from the GPU");
  }

  absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n, int k,
                                           DType to) override {
    if (to != DType::kF32 && to != DType::kBF16) {
      return absl::UnimplementedError(
          absl::StrCat("the CUDA backend has weights in f32 and bf16, not in ", Name(to)));
    }
    LinearWeights w;
    w.n = n, w.k = k, w.dtype = to;
    auto memory = context_.Upload(weight, from, n, k, cuda::Padded(k), to);
    if (!memory.ok()) return memory.status();
    w.weight = *std::move(memory);
    if (bias != nullptr) {
      memory = context_.Upload(bias, from, 1, n, n, DType::kF32);
      if (!memory.ok()) return memory.status();
      w.bias = *std::move(memory);
    }
    return w;
  }

  absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) override {
    return context_.Upload(data, from, 1, n, n, to);
  }

  size_t StateBytesPerPage(const LayerState& s, bool feedback) const override {
    const size_t dim = feedback ? cuda::Padded(s.hidden_size) : s.num_kv_heads * cuda::Padded(s.head_dim);
    return 2 * SizeOf(s.dtype) * s.page_size * dim;
  }

  absl::Status AllocateState(int num_pages, LayerState* s) override {
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
    Flush();
    context_.Use();
    context_.Wait("waiting for the last step");
    context_.FreeOutgrown();
    step_.Begin(rows);
    if (options_.decode_graphs && step_.is_decode()) graphs_.Defer();
    const int n = step_.bucket(), half = rows.head_dim / 2;
    if (half > 0 && context_.Reserve(2 * sizeof(float) * n * half, &rope_)) {
      const RowLaunch on{stream(), step_.live()};
      Enqueue(
          [on, n, half, positions = step_.positions(), inv_freq = step_.inv_freq(), out = rope_.floats()] {
            cuda::RopeAngles(on, positions, inv_freq, n, half, out, out + int64_t{n} * half);
          },
          "rope angles", on, n, half, step_.positions(), step_.inv_freq(), rope_.floats());
    }
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    const RowLaunch on = Pad(&x);
    Enqueue([=, ids = step_.token_ids(), data = table.data()] { cuda::Embed(on, ids, data, dtype, x); },
            "embed", on, step_.token_ids(), table.data(), dtype, x);
  }
  void LayerNorm(Matrix x, const Buffer& weight, const Buffer& bias, float eps, Matrix y) override {
    const RowLaunch on = Pad(&x, &y);
    Enqueue([=, w = weight.floats(), b = bias.floats()] { cuda::LayerNorm(on, x, w, b, eps, y); },
            "layer norm", on, x, weight.floats(), bias.floats(), eps, y);
  }
  void Gelu(Matrix x) override {
    const RowLaunch on = Pad(&x);
    Enqueue([=] { cuda::Gelu(on, x); }, "gelu", on, x);
  }
  void Multiply(Matrix a, Matrix b, Matrix y) override {
    const RowLaunch on = Pad(&a, &b, &y);
    Enqueue([=] { cuda::Multiply(on, a, b, y); }, "multiply", on, a, b, y);
  }
  void Add(Matrix a, Matrix y) override {
    const RowLaunch on = Pad(&a, &y);
    Enqueue([=] { cuda::Add(on, a, y); }, "add", on, a, y);
  }
  void Rope(Matrix x) override {
    const RowLaunch on = Pad(&x);
    const float* cos = rope_.floats();
    const int head_dim = step_.head_dim();
    const int64_t size = int64_t{step_.bucket()} * (head_dim / 2);
    Enqueue([=] { cuda::Rope(on, x, head_dim, cos, cos + size); }, "rope", on, x, head_dim, cos, size);
  }
  void Gamma(Matrix u, const Buffer& gamma_ctx, const Buffer& gamma_bias, float gamma_max,
             float* gamma) override {
    const RowLaunch on = Pad(&u);
    Enqueue(
        [=, c = gamma_ctx.floats(), b = gamma_bias.floats()] { cuda::Gamma(on, u, c, b, gamma_max, gamma); },
        "gamma", on, u, gamma_ctx.floats(), gamma_bias.floats(), gamma_max, gamma);
  }
  void GatherLogitRows(Matrix x, Matrix y) override {
    const RowLaunch on = Pad(&x, &y);
    Enqueue([=, rows = step_.logit_rows()] { cuda::GatherRows(on, x, rows, y); }, "gather", on, x,
            step_.logit_rows(), y);
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
    Enqueue([=, n = count.rows] { cuda::Sample(on, logits, tasks, n, tokens); }, "sample", on, logits, tasks,
            count.rows, tokens);
  }

  void Linear(Matrix x, absl::Span<const LinearCall> calls) override {
    if (x.rows == 0 || calls.empty()) return;
    const RowLaunch on = Pad(&x);
    const DType dtype = calls[0].weights->dtype;
    const bool gemm = x.rows >= kGemmRows && !options_.batch_invariant;
    Tasks tasks = {};
    int num_tasks = 0;
    for (const LinearCall& call : calls) {
      const LinearWeights& w = *call.weights;
      Matrix y = call.y;
      y.rows = x.rows;
      if (w.n > 0) tasks[num_tasks++] = {w.weight.data(), w.bias.floats(), y, w.n, 0};
      if (num_tasks == cuda::kMaxLinearTasks || (num_tasks > 0 && &call == &calls.back())) {
        gemm ? GemmLinear(on, x, tasks, num_tasks, dtype) : OwnLinear(on, x, tasks, num_tasks, dtype);
        num_tasks = 0;
      }
    }
  }

  void AppendForward(Matrix k, Matrix v, LayerState* s) override {
    Append(k, Keys(*s));
    Append(v, Values(*s));
  }
  void AppendFeedbackKeys(Matrix k_b, LayerState* s) override { Append(k_b, FeedbackKeys(*s)); }
  void AppendFeedbackStates(Matrix x, int wave, LayerState* s) override {
    const cuda::DeviceStep::Wave& w = step_.WaveOf(wave, s->hidden_size, s->dtype);
    AppendRows(x, w.rows, w.num_rows, FeedbackStates(*s));
  }

  void Attend(Matrix q, absl::Span<const int> q_to_kv, const LayerState& s, Matrix out) override {
    if (q_to_kv.empty()) return;
    cuda::PagedRead read = {};
    read.q = q;
    read.keys = Keys(s);
    read.values = Values(s);
    read.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    read.num_chains = read.num_ranks = 1;
    read.out = out;
    Read(step_.Attention(q_to_kv, s.head_dim, s.dtype), read);
  }

  void FeedbackRead(Matrix q_b, int wave, const LayerState& s, int rank, int num_ranks,
                    FeedbackPartials out) override {
    cuda::PagedRead read = {};
    read.q = q_b;
    read.keys = FeedbackKeys(s);
    read.values = FeedbackStates(s);
    read.scale = 1.0f / std::sqrt(static_cast<float>(s.hidden_size));
    read.feedback = true;
    read.num_chains = kFeedbackChains;
    read.rank = rank;
    read.num_ranks = num_ranks;
    read.max = out.max, read.sum = out.sum, read.acc = out.acc, read.p = out.p;
    read.width = out.width;
    read.live = Pad(&out).live;
    read.partial_rows = out.rows;
    Read(step_.WaveOf(wave, s.hidden_size, s.dtype).plan, read);
  }

  void FeedbackSolve(int wave, const FeedbackPartials& in, Matrix f, const float* gamma, DType state_dtype,
                     int begin, int end, Matrix s) override {
    const cuda::ReadPlan& plan = step_.WaveOf(wave, f.cols, state_dtype).plan;
    FeedbackPartials padded = in;
    const RowLaunch on = Pad(&padded, &f, &s);
    const cuda::FeedbackSolveArgs args{in.max,
                                       in.sum,
                                       in.acc,
                                       in.p,
                                       padded.rows,
                                       in.width,
                                       on.live,
                                       f,
                                       s,
                                       gamma,
                                       state_dtype == DType::kBF16,
                                       begin,
                                       end};
    for (const cuda::ReadGroup& g : plan.groups) {
      const bool by_inverse = g.path != cuda::ReadPath::kFewQueries && !options_.batch_invariant;
      const cuda::ReadBlock* blocks = plan.device_blocks + g.first;
      Enqueue([=, stream = stream(),
               count = g.count] { cuda::FeedbackSolve(stream, args, blocks, count, by_inverse); },
              "feedback solve", on, in.max, in.sum, in.acc, in.p, padded.rows, in.width, f, s, gamma,
              state_dtype, begin, end, blocks, g.count, int{by_inverse});
    }
  }

  void ReadState(const LayerState& state, const int32_t* pages, int n, float* k_f, float* v_f, float* k_b,
                 float* s) override {
    Flush();
    auto table =
        context_.Upload(pages, DType::kI32, 1, (n + state.page_size - 1) / state.page_size, 0, DType::kI32);
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
    Flush();
    context_.Wait("running kernels");
    context_.Note(cudaGetLastError(), "starting kernels");
    return context_.status();
  }

 private:
  using Tasks = std::array<cuda::LinearTask, cuda::kMaxLinearTasks>;

  // Enqueues an operation now or with the rest of its decode step; the key as of DecodeGraphs::Keep.
  template <class Run, class... P>
  void Enqueue(const Run& run, const char* name, const P&... key) {
    if (graphs_.is_deferring()) {
      graphs_.Keep(run, name, key...);
    } else {
      step_.Send();
      run();
    }
  }
  // Enqueues what waits. The rest of the step, if there is one, does not wait any more.
  void Flush() {
    if (!graphs_.is_deferring()) return;
    step_.Send();
    graphs_.Flush(step_.fits_graph());
  }

  // Operands (matrices, partials) with the rows of a decode step get those of its bucket.
  template <class... M>
  RowLaunch Pad(M*... operands) const {
    bool is_padded = false;
    const auto pad = [&](int* rows) {
      if (!step_.is_decode() || *rows != step_.num_rows()) return;
      *rows = step_.bucket();
      is_padded = true;
    };
    (pad(&operands->rows), ...);
    return {stream(), is_padded ? step_.live() : nullptr};
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

  void Append(Matrix x, const cuda::PagedVectors& to) { AppendRows(x, nullptr, x.rows, to); }
  void AppendRows(Matrix x, const int32_t* rows, int num_rows, const cuda::PagedVectors& to) {
    struct {
      int rows;
    } count{num_rows};
    const RowLaunch on = Pad(&count);
    Pad(&x);
    Enqueue([=, spans = step_.spans(), row_span = step_.row_span(),
             n = count.rows] { cuda::Append(on, x, rows, n, spans, row_span, to); },
            "append", on, x, rows, count.rows, step_.spans(), step_.row_span(), to);
  }

  static auto KernelsOf(cuda::ReadPath path) -> void (*)(cudaStream_t, const cuda::PagedRead&, int) {
    switch (path) {
      case cuda::ReadPath::kFewQueries:
        return cuda::ReadFewQueries;
      case cuda::ReadPath::kManyQueries:
        return cuda::ReadManyQueries;
      case cuda::ReadPath::kTensorCores:
        return cuda::ReadManyQueriesTensor;
      case cuda::ReadPath::kFusedAttention:
        return cuda::FusedAttention;
    }
    return nullptr;
  }

  void Read(const cuda::ReadPlan& plan, cuda::PagedRead read) {
    if (!context_.status().ok()) return;  // no scratch, perhaps
    Pad(&read.q, &read.out);
    for (size_t i = 0; i < plan.groups.size(); ++i) {
      const cuda::ReadGroup& g = plan.groups[i];
      read.work = plan.device_work + i;
      read.blocks = plan.device_blocks + g.first;
      read.num_blocks = g.count;
      read.max_queries = g.max_queries;
      const int num_ctas = step_.NumCtas(g);
      const auto enqueue = KernelsOf(g.path);
      Enqueue([=, stream = stream()] { enqueue(stream, read, num_ctas); }, "read", static_cast<int>(g.path),
              num_ctas, read.q, read.keys, read.values, read.scale, int{read.feedback}, read.num_chains,
              read.rank, read.num_ranks, read.work, read.blocks, read.num_blocks, read.max_queries, read.out,
              read.max, read.sum, read.acc, read.p, read.partial_rows, read.width, read.live);
    }
  }

  // The library computes all rows, also those that are padding: it gets copies, the padding zero, and the
  // rows that are there are copied from its results.
  void GemmLinear(RowLaunch on, Matrix x, const Tasks& tasks, int num_tasks, DType dtype) {
    const bool copied = on.live != nullptr, rounded = dtype == DType::kBF16;
    const int stride = cuda::Padded(x.cols), k = x.cols;
    const void* in = x.data;
    int64_t in_stride = x.stride;
    if (rounded || copied) {
      if (!context_.Reserve(x.rows * SizeOf(dtype) * stride, &gemm_in_)) return;
      Enqueue([=, to = gemm_in_.data()] { cuda::PackRows(on, x, dtype, to, stride); }, "pack", on, x, dtype,
              gemm_in_.data(), stride);
      in = gemm_in_.data();
      in_stride = stride;
    }
    for (int i = 0; i < num_tasks; ++i) {
      const cuda::LinearTask& task = tasks[i];
      Matrix y = task.y;
      if (copied) {
        if (!context_.Reserve(sizeof(float) * y.rows * task.n, &gemm_out_)) return;
        y = {gemm_out_.floats(), y.rows, task.n, task.n};
      }
      const cuda::GemmCall call{dtype,     in, in_stride, task.weight, cuda::Padded(k), rounded ? stride : k,
                                task.bias, y};
      Enqueue(
          [this, call] {
            if (absl::Status status = gemm_->Run(stream(), call); !status.ok()) context_.Fail(status);
          },
          "gemm", dtype, in, in_stride, task, k, y);
      if (copied) Enqueue([=, to = task.y] { cuda::CopyRows(on, y, to); }, "copy", on, y, task.y);
    }
  }

  void OwnLinear(RowLaunch on, Matrix x, const Tasks& tasks, int num_tasks, DType dtype) {
    int num_tiles = 0;
    for (int i = 0; i < num_tasks; ++i) num_tiles += (tasks[i].n + cuda::kTile - 1) / cuda::kTile;
    int rows = x.rows;  // at a time
    while (rows > cuda::kFewQueries && cuda::LinearPartialFloats(rows, x.cols, num_tiles) > kScratchFloats)
      rows = (rows + 1) / 2;
    if (!context_.Reserve(cuda::LinearPartialFloats(rows, x.cols, num_tiles) * sizeof(float),
                          &linear_partial_) ||
        !context_.Reserve(cuda::LinearCounters(rows, num_tiles) * sizeof(unsigned), &linear_counters_)) {
      return;
    }
    const cuda::LinearScratch scratch{linear_partial_.floats(),
                                      static_cast<unsigned*>(linear_counters_.data())};
    for (int first = 0; first < x.rows; first += rows) {
      const int last = std::min(x.rows, first + rows);
      const auto run = [=, tensor_cores = !options_.batch_invariant] {
        cuda::Linear(on, x, first, last, tasks.data(), num_tasks, dtype, tensor_cores, scratch);
      };
      const Tasks& t = tasks;  // those that are not there are zero
      Enqueue(run, "linear", on, x, first, last, num_tasks, dtype, scratch.partial, scratch.counters, t[0],
              t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
    }
  }

  const CudaOptions options_;
  const std::unique_ptr<cuda::Gemm> gemm_;
  cuda::Context context_;
  cuda::DeviceStep step_;
  cuda::DecodeGraphs graphs_;

  Buffer rope_;  // cos, then sin: [bucket, head_dim / 2] of the step
  // Scratch, grown as needed.
  Buffer linear_partial_, linear_counters_, gemm_in_, gemm_out_;
};

}  // namespace

cudaStream_t CudaStreamOf(const Backend& backend) {
  return static_cast<const CudaBackend&>(backend).stream();
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
