// Values in memory as what a backend takes weights from.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/tensor.h"

namespace sessa {

inline TensorView ViewOf(const std::vector<float>& values, std::vector<int64_t> shape) {
  return {DType::kF32, std::move(shape), values.data()};
}
inline TensorView ViewOf(const std::vector<float>& values) {
  return ViewOf(values, {static_cast<int64_t>(values.size())});
}

}  // namespace sessa
