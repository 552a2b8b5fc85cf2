// The operations of cached state, on every backend: pages, forward attention and the feedback recurrence,
// against double precision on the values that the pages hold, and bit for bit against themselves however the
// rows are cut and batched.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/kernels/state_fixture.h"

namespace sessa {
namespace {

TEST_P(StateTest, EveryShape) {
  std::vector<Shape> shapes = {{4, 4, 8, 16},   {4, 1, 16, 100},  {8, 1, 10, 20},
                               {2, 2, 64, 128}, {1, 1, 100, 300}, {6, 2, 6, 512}};
  if (GetParam().large) shapes.insert(shapes.end(), {{16, 4, 64, 1024}, {1, 1, 2048, 2048}});
  for (Shape shape : shapes) {
    for (DType dtype : kStateDTypes) {
      const int page_size = dtype == DType::kF32 ? 16 : dtype == DType::kBF16 ? 64 : 32;
      SCOPED_TRACE(absl::StrCat("H ", shape.H, " K ", shape.K, " d ", shape.d, " D ", shape.D, " ",
                                Name(dtype), " page ", page_size));
      shape.dtype = dtype;
      shape.page_size = page_size;
      Start(shape, {150, 70});
      Run({90, 1});  // prefill beside decode
      ExpectResults();
    }
  }
}

// Prompts and later chunks that end at, before and behind the edges of pages and tiles, for every way of
// sharing keys.
TEST_P(StateTest, PrefillAtEveryEdge) {
  const std::vector<int> lengths = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 129};
  for (auto [H, K, page_size, dtype] : {std::tuple{2, 2, 16, DType::kBF16},
                                        {4, 1, 64, DType::kBF16},
                                        {8, 1, 16, DType::kBF16},
                                        {4, 2, 32, DType::kI8}}) {
    for (int prefix : {0, 63, 130}) {
      SCOPED_TRACE(absl::StrCat("H ", H, " K ", K, " page ", page_size, " prefix ", prefix));
      std::vector<int> totals, rows(lengths.size(), prefix);
      for (int n : lengths) totals.push_back(prefix + n);
      Start({H, K, 24, 40, dtype, page_size}, totals);
      if (prefix > 0) Step(rows);
      Step(lengths);
      ExpectResults();
    }
  }
}

TEST_P(StateTest, PrefillOfEveryWidth) {
  for (Shape shape : std::vector<Shape>{
           {4, 1, 64, 512}, {2, 1, 128, 1024}, {1, 1, 72, 2048}, {1, 1, 128, 4096}, {2, 1, 136, 64}}) {
    for (DType dtype : kStateDTypes) {
      SCOPED_TRACE(absl::StrCat("d ", shape.d, " D ", shape.D, " ", Name(dtype)));
      shape.dtype = dtype;
      shape.page_size = 64;
      const bool is_slow = !GetParam().large && shape.D > 2048;
      Start(shape, {is_slow ? 30 : 130});
      Run({is_slow ? 20 : 100});
      ExpectResults();
    }
  }
}

// Attention takes 128 queries and 128 tokens at a time where heads are wide: at those edges, and of widths
// that are no multiple of four.
TEST_P(StateTest, WidePrefillAtEveryEdge) {
  const std::vector<int> lengths = {9, 16, 127, 129};
  for (auto [H, K, d, dtype] : {std::tuple{1, 1, 128, DType::kBF16},
                                {8, 1, 72, DType::kBF16},
                                {4, 1, 98, DType::kBF16},
                                {3, 1, 38, DType::kBF16},
                                {4, 1, 98, DType::kI8},
                                {3, 1, 38, DType::kI8}}) {
    for (int prefix : {0, 126}) {
      SCOPED_TRACE(absl::StrCat("H ", H, " K ", K, " d ", d, " prefix ", prefix));
      std::vector<int> totals, rows(lengths.size(), prefix);
      for (int n : lengths) totals.push_back(prefix + n);
      Start({H, K, d, 8, dtype, 64}, totals);
      if (prefix > 0) Step(rows);
      Step(lengths);
      ExpectResults();
    }
  }
}

// Beyond 4096 columns a GPU's kernels for few rows take one row alone.
TEST_P(StateTest, FewRowsOfWideState) {
  for (DType dtype : kStateDTypes) {
    for (int D : {4096, 4104}) {
      SCOPED_TRACE(absl::StrCat(Name(dtype), " D ", D));
      Start({1, 1, 8, D, dtype, 16}, {9});
      Run({4});
      ExpectResults();
    }
  }
}

// A window that ends inside a tile, at its border, and is shorter than a page or longer than the sequence.
TEST_P(StateTest, AttentionInAWindow) {
  for (DType dtype : kStateDTypes) {
    for (int window : {5, 64, 65, 1000}) {
      if (!GetParam().large && dtype == DType::kI8 && window != 65) continue;
      std::vector<float> out;
      for (int chunk : {140, 7, 65}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " window ", window, " chunk ", chunk));
        random_.seed(11);
        Start({4, 2, 8, 16, dtype, 16}, {140, 30});
        window_ = window;
        Run({chunk, 1});
        ExpectResults();
        if (out.empty()) out = sequences_[0].out;
        if (!DependsOnRows()) {
          EXPECT_EQ(out, sequences_[0].out) << "attention: bits differ";
        }
      }
    }
  }
}

