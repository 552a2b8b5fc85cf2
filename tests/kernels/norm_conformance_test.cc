// What decoders of Llama's kind ask of a backend beside the rest: rms norms of rows, of groups and of heads,
// the silu gate, and ropes that are scaled.
#include "tests/kernels/conformance.h"

namespace sessa {
namespace {

class NormTest : public ConformanceTest {
 protected:
  LinearWeights Make(const std::vector<float>& weight, int n, int k, const std::vector<float>& bias,
                     DType dtype) {
    const TensorView bias_view = ViewOf(bias);
    return *backend_->MakeLinear(ViewOf(weight, {n, k}), bias.empty() ? nullptr : &bias_view, dtype);
  }
  static std::vector<double> Product(const std::vector<float>& x, int rows, int k,
                                     const std::vector<float>& weight, const std::vector<float>& bias, int n,
                                     DType dtype) {
    std::vector<double> y;
    for (int r = 0; r < rows; ++r) {
      for (int j = 0; j < n; ++j) {
        double sum = bias.empty() ? 0 : bias[j];
        for (int i = 0; i < k; ++i) sum += double{x[r * k + i]} * RoundTo(dtype, weight[j * k + i]);
        y.push_back(sum);
      }
    }
    return y;
  }
  bool Rounds(int rows, DType dtype) const {
    return !GetParam().batch_invariant && rows >= 64 && dtype == DType::kBF16;
  }
};

TEST_P(NormTest, RmsOfRowsAndGroups) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (auto [k, groups] : {std::pair{2, 1}, {16, 2}, {100, 1}, {96, 4}, {600, 3}, {520, 8}}) {
      const auto weight = Random(64 * k, 1 / std::sqrt(static_cast<float>(k))), scale = Random(k);
      const LinearWeights w = Make(weight, 64, k, {}, dtype);
      const Buffer norm_weight = Table(scale);
      for (int rows : {1, 3, 20, 70}) {
        SCOPED_TRACE(testing::Message() << Name(dtype) << " rows " << rows << " k " << k << " / " << groups);
        const auto x = Random(rows * k, 3);
        std::vector<float> normed(x.size());
        const int size = k / groups;
        for (int i = 0; i < rows * groups; ++i) {
          double squares = 0;
          for (int c = 0; c < size; ++c) squares += double{x[i * size + c]} * x[i * size + c];
          for (int c = 0; c < size; ++c) {
            normed[i * size + c] = static_cast<float>(x[i * size + c] / std::sqrt(squares / size + 1e-5) *
                                                      scale[i % groups * size + c]);
          }
        }
        const Device in = Put(x, rows, k, 4), out = Empty(rows, 64, 3);
        const LinearCall call{&w, out.matrix};
        backend_->Linear(in.matrix, {Norm::Kind::kRms, &norm_weight, nullptr, 1e-5f, groups}, {&call, 1});
        ExpectNear(Product(normed, rows, k, weight, {}, 64, dtype), Get(out),
                   Rounds(rows, dtype) ? 4e-3 : 1e-5, 1, {"linear of an rms norm", 64});
        EXPECT_EQ(Get(in), x);
      }
    }
  }
}

// Beside plain calls, in every way that a backend has for so many rows; a row is the same bits in all of them
// that do not round.
TEST_P(NormTest, SiluGate) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (auto [k, n] : {std::pair{20, 1}, {64, 130}, {600, 70}}) {
      const auto gate = Random(n * k, 1 / std::sqrt(static_cast<float>(k))),
                 up = Random(n * k, 1 / std::sqrt(static_cast<float>(k))), bias = Random(n);
      const LinearWeights w_gate = Make(gate, n, k, bias, dtype), w_up = Make(up, n, k, {}, dtype);
      const auto x = Random(130 * k);
      const Device all = Put(x, 130, k);
      std::vector<float> alone;
      for (int rows : {1, 5, 8, 20, 63, 64, 130}) {
        SCOPED_TRACE(testing::Message() << Name(dtype) << " rows " << rows << " k " << k << " n " << n);
        const Device y = Empty(rows, n, 3), plain = Empty(rows, n), gelu = Empty(rows, n, 1);
        backend_->Linear(all.matrix.Rows(0, rows), {},
                         {{&w_up, plain.matrix},
                          {&w_gate, y.matrix, Epilogue::kSiluGate, &w_up},
                          {&w_up, gelu.matrix, Epilogue::kGelu}});
        auto expected = Product(x, rows, k, gate, bias, n, dtype);
        const auto beside = Product(x, rows, k, up, {}, n, dtype);
        for (size_t i = 0; i < expected.size(); ++i)
          expected[i] = expected[i] / (1 + std::exp(-expected[i])) * beside[i];
        const auto actual = Get(y);
        ExpectNear(expected, actual, Rounds(rows, dtype) ? 8e-3 : 1e-5, 1, {"gated", n});
        ExpectNear(beside, Get(plain), Rounds(rows, dtype) ? 4e-3 : 1e-5, 1, {"beside it", n});
        if (alone.empty()) alone = actual;
        const bool same = rows <= 8 || GetParam().batch_invariant || (rows < 64 && dtype == DType::kF32);
        if (same) {
          EXPECT_EQ(std::vector<float>(actual.begin(), actual.begin() + n), alone) << "bits differ";
        }
      }
    }
  }
}

