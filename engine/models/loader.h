// Reads tensors of a checkpoint by name, checks their shapes, and remembers the first error, so that loading
// a layer reads as a list. Errors name the tensor: NOT_FOUND when it is missing, INVALID_ARGUMENT for a wrong
// shape.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace sessa {

class Loader {
 public:
  // `dtype`: of the linears. What is pointed to outlives this.
  Loader(const WeightSource& source, Backend* backend, DType dtype)
      : source_(source), backend_(backend), dtype_(dtype) {}

  const absl::Status& status() const { return status_; }

  // Empty after an error, as everything below.
  TensorView View(const std::string& name, const std::vector<int64_t>& shape);

  // Rows [begin, end) of name.weight [n, k], and of name.bias where there is one. head_dim > 0: the rows of
  // each head are stored half-split, (i, i + d / 2) being a pair of the rope, and become even/odd pairs.
  struct Rows {
    int n, k;
    int begin, end;
    bool has_bias = false;
    int head_dim = 0;
  };
  LinearWeights Linear(const std::string& name, const Rows& rows);

  // Rows [begin, end) of a tensor as float32; end < 0: all.
  Buffer Vector(const std::string& name, const std::vector<int64_t>& shape, int begin = 0, int end = -1);
  // A vector over a half-split head.
  Buffer HeadVector(const std::string& name, int head_dim);
  // A [V, D] table that is read by rows: in the checkpoint's precision when that is bf16, else float32.
  Buffer Table(const std::string& name, int64_t rows, int64_t columns, DType* dtype);
  Buffer Floats(const std::vector<float>& values);

 private:
  template <class T>
  T Take(absl::StatusOr<T> result) {
    if (result.ok()) return *std::move(result);
    if (status_.ok()) status_ = result.status();
    return T();
  }

  const WeightSource& source_;
  Backend* const backend_;
  const DType dtype_;
  absl::Status status_;
};

}  // namespace sessa
