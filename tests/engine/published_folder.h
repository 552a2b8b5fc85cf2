// What the tests of whole models compare with: the published outputs, and the measure of an error.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/checkpoint.h"

namespace sessa {

// Largest error relative to the largest expected value, or to `largest` when that is more.
template <class E>
double Error(const std::vector<E>& expected, const std::vector<float>& actual, double largest = 0) {
  if (expected.size() != actual.size()) return INFINITY;
  double error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(actual[i])) return INFINITY;
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    error = std::max(error, std::abs(static_cast<double>(expected[i]) - actual[i]));
  }
  return error / largest;
}

// A published folder of tests/reference/data: its checkpoint, inputs and expected tensors.
struct Folder {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<SafetensorsFile> expected;
  int B = 0, T = 0;
  std::vector<std::vector<int32_t>> ids;

  explicit Folder(const std::string& name) {
    const std::string dir = absl::StrCat(SESSA_REFERENCE_DATA, "/", name);
    checkpoint = Checkpoint::Open(dir).value();
    expected = SafetensorsFile::Open(dir + "/expected.safetensors").value();
    const StoredTensor* view = expected->Find("input_ids");
    B = view->shape[0], T = view->shape[1];
    for (int b = 0; b < B; ++b) {
      std::vector<int64_t> wide(T);
      std::memcpy(wide.data(), expected->Read(*view).value().get() + int64_t{8} * b * T, 8 * T);
      ids.emplace_back(wide.begin(), wide.end());
    }
  }
  // Of the tensor over all b, what the tolerances are relative to.
  double Largest(const std::string& tensor) const {
    double largest = 0;
    for (int b = 0; b < B; ++b) {
      for (float x : Expected(tensor, b)) largest = std::max(largest, std::abs(double{x}));
    }
    return largest;
  }
  // Row b; empty when the folder has no such tensor.
  std::vector<float> Expected(const std::string& tensor, int b) const {
    const StoredTensor* view = expected->Find(tensor);
    if (view == nullptr) return {};
    std::vector<float> values(view->num_bytes / 4 / B);
    std::memcpy(values.data(), expected->Read(*view).value().get() + b * values.size() * 4,
                values.size() * 4);
    return values;
  }
};

}  // namespace sessa
