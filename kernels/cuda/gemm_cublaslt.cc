// Gemm by cuBLASLt. The heuristic is asked once for each shape and its answer kept, because it costs more
// than a small product.
#include <cublasLt.h>

#include <cstdint>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/gemm.h"

namespace sessa::cuda {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;  // NVIDIA's advice for Hopper

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt, ", what, ": ", cublasLtGetStatusString(status)));
}

// 256, or the largest power of two below that divides what cuBLASLt will read.
uint32_t Alignment(const void* p, int64_t stride_bytes) {
  uint32_t alignment = 256;
  while (alignment > 1 && (reinterpret_cast<uintptr_t>(p) % alignment != 0 || stride_bytes % alignment != 0))
    alignment /= 2;
  return alignment;
}

// All that the choice of an algorithm depends on.
using Shape = std::tuple<DType, int, int, int, int64_t, int64_t, int64_t, bool, uint32_t, uint32_t, uint32_t>;

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

  absl::Status Run(cudaStream_t stream, const GemmCall& c) override {
    const int64_t bytes = static_cast<int64_t>(SizeOf(c.dtype));
    const Shape shape(c.dtype, c.y.rows, c.y.cols, c.k, c.x_stride, c.weight_stride, c.y.stride,
                      c.bias != nullptr, Alignment(c.x, c.x_stride * bytes),
                      Alignment(c.weight, c.weight_stride * bytes), Alignment(c.y.data, c.y.stride * 4));
    auto found = plans_.find(shape);
    if (found == plans_.end()) {
      Plan plan;
      if (absl::Status made = MakePlan(c, shape, &plan); !made.ok()) {
        Destroy(plan);
        return made;
      }
      found = plans_.emplace(shape, plan).first;
    }
    const Plan& plan = found->second;
    if (c.bias != nullptr) {
      if (auto s = cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &c.bias,
                                                  sizeof c.bias);
          s != CUBLAS_STATUS_SUCCESS) {
        return ToStatus(s, "bias");
      }
    }
    const float one = 1, share_of_y = c.accumulate ? 1 : 0;
    return ToStatus(
        cublasLtMatmul(handle_, plan.product, &one, c.weight, plan.weight, c.x, plan.x, &share_of_y, c.y.data,
                       plan.y, c.y.data, plan.y, &plan.algorithm, workspace_, plan.workspace_bytes, stream),
        "matmul");
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
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::get<9>(shape));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::get<8>(shape));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::get<10>(shape));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::get<10>(shape));
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
    return ToStatus(s, "choosing an algorithm");
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
};

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create() {
  cublasLtHandle_t handle = nullptr;
  if (absl::Status s = ToStatus(cublasLtCreate(&handle), "start"); !s.ok()) return s;
  void* workspace = nullptr;
  if (cudaError_t error = cudaMalloc(&workspace, kWorkspaceBytes); error != cudaSuccess) {
    cublasLtDestroy(handle);
    return absl::ResourceExhaustedError(
        absl::StrCat("cuBLASLt's workspace of ", kWorkspaceBytes, " bytes: ", cudaGetErrorString(error)));
  }
  return std::make_unique<CublasLtGemm>(handle, workspace);
}

}  // namespace sessa::cuda