// Whatever form a device keeps what is between them in, the bits are those of two calls.
TEST_P(NormTest, PairsOfLinears) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    constexpr int kWidth = 50, kMostRows = 300;
    for (int inner : {192, 70}) {  // of whole groups of 64, and not
      const auto w = [&](int n, int k) {
        return Make(Random(n * k, 1 / std::sqrt(static_cast<float>(k))), n, k, Random(n), dtype);
      };
      const LinearWeights gate = w(inner, kWidth), up = w(inner, kWidth), down = w(kWidth, inner);
      const auto values = Random(kMostRows * kWidth), before = Random(kMostRows * kWidth);
      const Device x = Put(values, kMostRows, kWidth);
      for (int rows : {1, 16, 17, 40, kMostRows}) {
        SCOPED_TRACE(testing::Message() << Name(dtype) << " rows " << rows << " inner " << inner);
        const Device between = Empty(rows, inner, 2), pair = Put(before, kMostRows, kWidth),
                     single = Put(before, kMostRows, kWidth);
        const Matrix in = x.matrix.Rows(0, rows);
        const auto call = [&](const Device& y) {
          return LinearCall{&down, y.matrix.Rows(0, rows), Epilogue::kAdd};
        };
        const LinearCall gated{&gate, between.matrix, Epilogue::kSiluGate, &up};
        backend_->LinearPair(in, {}, gated, call(pair));
        backend_->Linear(in, {}, {gated});
        backend_->Linear(between.matrix, {}, {call(single)});
        EXPECT_EQ(Get(pair), Get(single));
      }
    }
  }
}

TEST_P(NormTest, HeadsOfQueriesAndKeys) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int d : {2, 6, 64, 80, 128}) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << " head_dim " << d);
      constexpr int kHeads = 3, kKvHeads = 2, kRows = 5, kPositions[kRows] = {0, 1, 7, 100, 1000};
      const auto freq = Random(d / 2, 0.3f), q_norm = Random(d), k_norm = Random(d);
      StepRows step;
      std::vector<std::vector<int32_t>> pages(kRows);
      for (int r = 0; r < kRows; ++r) {
        pages[r].assign(kPositions[r] / 16 + 1, r);
        step.spans.push_back({r, 1, kPositions[r], pages[r]});
        step.token_ids.push_back(0), step.positions.push_back(kPositions[r]);
      }
      step.inv_freq = freq, step.rope_scale = 1.25f;
      CutIntoWaves(&step, kTileTokens);
      using Use = PagedShape::Use;
      PagedTensor keys = *backend_->AllocatePages({Use::kKey, kKvHeads, d, dtype}, 16, 0, kRows),
                  values = *backend_->AllocatePages({Use::kValue, kKvHeads, d, dtype}, 16, 0, kRows);
      const auto expected = [&](const std::vector<float>& x, int heads, const std::vector<float>& weight) {
        std::vector<double> y(x.size());
        for (int i = 0; i < kRows * heads; ++i) {
          double squares = 0;
          for (int c = 0; c < d; ++c) squares += double{x[i * d + c]} * x[i * d + c];
          const double scale = 1 / std::sqrt(squares / d + 1e-6);
          for (int c = 0; c < d; c += 2) {
            const float angle = static_cast<float>(kPositions[i / heads]) * freq[c / 2];
            const double a = x[i * d + c] * scale * weight[c], b = x[i * d + c + 1] * scale * weight[c + 1];
            y[i * d + c] = 1.25 * (a * std::cos(double{angle}) - b * std::sin(double{angle}));
            y[i * d + c + 1] = 1.25 * (a * std::sin(double{angle}) + b * std::cos(double{angle}));
          }
        }
        return y;
      };
      const auto q = Random(kRows * kHeads * d), k = Random(kRows * kKvHeads * d), v = Random(k.size());
      const Device dq = Put(q, kRows, kHeads * d, 6), dk = Put(k, kRows, kKvHeads * d, 2),
                   dv = Put(v, kRows, kKvHeads * d);
      const Buffer q_weight = Table(q_norm), k_weight = Table(k_norm);
      backend_->BeginStep(step);
      backend_->Append({dq.matrix, dk.matrix, dv.matrix, &keys, &values, &q_weight, &k_weight, 1e-6f});
      ExpectNear(expected(q, kHeads, q_norm), Get(dq), 2e-6, 0, {"q", kHeads * d});
      ExpectNear(expected(k, kKvHeads, k_norm), Get(dk), 2e-6, 0, {"k", kKvHeads * d});
      const auto rotated = Get(dk);
      for (int r = 0; r < kRows; ++r) {
        const int n = kPositions[r] + 1, width = kKvHeads * d;
        std::vector<float> cached(n * width), kept(n * width);
        backend_->ReadState(keys, pages[r].data(), n, cached.data());
        backend_->ReadState(values, pages[r].data(), n, kept.data());
        for (int c = 0; c < width; ++c) {
          EXPECT_EQ(cached[(n - 1) * width + c], RoundTo(dtype, rotated[r * width + c]));
          EXPECT_EQ(kept[(n - 1) * width + c], RoundTo(dtype, v[r * width + c]));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, NormTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
