// What the conformance suite's files share: a backend, matrices in its memory, random values and the measure
// of an error.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/backend.h"
#include "kernels/convert.h"
#include "tests/kernels/devices.h"
#include "tests/tensor_view.h"

namespace sessa {

inline float RoundTo(DType dtype, float x) {
  const uint16_t rounded = RoundToBf16(x);
  return dtype == DType::kBF16 ? ToFloat(&rounded, 0, DType::kBF16) : x;
}

// A row as the cache holds it: int8 in groups of 64 columns that share a power of two
// (kernels/cpu/int8_state.h).
inline std::vector<float> RoundTo(DType dtype, const float* x, int n) {
  std::vector<float> y(n);
  for (int i = 0; i < n && dtype != DType::kI8; ++i) y[i] = RoundTo(dtype, x[i]);
  for (int first = 0; first < n && dtype == DType::kI8; first += 64) {
    const int end = std::min(n, first + 64);
    double largest = 0;
    for (int i = first; i < end; ++i) largest = std::max(largest, std::abs(double{x[i]}));
    int e = -126;
    while (std::nearbyint(std::ldexp(largest, -e)) > 127) ++e;
    for (int i = first; i < end; ++i)
      y[i] = static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(double{x[i]}, -e)), e));
  }
  return y;
}

struct What {  // values are, for messages
  std::string name = "result";
  int columns = 1;
};

class ConformanceTest : public testing::TestWithParam<TestDevice> {
 protected:
  void SetUp() override {
    auto backend = GetParam().make();
    if (absl::IsUnavailable(backend.status())) GTEST_SKIP() << backend.status();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  std::vector<float> Random(size_t n, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> values(n);
    for (float& x : values) x = normal(random_);
    return values;
  }

  // A matrix in device memory, inside one with more columns when there is a margin; the margin holds a mark.
  struct Device {
    Buffer memory;
    Matrix matrix;
    int margin;
  };
  static constexpr float kMark = 12345;
  Device Put(const std::vector<float>& values, int rows, int cols, int margin = 0) {
    Device m{Allocate(sizeof(float) * rows * (cols + margin)), {}, margin};
    m.matrix = {m.memory.floats(), rows, cols, cols + margin};
    Fill(m, values);
    return m;
  }
  void Fill(const Device& m, const std::vector<float>& values) {
    const auto [data, rows, cols, stride] = m.matrix;
    std::vector<float> wide(static_cast<size_t>(rows) * stride, kMark);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < cols; ++c)
        wide[r * static_cast<size_t>(stride) + c] =
            values.empty() ? NAN : values[r * static_cast<size_t>(cols) + c];
    }
    backend_->CopyIn(wide.data(), wide.size() * sizeof(float), m.memory.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
  }
  Device Empty(int rows, int cols, int margin = 0) { return Put({}, rows, cols, margin); }

  // The values, after everything that was enqueued; the margin must be as it was.
  std::vector<float> Get(const Device& m) {
    const Matrix& x = m.matrix;
    std::vector<float> wide(static_cast<size_t>(x.rows) * x.stride), values;
    backend_->CopyOut(x.data, wide.size() * sizeof(float), wide.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
    for (int r = 0; r < x.rows; ++r) {
      const float* row = wide.data() + r * x.stride;
      values.insert(values.end(), row, row + x.cols);
      for (int c = x.cols; c < x.stride; ++c)
        EXPECT_EQ(row[c], kMark) << "row " << r << " written beyond its columns";
    }
    return values;
  }

  Buffer Allocate(size_t bytes) {
    auto memory = backend_->Allocate(bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    return *std::move(memory);
  }
  Buffer Table(const std::vector<float>& values, DType dtype = DType::kF32) {
    auto table = backend_->MakeTable(ViewOf(values), dtype);
    EXPECT_TRUE(table.ok()) << table.status();
    return *std::move(table);
  }

  // Every value is within `tolerance` of the expected one, relative to the largest of them (or to `largest`,
  // when it is more). What is said of those that are not ends with a sum over all bits: two runs of a test
  // that fail with different sums are a race.
  static void ExpectNear(const std::vector<double>& expected, const std::vector<float>& actual,
                         double tolerance, double largest = 0, const What& what = {}) {
    ASSERT_EQ(expected.size(), actual.size());
    for (double x : expected) largest = std::max(largest, std::abs(x));
    const auto error = [&](size_t i) {
      const double difference = std::abs(expected[i] - actual[i]);
      return std::isnan(difference) ? INFINITY : difference;
    };
    size_t count = 0, first = 0, worst = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      bits = bits * 31 + std::bit_cast<uint32_t>(actual[i]);
      if (error(i) <= tolerance * largest) continue;
      if (count++ == 0) first = worst = i;
      if (error(i) > error(worst)) worst = i;
    }
    if (count == 0) return;
    const auto at = [&](size_t i) {
      return absl::StrFormat("row %d, column %d: %.9g for %.9g", i / what.columns, i % what.columns,
                             actual[i], expected[i]);
    };
    FAIL() << absl::StrFormat(
        "%s: %d of %d values differ, the first at %s, the worst at %s, beyond %.1e of %.3g; bits %08x",
        what.name, count, expected.size(), at(first), at(worst), tolerance, largest, bits);
  }

  std::unique_ptr<Backend> backend_;
  std::mt19937 random_{12345};
};

}  // namespace sessa