TEST_P(StateTest, EveryCutIsTheSameBits) {
  for (DType dtype : kStateDTypes) {
    for (int page_size : {16, 32, 64}) {
      if (!GetParam().large && dtype == DType::kI8 && page_size != 32) continue;
      std::vector<float> out, s;
      for (int chunk : {200, 1, page_size - 1, page_size, page_size + 1, 9, 3}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " page ", page_size, " chunk ", chunk));
        random_.seed(7);
        Start({4, 2, 8, 40, dtype, page_size}, {200});
        Run({chunk});
        ExpectResults();
        if (out.empty()) out = sequences_[0].out, s = sequences_[0].s;
        if (!DependsOnRows()) {
          EXPECT_EQ(out, sequences_[0].out) << "attention: bits differ";
        }
        if (GetParam().batch_invariant) {  // otherwise blocks of many rows may be solved by an inverse
          EXPECT_EQ(s, sequences_[0].s) << "feedback: bits differ";
        }
      }
    }
  }
}

TEST_P(StateTest, ABatchIsTheSameBitsAsAlone) {
  const Shape shape{8, 1, 16, 48, DType::kBF16, 16};
  const std::vector<int> lengths = {1, 15, 16, 17, 63, 64, 65, 130}, chunks = {1, 15, 4, 17, 40, 64, 1, 50};
  Start(shape, lengths);
  Run(chunks);
  ExpectResults();
  if (!GetParam().batch_invariant) return;
  auto together = std::move(sequences_);
  for (size_t i = 0; i < lengths.size(); ++i) {
    Start(shape, {lengths[i]});
    // The same inputs, in one piece.
    Sequence& alone = sequences_[0];
    const auto pages = alone.pages;
    alone = together[i];
    alone.pages = pages, alone.num_done = 0, alone.out.clear(), alone.s.clear(), alone.gated.clear();
    Run({lengths[i]});
    EXPECT_EQ(alone.out, together[i].out) << lengths[i];
    EXPECT_EQ(alone.s, together[i].s) << lengths[i];
  }
}

TEST_P(StateTest, LongContext) {
  // Several tiles in each chain, and more than kTile of them to fold in one chain where the device is fast.
  const int n = GetParam().large ? 40000 : 1300;
  for (DType dtype : kStateDTypes) {
    SCOPED_TRACE(Name(dtype));
    Start({2, 1, 8, 16, dtype, 64}, {n});
    const double tolerance = std::max(2e-5, Tolerance()),
                 feedback_tolerance = std::max(2e-5, FeedbackTolerance());
    // The last rows by decode, then by few and by many: each way has its own kernels.
    Step({n - 70});
    for (int i = 0; i < 10; ++i) Step({1});
    Step({5}), Step({55});
    ASSERT_EQ(sequences_[0].num_done, n);
    Sequence& s = sequences_[0];
    const auto k = Rounded(s.k, 8), v = Rounded(s.v, 8), k_b = Rounded(s.k_b, 16), states = Rounded(s.s, 16);
    // Only the last rows are checked: the others would take the plain loops too long.
    std::vector<int> rows = {n - 60, n - 56, n - 55, n - 2, n - 1};
    for (int i = 0; i < 10; ++i) rows.push_back(n - 70 + i);
    for (int t : rows) {
      const auto y = Mix(&s.q[(t * 2 + 1) * 8], k.data(), v.data(), 0, t + 1, 8, 8);
      ExpectNear(y, {s.out.begin() + (t * 2 + 1) * 8, s.out.begin() + (t * 2 + 2) * 8}, tolerance, 0,
                 {absl::StrCat("attention at ", t), 8});
      const auto r = Mix(&s.q_b[t * 16], k_b.data(), states.data(), 0, t, 16, 16);
      std::vector<double> expected;
      for (int i = 0; i < 16; ++i) expected.push_back(s.f[t * 16 + i] + Gamma(s.u[t]) * r[i]);
      ExpectNear(expected, {s.s.begin() + t * 16, s.s.begin() + (t + 1) * 16}, feedback_tolerance, 0,
                 {absl::StrCat("feedback at ", t), 16});
    }
  }
}

