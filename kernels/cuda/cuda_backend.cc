// The host side of the CUDA backend: memory, one stream, what is uploaded for each step, and the choice of
// kernels. Errors of enqueued work are kept and returned by Synchronize, and by every later one.
#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/convert.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/read_plan.h"
#include "kernels/cuda/step_memory.h"

namespace sessa {
namespace {

// cuBLASLt's tiles are worth it from here on; below, reading the weights is the work.
constexpr int kGemmRows = 64;
// Of the partial results of one launch; about the L2 cache of an H100.
constexpr int64_t kScratchFloats = int64_t{8} << 20;

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaOptions& options, cudaStream_t stream, std::unique_ptr<cuda::Gemm> gemm)
      : options_(options), stream_(stream), gemm_(std::move(gemm)), step_memory_(stream) {}
  ~CudaBackend() override {
    (void)cudaSetDevice(options_.device);
    (void)cudaStreamSynchronize(stream_);
    (void)cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const { return stream_; }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    bytes = std::max<size_t>(bytes, 1);
    void* p = nullptr;
    (void)cudaSetDevice(options_.device);
    if (cudaError_t error = cudaMalloc(&p, bytes); error != cudaSuccess) {
      (void)cudaGetLastError();  // not a fault of the device
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", bytes, " bytes of GPU memory: ", cudaGetErrorString(error)));
    }
    Note(cudaMemsetAsync(p, 0, bytes, stream_), "clearing memory");
    return Buffer(p, bytes, [](void* data, size_t) { (void)cudaFree(data); });
  }

  int64_t FreeBytes() const override {
    size_t free = 0, total = 0;
    (void)cudaSetDevice(options_.device);
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  void CopyIn(const void* host, size_t bytes, void* device) override {
    if (bytes > 0)
      Note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "copying to the GPU");
  }
  void CopyOut(const void* device, size_t bytes, void* host) override {
    if (bytes > 0)
      Note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying from the GPU");
  }

  absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n, int k,
                                           DType to) override {
    if (to != DType::kF32 && to != DType::kBF16) {
      return absl::UnimplementedError(
          absl::StrCat("the CUDA backend has weights in f32 and bf16, not in ", Name(to)));
    }
    LinearWeights w;
    w.n = n, w.k = k, w.dtype = to;
    auto memory = Upload(weight, from, n, k, cuda::Padded(k), to);
    if (!memory.ok()) return memory.status();
    w.weight = *std::move(memory);
    if (bias != nullptr) {
      memory = Upload(bias, from, 1, n, n, DType::kF32);
      if (!memory.ok()) return memory.status();
      w.bias = *std::move(memory);
    }
    return w;
  }

  absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) override {
    return Upload(data, from, 1, n, n, to);
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
    Note(cudaSetDevice(options_.device), "choosing the GPU");
    Note(cudaStreamSynchronize(stream_), "waiting for the last step");
    step_memory_.Reset();
    step_ = &rows;
    attention_.reset();
    waves_.clear();
    const int n = static_cast<int>(rows.positions.size()), half = rows.head_dim / 2;
    token_ids_ = step_memory_.Upload(rows.token_ids);
    logit_rows_ = step_memory_.Upload(rows.logit_rows);
    std::vector<int32_t> pages, row_span;
    std::vector<cuda::Span> spans;
    for (const RowSpan& s : rows.spans) pages.insert(pages.end(), s.pages.begin(), s.pages.end());
    const int32_t* table = step_memory_.Upload(pages);
    span_pages_.clear();
    for (const RowSpan& s : rows.spans) {
      row_span.insert(row_span.end(), s.num_rows, static_cast<int32_t>(spans.size()));
      spans.push_back({s.first_row, s.num_rows, s.start, table});
      span_pages_.push_back(table);
      table += s.pages.size();
    }
    spans_ = step_memory_.Upload(spans);
    row_span_ = step_memory_.Upload(row_span);
    host_row_span_ = std::move(row_span);
    if (half > 0 && Reserve(2 * sizeof(float) * n * half, &rope_)) {
      std::vector<float> inv_freq(half);
      for (int i = 0; i < half; ++i) {
        inv_freq[i] =
            1.0f / std::pow(rows.rope_theta, static_cast<float>(2 * i) / static_cast<float>(rows.head_dim));
      }
      cuda::RopeAngles(stream_, step_memory_.Upload(rows.positions), step_memory_.Upload(inv_freq), n, half,
                       rope_.floats(), rope_.floats() + static_cast<int64_t>(n) * half);
    }
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    cuda::Embed(stream_, token_ids_, table.data(), dtype, x);
  }
  void LayerNorm(Matrix x, const Buffer& weight, const Buffer& bias, float eps, Matrix y) override {
    cuda::LayerNorm(stream_, x, weight.floats(), bias.floats(), eps, y);
  }
  void Gelu(Matrix x) override { cuda::Gelu(stream_, x); }
  void Multiply(Matrix a, Matrix b, Matrix y) override { cuda::Multiply(stream_, a, b, y); }
  void Add(Matrix a, Matrix y) override { cuda::Add(stream_, a, y); }
  void Rope(Matrix x) override {
    cuda::Rope(stream_, x, step_->head_dim, rope_.floats(),
               rope_.floats() + step_->positions.size() * (step_->head_dim / 2));
  }
  void Gamma(Matrix u, const Buffer& gamma_ctx, const Buffer& gamma_bias, float gamma_max,
             float* gamma) override {
    cuda::Gamma(stream_, u, gamma_ctx.floats(), gamma_bias.floats(), gamma_max, gamma);
  }
  void GatherLogitRows(Matrix x, Matrix y) override { cuda::GatherRows(stream_, x, logit_rows_, y); }

  void Linear(Matrix x, absl::Span<const LinearCall> calls) override {
    if (x.rows == 0 || calls.empty()) return;
    if (x.rows >= kGemmRows && !options_.batch_invariant) {
      GemmLinear(x, calls);
      return;
    }
    for (size_t first = 0; first < calls.size(); first += cuda::kMaxLinearTasks) {
      OwnLinear(x, calls.subspan(first, cuda::kMaxLinearTasks));
    }
  }

  void AppendForward(Matrix k, Matrix v, LayerState* s) override {
    cuda::Append(stream_, k, nullptr, k.rows, spans_, row_span_, Keys(*s));
    cuda::Append(stream_, v, nullptr, v.rows, spans_, row_span_, Values(*s));
  }
  void AppendFeedbackKeys(Matrix k_b, LayerState* s) override {
    cuda::Append(stream_, k_b, nullptr, k_b.rows, spans_, row_span_, FeedbackKeys(*s));
  }
  void AppendFeedbackStates(Matrix x, int wave, LayerState* s) override {
    const Wave& w = WaveOf(wave, s->hidden_size);
    cuda::Append(stream_, x, w.rows, w.num_rows, spans_, row_span_, FeedbackStates(*s));
  }

  void Attend(Matrix q, absl::Span<const int> q_to_kv, const LayerState& s, Matrix out) override {
    if (q_to_kv.empty()) return;
    if (!attention_.has_value() || attention_heads_ != q_to_kv) {
      attention_heads_.assign(q_to_kv.begin(), q_to_kv.end());
      attention_ = cuda::MakeReadPlan(cuda::AttentionBlocks(step_->spans, span_pages_, q_to_kv), false,
                                      s.head_dim, kScratchFloats);
      attention_->device = step_memory_.Upload(attention_->blocks);
    }
    cuda::PagedRead read = {};
    read.q = q;
    read.keys = Keys(s);
    read.values = Values(s);
    read.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    read.num_chains = read.num_ranks = 1;
    read.out = out;
    Read(*attention_, read);
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
    read.partial_rows = out.rows, read.width = out.width;
    Read(WaveOf(wave, s.hidden_size).plan, read);
  }

  void FeedbackSolve(int wave, const FeedbackPartials& in, Matrix f, const float* gamma, DType state_dtype,
                     int begin, int end, Matrix s) override {
    const cuda::ReadPlan& plan = WaveOf(wave, f.cols).plan;
    cuda::FeedbackSolve(stream_,
                        {in.max, in.sum, in.acc, in.p, in.rows, in.width, f, s, gamma,
                         state_dtype == DType::kBF16, begin, end},
                        plan.device, static_cast<int>(plan.blocks.size()));
  }

  void ReadState(const LayerState& state, const int32_t* pages, int n, float* k_f, float* v_f, float* k_b,
                 float* s) override {
    auto table = Upload(pages, DType::kI32, 1, (n + state.page_size - 1) / state.page_size, 0, DType::kI32);
    for (auto [from, to] : {std::pair{Keys(state), k_f},
                            {Values(state), v_f},
                            {FeedbackKeys(state), k_b},
                            {FeedbackStates(state), s}}) {
      if (to == nullptr) continue;
      const size_t bytes = sizeof(float) * n * from.num_heads * from.dim;
      auto rows = Allocate(bytes);
      if (!table.ok() || !rows.ok()) return Fail(table.ok() ? rows.status() : table.status());
      cuda::ReadBack(stream_, from, static_cast<const int32_t*>(table->data()), n, rows->floats());
      CopyOut(rows->data(), bytes, to);
      Note(cudaStreamSynchronize(stream_), "reading state back");
    }
  }

  absl::Status Synchronize() override {
    Note(cudaStreamSynchronize(stream_), "running kernels");
    Note(cudaGetLastError(), "starting kernels");
    return status_;
  }

 private:
  // A wave's blocks, and its rows in their order.
  struct Wave {
    cuda::ReadPlan plan;
    const int32_t* rows = nullptr;
    int num_rows = 0;
  };

  void Fail(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  void Note(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
      Fail(absl::InternalError(
          absl::StrCat("GPU ", options_.device, ", ", what, ": ", cudaGetErrorString(error))));
  }

  // Grows a scratch buffer; its contents are lost, and zero when it grew. False, and a failed backend, when
  // there is no memory.
  bool Reserve(size_t bytes, Buffer* buffer) {
    if (buffer->size() >= bytes) return true;
    *buffer = Buffer();
    auto memory = Allocate(bytes);
    if (!memory.ok()) {
      Fail(memory.status());
      return false;
    }
    *buffer = *std::move(memory);
    return true;
  }

  // Host rows [n, k] as rows of `stride` elements (0: k), the rest zero.
  absl::StatusOr<Buffer> Upload(const void* data, DType from, int64_t n, int64_t k, int64_t stride,
                                DType to) {
    stride = std::max(stride, k);
    auto memory = Allocate(n * stride * SizeOf(to));
    if (!memory.ok()) return memory;
    constexpr int64_t kBatch = 1 << 20;  // values converted at a time
    const int64_t batch = std::max<int64_t>(1, kBatch / std::max<int64_t>(1, stride));
    std::vector<char> rows;
    for (int64_t first = 0; first < n; first += batch) {
      const int64_t count = std::min(batch, n - first);
      rows.assign(count * stride * SizeOf(to), 0);
      for (int64_t r = 0; r < count; ++r) {
        char* row = rows.data() + r * stride * SizeOf(to);
        if (from == to) {
          std::memcpy(row, static_cast<const char*>(data) + (first + r) * k * SizeOf(from), k * SizeOf(from));
          continue;
        }
        for (int64_t i = 0; i < k; ++i) {
          const float x = ToFloat(data, (first + r) * k + i, from);
          const uint16_t rounded = RoundToBf16(x);
          std::memcpy(row + i * SizeOf(to), to == DType::kF32 ? static_cast<const void*>(&x) : &rounded,
                      SizeOf(to));
        }
      }
      CopyIn(rows.data(), rows.size(), static_cast<char*>(memory->data()) + first * stride * SizeOf(to));
      Note(cudaStreamSynchronize(stream_), "copying to the GPU");  // before `rows` changes
    }
    if (!status_.ok()) return status_;
    return memory;
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

  // Of the step, made at its first use.
  const Wave& WaveOf(int wave, int hidden_size) {
    if (wave >= static_cast<int>(waves_.size())) waves_.resize(wave + 1);
    if (!waves_[wave].has_value()) {
      Wave& w = waves_[wave].emplace();
      std::vector<cuda::ReadBlock> blocks;
      std::vector<int32_t> rows;
      for (const RowSpan& b : step_->waves[wave]) {
        blocks.push_back({b.first_row, b.num_rows, b.start, 0, 1, 0, static_cast<int>(rows.size()),
                          span_pages_[host_row_span_[b.first_row]], 0});
        for (int r = 0; r < b.num_rows; ++r) rows.push_back(b.first_row + r);
      }
      w.plan = cuda::MakeReadPlan(std::move(blocks), true, hidden_size, kScratchFloats);
      w.plan.device = step_memory_.Upload(w.plan.blocks);
      w.rows = step_memory_.Upload(rows);
      w.num_rows = static_cast<int>(rows.size());
    }
    return *waves_[wave];
  }

  void Read(const cuda::ReadPlan& plan, cuda::PagedRead read) {
    for (const cuda::ReadGroup& g : plan.groups) {
      const int64_t floats = g.num_tiles * (g.few ? cuda::Padded(read.values.dim) : cuda::kTile);
      const int64_t own = g.few && read.feedback ? int64_t{g.count} * cuda::kMaxQueries * cuda::kTile : 0;
      if (!Reserve(2 * g.num_tiles * sizeof(float), &tile_stats_) ||
          !Reserve(floats * sizeof(float), &tile_values_) || !Reserve(own * sizeof(float), &own_p_)) {
        return;
      }
      read.tile_stats = tile_stats_.floats();
      read.tile_values = tile_values_.floats();
      read.own_p = own_p_.floats();
      if (g.few) {
        cuda::ReadFewQueries(stream_, read, plan.device + g.first, g.count, g.max_queries, g.max_tiles);
      } else {
        cuda::ReadManyQueries(stream_, read, plan.device + g.first, g.count, g.max_tiles);
      }
    }
  }

  void GemmLinear(Matrix x, absl::Span<const LinearCall> calls) {
    const bool rounded = calls[0].weights->dtype == DType::kBF16;
    const int stride = cuda::Padded(x.cols);
    if (rounded) {
      if (!Reserve(static_cast<size_t>(x.rows) * stride * SizeOf(DType::kBF16), &rounded_)) return;
      cuda::RoundRows(stream_, x, rounded_.data(), stride);
    }
    for (const LinearCall& call : calls) {
      const LinearWeights& w = *call.weights;
      if (w.n == 0) continue;
      const cuda::GemmCall gemm{w.dtype,
                                rounded ? rounded_.data() : x.data,
                                rounded ? stride : x.stride,
                                w.weight.data(),
                                cuda::Padded(w.k),
                                rounded ? stride : w.k,
                                w.bias.floats(),
                                call.y};
      if (absl::Status status = gemm_->Run(stream_, gemm); !status.ok()) Fail(status);
    }
  }

  void OwnLinear(Matrix x, absl::Span<const LinearCall> calls) {
    cuda::LinearTask tasks[cuda::kMaxLinearTasks];
    int num_tasks = 0, num_tiles = 0;
    for (const LinearCall& call : calls) {
      if (call.weights->n == 0) continue;
      tasks[num_tasks++] = {call.weights->weight.data(), call.weights->bias.floats(), call.y, call.weights->n,
                            0};
      num_tiles += (call.weights->n + cuda::kTile - 1) / cuda::kTile;
    }
    int rows = x.rows;  // at a time
    while (rows > cuda::kFewQueries && cuda::LinearPartialFloats(rows, x.cols, num_tiles) > kScratchFloats)
      rows = (rows + 1) / 2;
    if (!Reserve(cuda::LinearPartialFloats(rows, x.cols, num_tiles) * sizeof(float), &linear_partial_) ||
        !Reserve(cuda::LinearCounters(rows, num_tiles) * sizeof(unsigned), &linear_counters_)) {
      return;
    }
    for (int first = 0; first < x.rows; first += rows) {
      const int last = std::min(x.rows, first + rows);
      cuda::LinearTask part[cuda::kMaxLinearTasks];
      for (int i = 0; i < num_tasks; ++i) {
        part[i] = tasks[i];
        part[i].y = tasks[i].y.Rows(first, last);
      }
      cuda::Linear(stream_, x.Rows(first, last), part, num_tasks, calls[0].weights->dtype,
                   {linear_partial_.floats(), static_cast<unsigned*>(linear_counters_.data())});
    }
  }

  const CudaOptions options_;
  const cudaStream_t stream_;
  const std::unique_ptr<cuda::Gemm> gemm_;
  absl::Status status_;

  // Of the step; pointers name step_memory_.
  cuda::StepMemory step_memory_;
  const StepRows* step_ = nullptr;
  const int32_t *token_ids_ = nullptr, *logit_rows_ = nullptr, *row_span_ = nullptr;
  const cuda::Span* spans_ = nullptr;
  std::vector<const int32_t*> span_pages_;  // of each span, on the device
  std::vector<int32_t> host_row_span_;
  std::optional<cuda::ReadPlan> attention_;
  std::vector<int> attention_heads_;  // that attention_ was made for
  std::vector<std::optional<Wave>> waves_;
  Buffer rope_;  // cos, then sin: [num_rows, head_dim / 2]

  // Scratch, grown as needed.
  Buffer tile_stats_, tile_values_, own_p_, linear_partial_, linear_counters_, rounded_;
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
