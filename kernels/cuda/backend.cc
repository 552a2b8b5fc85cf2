// The CUDA backend: hands each operation to who chooses its kernels (linear.h, attention.h, feedback.h,
// scan.h). Errors of enqueued work are kept and returned by Synchronize, and by every later one.
#include "kernels/cuda/backend.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/feedback.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/scan.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_graphs.h"
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
        linears_(&context_, &queue_, std::move(gemm), options.batch_invariant),
        attention_(&context_, &step_, &queue_),
        feedback_(&context_, &step_, &queue_, &attention_, options.batch_invariant),
        scan_(&context_, &step_, &queue_) {}
  // Nothing may use the memory that is freed next, on this device.
  ~CudaBackend() override {
    context_.Use();
    context_.Wait("the last step");
  }

  cudaStream_t stream() const { return context_.stream(); }
  const GraphCounts& graph_counts() const { return graphs_.counts(); }

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

  absl::StatusOr<LinearWeights> MakeLinear(const TensorView& weight, const TensorView* bias,
                                           DType to) override {
    return linears_.Make(weight, bias, to);
  }
  absl::StatusOr<Buffer> MakeTable(const TensorView& values, DType to) override {
    const int64_t n = values.num_values();
    return context_.Upload(values.data, values.dtype, 1, n, n, to);
  }

  size_t BytesPerPage(const PagedShape& shape, int page_size) const override {
    return SizeOf(shape.dtype) * page_size * shape.num_heads * cuda::StateElements(shape.dtype, shape.dim);
  }
  absl::StatusOr<PagedTensor> AllocatePages(const PagedShape& shape, int page_size, int first_page,
                                            int num_pages) override {
    if (shape.dim > cuda::kMaxDim) {
      return absl::InvalidArgumentError(absl::StrCat("the CUDA backend keeps keys and values of at most ",
                                                     cuda::kMaxDim, " dimensions, the model has ",
                                                     shape.dim));
    }
    auto memory = Allocate(BytesPerPage(shape, page_size) * num_pages);
    if (!memory.ok()) return memory.status();
    return PagedTensor{shape, page_size, first_page, num_pages, *std::move(memory)};
  }

  void BeginStep(const StepRows& rows) override {
    queue_.Flush();
    context_.Use();
    context_.BeginStep();
    step_.Begin(rows);
    if (options_.graphs && cuda::launch_switches().graphs && step_.may_replay()) graphs_.Defer();
    attention_.BeginStep();
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    const RowLaunch on = queue_.Pad(&x);
    queue_.Enqueue(&cuda::Embed, on, step_.token_ids(), sampled_, table.data(), dtype, x);
  }
  void Linear(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls) override {
    linears_.Run(x, norm, calls);
  }
  void GatherLogitRows(Matrix x, Matrix y) override {
    const RowLaunch on = queue_.Pad(&x, &y);
    queue_.Enqueue(&cuda::GatherRows, on, x, step_.logit_rows(), y);
  }
  void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
              int32_t* tokens) override {
    sampled_ = tokens;
    const cuda::SampleTask* tasks = step_.SampleTasks(rows, edits, logits.cols);
    if (tasks == nullptr) return;  // no rows, or no memory
    int num_rows = static_cast<int>(rows.size());
    const RowLaunch on = queue_.Pad(&num_rows);
    queue_.Pad(&logits);
    queue_.Enqueue(&cuda::Sample, on, logits, tasks, num_rows, tokens);
  }

  void Append(const AppendCall& call) override { attention_.Append(call, nullptr); }
  void Attend(const AttendCall& call) override { attention_.Attend(call); }
  FeedbackOps* feedback() override { return &feedback_; }
  ScanOps* scan() override { return &scan_; }

  void ReadState(const PagedTensor& state, const int32_t* pages, int n, float* out) override {
    queue_.Flush();
    const size_t bytes = sizeof(float) * n * state.shape.num_heads * state.shape.dim;
    auto table = context_.Upload(pages, DType::kI32, 1, CeilDiv(n, state.page_size), 0, DType::kI32);
    auto rows = Allocate(bytes);
    if (!table.ok() || !rows.ok()) return context_.Fail(table.ok() ? rows.status() : table.status());
    cuda::ReadBack(stream(), cuda::VectorsOf(state), static_cast<const int32_t*>(table->data()), n,
                   rows->floats());
    CopyOut(rows->data(), bytes, out);
    context_.Wait("reading state back");
  }

  absl::Status Synchronize() override {
    queue_.Flush();
    TakeLaunchFailure();
    context_.Wait("running kernels");
    context_.Note(cudaGetLastError(), "starting kernels");
    return context_.status();
  }
  void EndStep() override {
    queue_.Flush();
    context_.EndStep();
  }
  absl::Status WaitForStep() override {
    TakeLaunchFailure();
    context_.WaitForStep();
    context_.Note(cudaGetLastError(), "starting kernels");
    return context_.status();
  }
  bool is_asynchronous() const override { return true; }

 private:
  void TakeLaunchFailure() {
    if (const std::string failure = cuda::TakeLaunchFailure(); !failure.empty())
      context_.Fail(absl::InternalError(absl::StrCat("GPU ", options_.device, ", starting ", failure)));
  }

  const CudaOptions options_;
  cuda::Context context_;
  cuda::DeviceStep step_;
  cuda::StepGraphs graphs_;
  cuda::StepQueue queue_;
  cuda::LinearLayers linears_;
  cuda::Attention attention_;
  cuda::Feedback feedback_;
  cuda::StateScan scan_;
  const int32_t* sampled_ = nullptr;  // the tokens of the last Sample
};

}  // namespace

cudaStream_t CudaStreamOf(const Backend& backend) {
  return static_cast<const CudaBackend&>(backend).stream();
}

GraphCounts GraphCountsOf(const Backend& backend) {
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
