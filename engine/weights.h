// Where a Model gets its weights from. The engine knows tensors by name; how they lie in files is
// server/checkpoint's.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace sessa {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Valid as long as its owner, or as the source when that is null. NOT_FOUND, naming the tensor, when the
  // checkpoint has none of that name. Thread-safe.
  virtual absl::StatusOr<TensorView> Get(std::string_view name) const = 0;
};

}  // namespace sessa
