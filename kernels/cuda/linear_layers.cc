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

void LinearLayers::Run(Matrix x, const LayerNorm* norm, absl::Span<const LinearCall> calls) {
  if (x.rows == 0 || calls.empty()) return;
  const RowLaunch on = queue_->Pad(&x);
  const DType dtype = calls[0].weights->dtype;
  const bool gemm = x.rows >= kGemmRows && !batch_invariant_;
  Input in = {x.data, x.rows, x.cols, x.stride};
  // The library wants the weights' type, and computes all rows, also those that are padding.
  if (norm != nullptr || (gemm && (dtype != DType::kF32 || on.live != nullptr))) {
    const DType to = gemm ? dtype : DType::kF32;
    const int stride = Padded(x.cols);
    if (!context_->Reserve(x.rows * SizeOf(to) * stride, &in_)) return;
    in.data = in_.data(), in.stride = stride;
    if (norm == nullptr) {
      queue_->Enqueue([=] { PackRows(on, x, to, in.data, stride); }, "pack", on, x, to, in.data, stride);
    } else {
      const RowNorm n{norm->weight->floats(), norm->bias->floats(), norm->eps};
      queue_->Enqueue([=] { LayerNormRows(on, x, n, to, in.data, stride); }, "layer norm", on, x, n.weight,
                      n.bias, n.eps, to, in.data, stride);
    }
  }
  Tasks tasks = {};
  int num_tasks = 0;
  for (const LinearCall& call : calls) {
    const LinearWeights& w = *call.weights;
    Matrix y = call.y;
    y.rows = x.rows;
    if (w.n > 0) tasks[num_tasks++] = {w.weight.data(), w.bias.floats(), y, w.n, 0, call.epilogue};
    if (num_tasks == kMaxLinearTasks || (num_tasks > 0 && &call == &calls.back())) {
      gemm ? RunGemm(on, in, tasks, num_tasks, dtype) : RunOwn(on, in, tasks, num_tasks, dtype);
      num_tasks = 0;
    }
  }
}

// Padding is zero on the left, and of the results only the rows that are there are taken.
void LinearLayers::RunGemm(RowLaunch on, Input in, const Tasks& tasks, int num_tasks, DType dtype) {
  const bool copied = on.live != nullptr;
  for (int i = 0; i < num_tasks; ++i) {
    const LinearTask& task = tasks[i];
    const Epilogue epilogue = task.epilogue;
    Matrix y = task.y;
    if (copied) {
      const int stride = Padded(task.n);  // rows aligned for the library's fast kernels
      if (!context_->Reserve(sizeof(float) * y.rows * stride, &gemm_out_)) return;
      y = {gemm_out_.floats(), y.rows, task.n, stride};
    }
    const GemmCall call{.dtype = dtype,
                        .x = in.data,
                        .x_stride = in.stride,
                        .weight = task.weight,
                        .weight_stride = Padded(in.cols),
                        .k = dtype == DType::kF32 ? in.cols : Padded(in.cols),
                        .bias = task.bias,
                        .accumulate = epilogue == Epilogue::kAdd && !copied,
                        .y = y};
    queue_->Enqueue(
        [this, call] {
          if (absl::Status status = gemm_->Run(context_->stream(), call); !status.ok())
            context_->Fail(status);
        },
        "gemm", dtype, in.data, in.stride, task, in.cols, y);
    // The library's own GELU is another function.
    if (copied || epilogue == Epilogue::kGelu) {
      queue_->Enqueue([=, to = task.y] { FinishRows(on, y, epilogue, to); }, "finish", on, y, task);
    }
  }
}

void LinearLayers::RunOwn(RowLaunch on, Input in, const Tasks& tasks, int num_tasks, DType dtype) {
  const Matrix x{static_cast<float*>(in.data), in.rows, in.cols, in.stride};
  int num_tiles = 0;
  for (int i = 0; i < num_tasks; ++i) num_tiles += CeilDiv(tasks[i].n, kTile);
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
    queue_->Enqueue(run, "linear", on, x, first, last, dtype, scratch.partial, scratch.counters,
                    absl::MakeConstSpan(tasks).first(num_tasks));
  }
}

}  // namespace sessa::cuda
