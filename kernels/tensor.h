// Views of dense row-major memory. A view owns nothing: who owns the bytes is said where they are
// allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sessa {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI8 };

constexpr size_t SizeOf(DType t) {
  return t == DType::kF32 || t == DType::kI32 ? 4 : t == DType::kI8 ? 1 : 2;
}

constexpr const char* Name(DType t) {
  switch (t) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF16: return "f16";
    case DType::kI32: return "i32";
    case DType::kI8: return "int8";
  }
  return "?";
}

// A row-major float matrix [rows, cols] whose rows are `stride` floats apart; all activations are of this
// kind.
struct Matrix {
  float* data = nullptr;
  int rows = 0;
  int cols = 0;
  int64_t stride = 0;

  constexpr float* row(int r) const { return data + r * stride; }
  // Columns [begin, end) of the same rows.
  constexpr Matrix Columns(int begin, int end) const { return {data + begin, rows, end - begin, stride}; }
  constexpr Matrix Rows(int begin, int end) const {
    return {data + begin * stride, end - begin, cols, stride};
  }
  bool operator==(const Matrix&) const = default;
};

// What becomes of a linear layer's x W^T + b: y is it, or gelu of it (the exact form, by erf), or what y holds
// plus it or times it, or y = silu(x W^T + b) * (x W'^T + b') with the weights of a second product.
enum class Epilogue { kNone, kGelu, kAdd, kMultiply, kSiluGate };

// Read-only values in host memory, dense and row-major, little-endian: a checkpoint's tensor, or rows of one.
// Valid as long as `owner`, or as who gave it where that is null. `data` may be unaligned.
struct TensorView {
  DType dtype = DType::kF32;  // kF32, kBF16 or kF16
  std::vector<int64_t> shape;
  const void* data = nullptr;
  std::shared_ptr<const void> owner = nullptr;

  int64_t num_values() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  // [begin, end) of the first dimension.
  TensorView Rows(int64_t begin, int64_t end) const {
    TensorView rows = *this;
    rows.shape[0] = end - begin;
    const int64_t values = shape[0] == 0 ? 0 : num_values() / shape[0];
    rows.data = static_cast<const char*>(data) + begin * values * static_cast<int64_t>(SizeOf(dtype));
    return rows;
  }
};

}  // namespace sessa