// An exact check at any length (docs/architecture.md, "The model"): q_b = 0 makes the weights uniform, and
// with a constant gamma the response to an impulse has a closed form. Wrong paging, wrong normalisation and
// lost precision all show.
TEST_P(StateTest, APowerLawImpulse) {
  const int n = GetParam().impulse_tokens, impulse = 37;
  constexpr double kGamma = 0.7;
  for (DType dtype : kStateDTypes) {
    SCOPED_TRACE(Name(dtype));
    Start({1, 1, 2, 8, dtype, 64}, {n});
    Sequence& s = sequences_[0];
    std::fill(s.q_b.begin(), s.q_b.end(), 0.0f);
    std::fill(s.f.begin(), s.f.end(), 0.0f);
    s.f[impulse * 8 + 3] = 1;
    // So that gamma is the constant.
    std::fill(s.u.begin(), s.u.end(), static_cast<float>((std::atanh(kGamma / kGammaMax) - kGammaBias) / 2));
    Run({2048});
    double worst = 0;
    for (int t = impulse + 1; t < n; ++t) {
      const double expected = kGamma / t *
                              std::exp(std::lgamma(t + kGamma) - std::lgamma(t) + std::lgamma(impulse + 1.0) -
                                       std::lgamma(impulse + 1 + kGamma));
      worst = std::max(worst, std::abs(s.s[t * 8 + 3] / expected - 1));
      ASSERT_EQ(s.s[t * 8 + 2], 0);
    }
    EXPECT_EQ(s.s[impulse * 8 + 3], 1);
    EXPECT_LE(worst, dtype == DType::kF32 ? 1e-4 : dtype == DType::kBF16 ? 5e-3 : 1e-2);
  }
}

TEST_P(StateTest, PagesOfOtherRanksAreLeftAlone) {
  Start({2, 2, 8, 16, DType::kF32, 64}, {256});
  Sequence& s = sequences_[0];
  s.pages = {0, 1, 2, 3};
  for (PagedTensor* paged : {feedback_keys(), states()}) {
    auto half = backend_->AllocatePages(paged->shape, 64, /*first_page=*/2, /*num_pages=*/2);
    ASSERT_TRUE(half.ok()) << half.status();
    *paged = *std::move(half);
  }
  StepRows step;
  step.spans = {{0, 256, 0, s.pages}};
  step.token_ids.resize(256), step.positions.resize(256);
  CutIntoWaves(&step, backend_->feedback()->MaxBlockRows(DType::kF32));
  backend_->BeginStep(step);
  const Device k_b = Put(s.k_b, 256, 16), u = Put(s.u, 256, 1), gamma = Empty(1, 256);
  backend_->feedback()->Append(
      {k_b.matrix, k_b.matrix, k_b.matrix, this->keys(), values()},
      {k_b.matrix, u.matrix, &gamma_ctx_, &gamma_bias_, kGammaMax, gamma.matrix.data, feedback_keys()});
  for (int w = 0; w < 4; ++w) backend_->feedback()->AppendStates(k_b.matrix, w, this->states());
  std::vector<float> keys(128 * 16), states(128 * 16);
  backend_->ReadState(*feedback_keys(), s.pages.data() + 2, 128, keys.data());
  backend_->ReadState(*this->states(), s.pages.data() + 2, 128, states.data());
  const std::vector<float> expected(s.k_b.begin() + 128 * 16, s.k_b.end());
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(states, expected);
}

std::vector<TestDevice> StateDevices() {
  std::vector<TestDevice> devices = TestDevices();
  devices.push_back(CpuTiles("CpuTilesBf16", /*bf16_activations=*/true));
  return devices;
}

INSTANTIATE_TEST_SUITE_P(Devices, StateTest, testing::ValuesIn(StateDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
