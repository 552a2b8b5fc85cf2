// Where a Model gets its weights from. The engine knows tensors by name; how they lie in files is
// server/checkpoint's.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace sessa {

// Read-only bytes of one checkpoint tensor, row-major, little-endian; valid as long as `owner`, or as the
// source when it is null. `data` may be unaligned.
struct WeightView {
  DType dtype = DType::kF32;  // kF32, kBF16 or kF16
  std::vector<int64_t> shape;
  const void* data = nullptr;
  std::shared_ptr<const void> owner = nullptr;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // NOT_FOUND, naming the tensor, when the checkpoint has none of that name. Thread-safe.
  virtual absl::StatusOr<WeightView> Get(std::string_view name) const = 0;
};

}  // namespace sessa
