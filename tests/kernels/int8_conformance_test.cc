// Linears of int8 weights on every backend: the product with what the weights stand for.
#include "tests/kernels/conformance.h"
#include "tests/kernels/int8_weights.h"

namespace sessa {
namespace {

class Int8Test : public ConformanceTest {
 protected:
  LinearWeights Make(const std::vector<float>& weight, int n, int k, const std::vector<float>& bias) {
    const TensorView bias_view = ViewOf(bias);
    auto w = backend_->MakeLinear(ViewOf(weight, {n, k}), &bias_view, DType::kI8);
    EXPECT_TRUE(w.ok()) << w.status();
    return *std::move(w);
  }
  // What the weights stand for.
  static std::vector<float> Rounded(std::vector<float> weight, int n, int k) {
    for (int j = 0; j < n; ++j) {
      const absl::Span<float> output = absl::MakeSpan(weight).subspan(j * k, k);
      GetParam().rotates ? RoundRotated(output) : RoundInGroups(output);
    }
    return weight;
  }
};

TEST_P(Int8Test, ProductsOfRoundedWeights) {
  for (int k : {2, 20, 64, 65, 130, 512, 600, 1100}) {
    for (int n : {1, 64, 130}) {
      const auto weight = Random(n * k, 1 / std::sqrt(static_cast<float>(k))), bias = Random(n);
      const LinearWeights w = Make(weight, n, k, bias);
      const auto rounded = Rounded(weight, n, k);
      const auto x = Random(70 * k);
      const Device all = Put(x, 70, k, 3);
      std::vector<float> alone;
      for (int rows : {1, 3, 8, 9, 40, 70}) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << " k " << k << " n " << n);
        const auto before = Random(rows * n);
        const Device y = Empty(rows, n, 3), sum = Put(before, rows, n), gate = Empty(rows, n);
        backend_->Linear(
            all.matrix.Rows(0, rows), {},
            {{&w, y.matrix}, {&w, sum.matrix, Epilogue::kAdd}, {&w, gate.matrix, Epilogue::kSiluGate, &w}});
        std::vector<double> expected, added, gated;
        for (int r = 0; r < rows; ++r) {
          for (int j = 0; j < n; ++j) {
            double dot = bias[j];
            for (int i = 0; i < k; ++i) dot += double{x[r * k + i]} * rounded[j * k + i];
            expected.push_back(dot);
            added.push_back(before[r * n + j] + dot);
            gated.push_back(dot / (1 + std::exp(-dot)) * dot);
          }
        }
        // Many rows may go by a library in bf16; few may be 16-bit integers.
        const double tolerance = !GetParam().batch_invariant && rows >= 64 ? 1e-2 : 2e-4;
        const auto actual = Get(y);
        ExpectNear(expected, actual, tolerance, 1, {"product", n});
        ExpectNear(added, Get(sum), tolerance, 1, {"added", n});
        ExpectNear(gated, Get(gate), 2 * tolerance, 1, {"gated", n});
        if (alone.empty()) alone = actual;
        if (rows < 64 || GetParam().batch_invariant) {
          EXPECT_EQ(std::vector<float>(actual.begin(), actual.begin() + n), alone) << "bits differ";
        }
      }
    }
  }
}

TEST_P(Int8Test, RefusesWhatIsNotFinite) {
  for (float bad : {std::nanf(""), INFINITY}) {
    auto weight = Random(130);
    weight[129] = bad;
    EXPECT_EQ(backend_->MakeLinear(ViewOf(weight, {2, 65}), nullptr, DType::kI8).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// Where integers are summed along all of k, an int32 sets the limit (kernels/cpu/int8_tiles.h).
TEST_P(Int8Test, RefusesMoreInputsThanSumsHold) {
  const int most = 1 << 16;
  const std::vector<float> weight(most + 1, 1.0f);
  for (int k : {most, most + 1}) {
    const auto w = backend_->MakeLinear(ViewOf(weight, {1, k}), nullptr, DType::kI8);
    EXPECT_EQ(w.ok(), !GetParam().rotates || k == most) << w.status();
    if (w.ok()) continue;
    EXPECT_EQ(w.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Int8Test, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
