#include "kernels/cuda/linear.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear_plan.h"
#include "kernels/notice.h"
#include "kernels/quantize.h"

namespace sessa::cuda {
namespace {

// cuBLASLt's tiles are worth it from here on; below, reading the weights is the work.
constexpr int kGemmRows = 64;

void RunLibrary(Context* context, Gemm* gemm, const GemmCall& call) {
  if (absl::Status status = gemm->Run(context->stream(), call); !status.ok()) context->Fail(status);
}

}  // namespace

absl::StatusOr<LinearWeights> LinearLayers::Make(const TensorView& weight, const TensorView* bias, DType to) {
  LinearWeights w;
  w.n = static_cast<int>(weight.shape[0]), w.k = static_cast<int>(weight.shape[1]), w.dtype = to;
  if (to == DType::kI8) {
    if (absl::Status s = Quantize(weight, &w); !s.ok()) return s;
  } else {
    auto memory = context_->Upload(weight.data, weight.dtype, w.n, w.k, Padded(w.k), to);
    if (!memory.ok()) return memory.status();
    w.weight = *std::move(memory);
  }
  if (bias != nullptr) {
    auto memory = context_->Upload(bias->data, bias->dtype, 1, w.n, w.n, DType::kF32);
    if (!memory.ok()) return memory.status();
    w.bias = *std::move(memory);
  }
  return w;
}

absl::Status LinearLayers::Quantize(const TensorView& weight, LinearWeights* w) {
  const int64_t stride = WeightStride(DType::kI8, w->k), groups = ScaleGroups(w->k);
  std::vector<int8_t> values(w->n * stride);
  std::vector<uint16_t> scales(w->n * groups);
  std::vector<float> row(w->k);
  for (int64_t j = 0; j < w->n; ++j) {
    for (int i = 0; i < w->k; ++i) {
      row[i] = ToFloat(weight.data, j * w->k + i, weight.dtype);
      if (!std::isfinite(row[i]))
        return absl::InvalidArgumentError("a weight that is not finite cannot be quantised");
    }
    for (int g = 0; g < groups; ++g) {
      const int first = g * kScaleGroup;
      scales[j * groups + g] = QuantizeGroup(row.data() + first, std::min(kScaleGroup, w->k - first),
                                             values.data() + j * stride + first);
    }
  }
  auto memory = context_->Upload(values.data(), DType::kI8, w->n, stride, stride, DType::kI8);
  if (!memory.ok()) return memory.status();
  w->weight = *std::move(memory);
  memory = context_->Upload(scales.data(), DType::kBF16, w->n, groups, groups, DType::kBF16);
  if (!memory.ok()) return memory.status();
  w->scale = *std::move(memory);
  return absl::OkStatus();
}

void LinearLayers::Run(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls) {
  if (x.rows == 0 || calls.empty()) return;
  const RowLaunch on = queue_->Pad(&x);
  const DType dtype = calls[0].weights->dtype,
              gemm_dtype = dtype == DType::kF32 ? DType::kF32 : DType::kBF16;  // int8 is unpacked for it
  std::vector<LinearTask> tasks;
  for (const LinearCall& call : calls) {
    Matrix y = call.y;
    y.rows = x.rows;
    const auto add = [&](const LinearWeights& w, LinearTask::Half half) {
      if (w.n > 0)
        tasks.push_back({w.weight.data(), w.scale.data(), w.bias.floats(), y, w.n, 0, call.epilogue, half});
    };
    add(*call.weights,
        call.epilogue == Epilogue::kSiluGate ? LinearTask::Half::kGate : LinearTask::Half::kNone);
    if (call.epilogue == Epilogue::kSiluGate) add(*call.up, LinearTask::Half::kUp);
  }
  const bool has_norm = norm.kind != Norm::Kind::kNone;
  bool gemm = x.rows >= kGemmRows && !batch_invariant_;
  Input in = {x.data, x.rows, x.cols, x.stride};
  const int stride = Padded(x.cols);
  // The library wants the weights' type, and computes all rows, also those that are padding.
  if (has_norm || (gemm && (dtype != DType::kF32 || on.live != nullptr))) {
    if (!context_->Reserve(x.rows * SizeOf(gemm ? gemm_dtype : DType::kF32) * stride, &in_)) return;
    in.data = in_.data(), in.stride = stride;
  }
  if (gemm && !Prepare(on, in, tasks, gemm_dtype)) {
    gemm = false;
    in = {x.data, x.rows, x.cols, x.stride};
    if (has_norm) {
      if (!context_->Reserve(x.rows * sizeof(float) * stride, &in_)) return;
      in.data = in_.data(), in.stride = stride;
    }
  }
  const DType to = gemm ? gemm_dtype : DType::kF32;
  if (has_norm) {
    const float* bias = norm.kind == Norm::Kind::kLayer ? norm.bias->floats() : nullptr;
    queue_->Enqueue(&NormRows, on, x, RowNorm{norm.weight->floats(), bias, norm.eps, norm.groups}, to,
                    in.data, stride);
  } else if (in.data != x.data) {
    queue_->Enqueue(&PackRows, on, x, to, in.data, stride);
  }
  for (size_t begin = 0, count; begin < tasks.size(); begin += count) {
    count = std::min<size_t>(kMaxLinearTasks, tasks.size() - begin);
    if (tasks[begin + count - 1].half == LinearTask::Half::kGate) --count;  // its other half is the next
    const auto some = absl::MakeConstSpan(tasks).subspan(begin, count);
    gemm ? RunGemm(on, in, some, gemm_dtype) : RunOwn(on, in, some, dtype);
  }
}

bool LinearLayers::MakeCall(RowLaunch on, Input in, const LinearTask& task, DType dtype, GemmCall* call) {
  const bool copied =
      on.live != nullptr || task.half != LinearTask::Half::kNone || task.epilogue == Epilogue::kMultiply;
  Matrix y = task.y;
  if (copied) {
    const int stride = Padded(task.n);  // rows aligned for the library's fast kernels
    Buffer* to = task.half == LinearTask::Half::kGate ? &gate_out_ : &gemm_out_;
    if (!context_->Reserve(sizeof(float) * y.rows * stride, to)) return false;
    y = {to->floats(), y.rows, task.n, stride};
  }
  const void* weight = task.weight;
  if (task.scale != nullptr) {
    if (!context_->Reserve(SizeOf(DType::kBF16) * task.n * Padded(in.cols), &unpacked_)) return false;
    weight = unpacked_.data();
  }
  *call = {.dtype = dtype,
           .x = in.data,
           .x_stride = in.stride,
           .weight = weight,
           .weight_stride = Padded(in.cols),
           .k = dtype == DType::kF32 ? in.cols : Padded(in.cols),
           .bias = task.bias,
           .accumulate = task.epilogue == Epilogue::kAdd && !copied,
           .y = y};
  return true;
}

bool LinearLayers::Prepare(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype) {
  for (const LinearTask& task : tasks) {
    GemmCall call;
    if (!MakeCall(on, in, task, dtype, &call)) return false;
    if (absl::Status status = gemm_->Prepare(call); !status.ok()) {
      if (!has_refused_)
        Notice(absl::StrCat("CUDA: ", status.ToString(), "; kernels of our own take its place"));
      has_refused_ = true;
      return false;
    }
  }
  return true;
}

// Padding is zero on the left, and of the results only the rows that are there are taken.
void LinearLayers::RunGemm(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype) {
  Matrix gate;
  for (const LinearTask& task : tasks) {
    GemmCall call;
    if (!MakeCall(on, in, task, dtype, &call)) return;
    if (task.scale != nullptr)
      queue_->Enqueue(&UnpackWeights, context_->stream(), task, in.cols, unpacked_.data());
    queue_->Enqueue(&RunLibrary, context_, gemm_.get(), call);
    if (task.half == LinearTask::Half::kGate) {
      gate = call.y;
    } else if (task.half == LinearTask::Half::kUp) {
      queue_->Enqueue(&GateRows, on, gate, call.y, task.y);
    } else if (call.y != task.y || task.epilogue == Epilogue::kGelu) {  // the library's GELU is another
      queue_->Enqueue(&FinishRows, on, call.y, task.epilogue, task.y);
    }
  }
}

void LinearLayers::RunOwn(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype) {
  const Matrix x{static_cast<float*>(in.data), in.rows, in.cols, in.stride};
  int num_tiles = 0;
  for (const LinearTask& task : tasks) num_tiles += CeilDiv(task.n, kTile);
  const bool tensor_cores = !batch_invariant_;
  const bool has_gate =
      std::ranges::any_of(tasks, [](const LinearTask& task) { return task.half != LinearTask::Half::kNone; });
  const int rows = LinearRowsAtOnce(x.rows, x.cols, num_tiles, dtype, tensor_cores, has_gate);
  for (int launch : {rows, (x.rows - 1) % rows + 1}) {  // the last may have fewer, and another path
    const LinearPlan plan = PlanLinear(launch, x.cols, num_tiles, dtype, tensor_cores, has_gate);
    if (!context_->Reserve(plan.num_floats * sizeof(float), &partial_) ||
        !context_->Reserve(plan.num_counters * sizeof(unsigned), &counters_)) {
      return;
    }
  }
  const LinearScratch scratch{partial_.floats(), static_cast<unsigned*>(counters_.data())};
  LinearTasks together = {};
  std::copy(tasks.begin(), tasks.end(), together.task);
  together.count = static_cast<int>(tasks.size());
  for (int first = 0; first < x.rows; first += rows) {
    const int last = std::min(x.rows, first + rows);
    queue_->Enqueue(&Linear, on, x, first, last, together, dtype, tensor_cores, scratch);
  }
}

}  // namespace sessa::cuda
