#include "kernels/cuda/linear_layers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sessa::cuda {
namespace {

// cuBLASLt's tiles are worth it from here on; below, reading the weights is the work.
constexpr int kGemmRows = 64;
// Of the partial sums of one launch; about the L2 cache of an H100.
constexpr int64_t kScratchFloats = int64_t{8} << 20;

}  // namespace

absl::StatusOr<LinearWeights> LinearLayers::Make(const void* weight, const void* bias, DType from, int n,
                                                 int k, DType to) {
  if (to != DType::kF32 && to != DType::kBF16) {
    return absl::UnimplementedError(
        absl::StrCat("the CUDA backend has weights in f32 and bf16, not in ", Name(to)));
  }
  LinearWeights w;
  w.n = n, w.k = k, w.dtype = to;
  auto memory = context_->Upload(weight, from, n, k, Padded(k), to);
  if (!memory.ok()) return memory.status();
  w.weight = *std::move(memory);
  if (bias != nullptr) {
    memory = context_->Upload(bias, from, 1, n, n, DType::kF32);
    if (!memory.ok()) return memory.status();
    w.bias = *std::move(memory);
  }
  return w;
}

void LinearLayers::Run(Matrix x, absl::Span<const LinearCall> calls) {
  if (x.rows == 0 || calls.empty()) return;
  const RowLaunch on = queue_->Pad(&x);
  const DType dtype = calls[0].weights->dtype;
  const bool gemm = x.rows >= kGemmRows && !batch_invariant_;
  Tasks tasks = {};
  int num_tasks = 0;
  for (const LinearCall& call : calls) {
    const LinearWeights& w = *call.weights;
    Matrix y = call.y;
    y.rows = x.rows;
    if (w.n > 0) tasks[num_tasks++] = {w.weight.data(), w.bias.floats(), y, w.n, 0, call.epilogue};
    if (num_tasks == kMaxLinearTasks || (num_tasks > 0 && &call == &calls.back())) {
      gemm ? RunGemm(on, x, tasks, num_tasks, dtype) : RunOwn(on, x, tasks, num_tasks, dtype);
      num_tasks = 0;
    }
  }
}

// The library computes all rows, also those that are padding: it gets copies, the padding zero, and the
// rows that are there are taken from its results.
void LinearLayers::RunGemm(RowLaunch on, Matrix x, const Tasks& tasks, int num_tasks, DType dtype) {
  const bool copied = on.live != nullptr, rounded = dtype == DType::kBF16;
  const int stride = Padded(x.cols), k = x.cols;
  const void* in = x.data;
  int64_t in_stride = x.stride;
  if (rounded || copied) {
    if (!context_->Reserve(x.rows * SizeOf(dtype) * stride, &gemm_in_)) return;
    queue_->Enqueue([=, to = gemm_in_.data()] { PackRows(on, x, dtype, to, stride); }, "pack", on, x, dtype,
                    gemm_in_.data(), stride);
    in = gemm_in_.data();
    in_stride = stride;
  }
  for (int i = 0; i < num_tasks; ++i) {
    const LinearTask& task = tasks[i];
    const Epilogue epilogue = task.epilogue;
    Matrix y = task.y;
    if (copied) {
      if (!context_->Reserve(sizeof(float) * y.rows * task.n, &gemm_out_)) return;
      y = {gemm_out_.floats(), y.rows, task.n, task.n};
    }
    const GemmCall call{.dtype = dtype,
                        .x = in,
                        .x_stride = in_stride,
                        .weight = task.weight,
                        .weight_stride = Padded(k),
                        .k = rounded ? stride : k,
                        .bias = task.bias,
                        .accumulate = epilogue == Epilogue::kAdd && !copied,
                        .y = y};
    queue_->Enqueue(
        [this, call] {
          if (absl::Status status = gemm_->Run(context_->stream(), call); !status.ok())
            context_->Fail(status);
        },
        "gemm", dtype, in, in_stride, task, k, y);
    // The library's own GELU is another function.
    if (copied || epilogue == Epilogue::kGelu) {
      queue_->Enqueue([=, to = task.y] { FinishRows(on, y, epilogue, to); }, "finish", on, y, task);
    }
  }
}

void LinearLayers::RunOwn(RowLaunch on, Matrix x, const Tasks& tasks, int num_tasks, DType dtype) {
  int num_tiles = 0;
  for (int i = 0; i < num_tasks; ++i) num_tiles += (tasks[i].n + kTile - 1) / kTile;
  int rows = x.rows;  // at a time
  while (rows > kFewQueries && LinearPartialFloats(rows, x.cols, num_tiles) > kScratchFloats)
    rows = (rows + 1) / 2;
  if (!context_->Reserve(LinearPartialFloats(rows, x.cols, num_tiles) * sizeof(float), &partial_) ||
      !context_->Reserve(LinearCounters(rows, num_tiles) * sizeof(unsigned), &counters_)) {
    return;
  }
  const LinearScratch scratch{partial_.floats(), static_cast<unsigned*>(counters_.data())};
  for (int first = 0; first < x.rows; first += rows) {
    const int last = std::min(x.rows, first + rows);
    const auto run = [=, tensor_cores = !batch_invariant_] {
      Linear(on, x, first, last, tasks.data(), num_tasks, dtype, tensor_cores, scratch);
    };
    const Tasks& t = tasks;
    queue_->Enqueue(run, "linear", on, x, first, last, num_tasks, dtype, scratch.partial, scratch.counters,
                    t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
  }
}

}  // namespace sessa::cuda
