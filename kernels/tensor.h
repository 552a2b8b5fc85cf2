// Views of dense row-major memory. A Tensor owns nothing: who owns the bytes is said where they are
// allocated.
#pragma once

#include <cstddef>
#include <cstdint>

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

// What becomes of a linear layer's x W^T + b: y is it, or gelu of it (the exact form, by erf), or it is added
// to what y holds.
enum class Epilogue { kNone, kGelu, kAdd };

}  // namespace sessa
