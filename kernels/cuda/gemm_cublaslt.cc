// Gemm by cuBLASLt. The heuristic is asked once for each shape and its answer kept, because it costs more
// than a small product.
#include <cublasLt.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/gemm.h"

namespace sessa::cuda {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;  // NVIDIA's advice for Hopper

// 256, or the largest power of two below that divides what cuBLASLt will read.
uint32_t Alignment(const void* p, int64_t stride_bytes) {
  uint32_t alignment = 256;
  while (alignment > 1 && (reinterpret_cast<uintptr_t>(p) % alignment != 0 || stride_bytes % alignment != 0))
    alignment /= 2;
  return alignment;
}

// All that the choice of an algorithm depends on: of x, of the weights and of y.
struct Shape {
  DType dtype;
  int rows, n, k;
  int64_t x_stride, weight_stride, y_stride;
  bool has_bias;
  uint32_t x_alignment, weight_alignment, y_alignment;

  bool operator==(const Shape&) const = default;
  template <class H>
  friend H AbslHashValue(H h, const Shape& s) {
    return H::combine(std::move(h), s.dtype, s.rows, s.n, s.k, s.x_stride, s.weight_stride, s.y_stride,
                      s.has_bias, s.x_alignment, s.weight_alignment, s.y_alignment);
  }
};

Shape ShapeOf(const GemmCall& c) {
  const int64_t bytes = static_cast<int64_t>(SizeOf(c.dtype));
  return {c.dtype,
          c.y.rows,
          c.y.cols,
          c.k,
          c.x_stride,
          c.weight_stride,
          c.y.stride,
          c.bias != nullptr,
          Alignment(c.x, c.x_stride * bytes),
          Alignment(c.weight, c.weight_stride * bytes),
          Alignment(c.y.data, c.y.stride * 4)};
}

std::string Describe(const Shape& s) {
  return absl::StrFormat(
      "%s, %d rows, n %d, k %d, strides %d, %d and %d, %s, addresses aligned to %d, %d and %d bytes",
      Name(s.dtype), s.rows, s.n, s.k, s.x_stride, s.weight_stride, s.y_stride,
      s.has_bias ? "a bias" : "no bias", s.x_alignment, s.weight_alignment, s.y_alignment);
}

absl::Status ToStatus(cublasStatus_t status, const char* what, const Shape& shape) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt, ", what, ": ", cublasLtGetStatusString(status), ": ", Describe(shape)));
}

// A product's descriptors and algorithm, in cuBLASLt's column-major terms: y^T [n, rows] = W x^T.
struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes = 0;
};

class CublasLtGemm final : public Gemm {
 public:
  CublasLtGemm(cublasLtHandle_t handle, void* workspace) : handle_(handle), workspace_(workspace) {}
  ~CublasLtGemm() override {
    for (auto& [shape, plan] : plans_) Destroy(plan);
    cublasLtDestroy(handle_);
    (void)cudaFree(workspace_);
  }

  absl::Status Prepare(const GemmCall& c) override {
    const Shape shape = ShapeOf(c);
    if (plans_.contains(shape)) return absl::OkStatus();
    if (const auto refused = refused_.find(shape); refused != refused_.end()) return refused->second;
    Plan plan;
    absl::Status made = MakePlan(c, shape, &plan);
    if (made.ok()) {
      plans_.emplace(shape, plan);
    } else {
      Destroy(plan);
      refused_.emplace(shape, made);
    }
    return made;
  }

  absl::Status Run(cudaStream_t stream, const GemmCall& c) override {
    if (absl::Status status = Prepare(c); !status.ok()) return status;
    const Shape shape = ShapeOf(c);
    const Plan& plan = plans_.find(shape)->second;
    if (c.bias != nullptr) {
      if (auto s = cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &c.bias,
                                                  sizeof c.bias);
          s != CUBLAS_STATUS_SUCCESS) {
        return ToStatus(s, "bias", shape);
      }
    }
    const float one = 1, share_of_y = c.accumulate ? 1 : 0;
    return ToStatus(
        cublasLtMatmul(handle_, plan.product, &one, c.weight, plan.weight, c.x, plan.x, &share_of_y, c.y.data,
                       plan.y, c.y.data, plan.y, &plan.algorithm, workspace_, plan.workspace_bytes, stream),
        "matmul", shape);
  }

 private:
  absl::Status MakePlan(const GemmCall& c, const Shape& shape, Plan* plan) {
    const cudaDataType_t type = c.dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cublasStatus_t s = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const auto then = [&s](auto&& call) {
      if (s == CUBLAS_STATUS_SUCCESS) s = call();
    };
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      then([&] { return cublasLtMatmulDescSetAttribute(plan->product, attribute, &value, sizeof value); });
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (c.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, c.bias);
    }
    then([&] { return cublasLtMatrixLayoutCreate(&plan->weight, type, c.k, c.y.cols, c.weight_stride); });
    then([&] { return cublasLtMatrixLayoutCreate(&plan->x, type, c.k, c.y.rows, c.x_stride); });
    then([&] { return cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, c.y.cols, c.y.rows, c.y.stride); });
    cublasLtMatmulPreference_t preference = nullptr;
    then([&] { return cublasLtMatmulPreferenceCreate(&preference); });
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      then([&] { return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value); });
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.weight_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.x_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.y_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.y_alignment);
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    then([&] {
      return cublasLtMatmulAlgoGetHeuristic(handle_, plan->product, plan->weight, plan->x, plan->y, plan->y,
                                            preference, 1, &result, &found);
    });
    if (preference != nullptr) cublasLtMatmulPreferenceDestroy(preference);
    if (s == CUBLAS_STATUS_SUCCESS && found == 0) s = CUBLAS_STATUS_NOT_SUPPORTED;
    plan->algorithm = result.algo;
    plan->workspace_bytes = result.workspaceSize;
    return ToStatus(s, "choosing an algorithm", shape);
  }

  static void Destroy(const Plan& plan) {
    if (plan.y != nullptr) cublasLtMatrixLayoutDestroy(plan.y);
    if (plan.x != nullptr) cublasLtMatrixLayoutDestroy(plan.x);
    if (plan.weight != nullptr) cublasLtMatrixLayoutDestroy(plan.weight);
    if (plan.product != nullptr) cublasLtMatmulDescDestroy(plan.product);
  }

  const cublasLtHandle_t handle_;
  void* const workspace_;  // [kWorkspaceBytes] of the device
  absl::flat_hash_map<Shape, Plan> plans_;
  absl::flat_hash_map<Shape, absl::Status> refused_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create() {
  cublasLtHandle_t handle = nullptr;
  if (cublasStatus_t s = cublasLtCreate(&handle); s != CUBLAS_STATUS_SUCCESS)
    return absl::InternalError(absl::StrCat("cuBLASLt, start: ", cublasLtGetStatusString(s)));
  void* workspace = nullptr;
  if (cudaError_t error = cudaMalloc(&workspace, kWorkspaceBytes); error != cudaSuccess) {
    cublasLtDestroy(handle);
    return absl::ResourceExhaustedError(
        absl::StrCat("cuBLASLt's workspace of ", kWorkspaceBytes, " bytes: ", cudaGetErrorString(error)));
  }
  return std::make_unique<CublasLtGemm>(handle, workspace);
}

}  // namespace sessa::cuda
