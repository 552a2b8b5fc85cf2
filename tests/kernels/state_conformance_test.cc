// The operations of cached state, on every backend: pages, forward attention and the feedback recurrence,
// against double precision on the values that the pages hold, and bit for bit against themselves however the
// rows are cut and batched.
#include <map>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/kernels/conformance.h"

namespace sessa {
namespace {

struct Shape {
  int H, K, d, D;  // D is the feedback width, on its own
  DType dtype = DType::kF32;
  int page_size = 16;
};

class StateTest : public ConformanceTest {
 protected:
  // Sequences whose rows come with random inputs, in steps of any cut; what each operation gave is kept.
  struct Sequence {
    std::vector<float> q, k, v, q_b, k_b, f, u, g;  // inputs, by position; u is a column
    std::vector<float> out, s, gated;               // results
    std::vector<int32_t> pages;
    int num_tokens, num_done = 0;
  };

  static constexpr float kGammaMax = 0.999f, kGammaBias = 0.25f;

  void Start(const Shape& shape, const std::vector<int>& lengths) {
    gamma_ctx_ = Table({2}), gamma_bias_ = Table({kGammaBias});
    shape_ = shape;
    sequences_.clear();
    const int tile_pages = kFeedbackTile / shape.page_size;
    int num_pages = 0;
    for (int n : lengths) {
      Sequence& s = sequences_.emplace_back();
      s.num_tokens = n;
      s.q = Random(n * shape.H * shape.d), s.k = Random(n * shape.K * shape.d),
      s.v = Random(n * shape.K * shape.d);
      s.q_b = Random(n * shape.D, 1.5f), s.k_b = Random(n * shape.D, 1.5f), s.f = Random(n * shape.D);
      s.u = Random(n), s.g = Random(n * shape.D);
      s.pages.resize((n + kFeedbackTile - 1) / kFeedbackTile * tile_pages);
      num_pages += static_cast<int>(s.pages.size());
    }
    std::vector<int32_t> free(num_pages);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), random_);
    for (Sequence& s : sequences_) {
      for (int32_t& page : s.pages) page = free.back(), free.pop_back();
    }
    state_ = {};
    state_.dtype = shape.dtype;
    state_.page_size = shape.page_size;
    state_.num_kv_heads = shape.K;
    state_.head_dim = shape.d;
    state_.hidden_size = shape.D;
    state_.num_feedback_pages = num_pages;
    ASSERT_TRUE(backend_->AllocateState(num_pages, &state_).ok());
  }

  const Device& Held(const std::string& name, const std::vector<float>& values, int rows, int cols,
                     int margin = 0) {
    Device& m = held_[absl::StrCat(name, " ", rows, " ", cols)];
    if (m.memory.size() == 0) {
      m = Put(values, rows, cols, margin);
    } else {
      Fill(m, values);
    }
    return m;
  }

  // The next rows[i] tokens of sequence i as one step.
  void Step(const std::vector<int>& rows) {
    const auto [H, K, d, D, dtype, page_size] = shape_;
    StepRows step;
    std::vector<float> q, k, v, q_b, k_b, f, u, g;
    int n = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      Sequence& s = sequences_[i];
      if (rows[i] == 0) continue;
      step.spans.push_back({n, rows[i], s.num_done, s.pages});
      n += rows[i];
      const auto add = [&, count = rows[i]](const std::vector<float>& from, int width,
                                            std::vector<float>* to) {
        to->insert(to->end(), from.begin() + s.num_done * width, from.begin() + (s.num_done + count) * width);
      };
      add(s.q, H * d, &q), add(s.k, K * d, &k), add(s.v, K * d, &v), add(s.q_b, D, &q_b), add(s.k_b, D, &k_b);
      add(s.f, D, &f), add(s.u, 1, &u), add(s.g, D, &g);
    }
    step.token_ids.resize(n), step.positions.resize(n), step.logit_rows.resize(n);
    CutIntoWaves(&step, backend_->MaxBlockRows(state_.dtype));
    const int width = (D + 15) / 16 * 16;
    // In the same memory as in the last step of so many rows, and all before the step begins: a backend may
    // then know the step again and take another way.
    const Device &dq = Held("q", q, n, H * d, 4), &dk = Held("k", k, n, K * d),
                 &dv = Held("v", v, n, K * d, 8), &dq_b = Held("q_b", q_b, n, D),
                 &dk_b = Held("k_b", k_b, n, D, 4), &df = Held("f", f, n, D), &du = Held("u", u, n, 1),
                 &dg = Held("g", g, n, D, 8), &gamma = Held("gamma", {}, 1, n),
                 &out = Held("out", {}, n, H * d, 4), &ds = Held("s", {}, n, D, 4),
                 &gated = Held("gated", {}, n, D, 4), &max = Held("max", {}, kFeedbackChains, n),
                 &sum = Held("sum", {}, kFeedbackChains, n),
                 &acc = Held("acc", {}, kFeedbackChains * n, width), &p = Held("p", {}, n, kFeedbackTile);
    backend_->BeginStep(step);
    backend_->AppendRows({dq.matrix, dk.matrix, dv.matrix, dk_b.matrix, du.matrix, &gamma_ctx_, &gamma_bias_,
                          kGammaMax, gamma.matrix.data},
                         &state_);
    std::vector<int> q_to_kv;
    for (int h = 0; h < H; ++h) q_to_kv.push_back(h / (H / K));
    const AttendCall attend{dq.matrix, q_to_kv, out.matrix};
    for (int w = 0; w < static_cast<int>(step.waves.size()); ++w) {
      int wave_rows = 0;
      for (const RowSpan& b : step.waves[w]) wave_rows += b.num_rows;
      const FeedbackPartials partials{max.matrix.data, sum.matrix.data, acc.matrix.data,
                                      p.matrix.data,   wave_rows,       width};
      const FeedbackReadCall read{dq_b.matrix, dk_b.matrix, w, 0, 1, partials};
      if (w == 0) {
        backend_->AttendAndFeedbackRead(attend, read, state_);
      } else {
        backend_->FeedbackRead(read, state_);
      }
      const auto solve = [&](int begin, int end, bool gate, bool append) {
        backend_->FeedbackSolve({w, partials, df.matrix, gamma.matrix.data, begin, end, ds.matrix,
                                 gate ? dg.matrix : Matrix{}, gate ? gated.matrix : Matrix{}, append},
                                &state_);
      };
      if ((w + num_steps_) % 2 == 0) {
        solve(0, D, true, true);
      } else {  // in two parts, as two ranks would
        solve(0, D / 2, true, false);
        solve(D / 2, D, true, false);
        backend_->AppendFeedbackStates(ds.matrix, w, &state_);
      }
    }
    ++num_steps_;
    const auto all_out = Get(out), all_s = Get(ds), all_gated = Get(gated);
    for (size_t i = 0, row = 0; i < rows.size(); ++i) {
      Sequence& s = sequences_[i];
      s.out.insert(s.out.end(), all_out.begin() + row * H * d, all_out.begin() + (row + rows[i]) * H * d);
      s.s.insert(s.s.end(), all_s.begin() + row * D, all_s.begin() + (row + rows[i]) * D);
      s.gated.insert(s.gated.end(), all_gated.begin() + row * D, all_gated.begin() + (row + rows[i]) * D);
      row += rows[i];
      s.num_done += rows[i];
    }
  }

  // All of the sequences, each in chunks of its own size.
  void Run(const std::vector<int>& chunks) {
    for (bool any = true; any;) {
      any = false;
      std::vector<int> rows;
      for (size_t i = 0; i < sequences_.size(); ++i) {
        rows.push_back(std::min(chunks[i], sequences_[i].num_tokens - sequences_[i].num_done));
        any |= rows.back() > 0;
      }
      if (any) Step(rows);
    }
  }

  // Many queries of bf16 state may go to tensor cores, which round queries and probabilities to bf16 (2^-9
  // relative) and add in float32: scores of size x then err by about x 2^-10, the results by a few
  // thousandths of their size.
  bool MayRound() const { return !GetParam().batch_invariant && shape_.dtype == DType::kBF16; }
  double Tolerance() const { return MayRound() ? 8e-3 : 1e-5; }

  float Rounded(float x) const { return RoundTo(shape_.dtype, x); }

  // softmax over the first n of q . k_j, times the values.
  std::vector<double> Mix(const float* q, const float* keys, const float* values, int n, int dim,
                          int64_t stride) const {
    std::vector<double> x(n), y(dim);
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < dim; ++i)
        x[j] += double{q[i]} * Rounded(keys[j * stride + i]) / std::sqrt(static_cast<double>(dim));
    }
    const double top = n == 0 ? 0 : *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (double& e : x) sum += e = std::exp(e - top);
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < dim; ++i) y[i] += x[j] / sum * Rounded(values[j * stride + i]);
    }
    return y;
  }

  void ExpectResults() {
    const auto [H, K, d, D, dtype, page_size] = shape_;
    for (const Sequence& s : sequences_) {
      std::vector<double> out(s.num_tokens * H * d), feedback(s.num_tokens * D);
      for (int t = 0; t < s.num_tokens; ++t) {
        for (int h = 0; h < H; ++h) {
          const int kv = h / (H / K);
          const auto y = Mix(&s.q[(t * H + h) * d], &s.k[kv * d], &s.v[kv * d], t + 1, d, K * d);
          std::copy(y.begin(), y.end(), out.begin() + (t * H + h) * d);
        }
        const auto r = Mix(&s.q_b[t * D], s.k_b.data(), s.s.data(), t, D, D);
        for (int i = 0; i < D; ++i) feedback[t * D + i] = s.f[t * D + i] + Gamma(s.u[t]) * r[i];
      }
      ExpectNear(out, s.out, Tolerance());
      ExpectNear(feedback, s.s, Tolerance());  // each row from the rows before it as the backend gave them
      for (size_t i = 0; i < s.s.size(); ++i) ASSERT_EQ(s.gated[i], s.s[i] * s.g[i]) << "at " << i;
      ExpectCached(s);
    }
  }
  static double Gamma(float u) { return kGammaMax * std::tanh(kGammaBias + 2.0 * u); }

  void ExpectCached(const Sequence& s) {
    std::vector<float> k(s.k.size()), v(k.size()), k_b(s.k_b.size()), state(k_b.size());
    backend_->ReadState(state_, s.pages.data(), s.num_tokens, k.data(), v.data(), k_b.data(), state.data());
    for (auto [got, put] : {std::pair{&k, &s.k}, {&v, &s.v}, {&k_b, &s.k_b}, {&state, &s.s}}) {
      for (size_t i = 0; i < got->size(); ++i) ASSERT_EQ((*got)[i], Rounded((*put)[i])) << "at " << i;
    }
  }

  Shape shape_;
  LayerState state_;
  std::vector<Sequence> sequences_;
  Buffer gamma_ctx_, gamma_bias_;
  std::map<std::string, Device> held_;
  int num_steps_ = 0;
};

TEST_P(StateTest, EveryShape) {
  std::vector<Shape> shapes = {{4, 4, 8, 16},   {4, 1, 16, 100},  {8, 1, 10, 20},
                               {2, 2, 64, 128}, {1, 1, 100, 300}, {6, 2, 6, 512}};
  if (GetParam().large) shapes.insert(shapes.end(), {{16, 4, 64, 1024}, {1, 1, 2048, 2048}});
  for (Shape shape : shapes) {
    for (auto [dtype, page_size] : {std::pair{DType::kF32, 16}, {DType::kBF16, 64}}) {
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
  for (auto [H, K, page_size] : {std::tuple{2, 2, 16}, {4, 1, 64}, {8, 1, 16}}) {
    for (int prefix : {0, 63, 130}) {
      SCOPED_TRACE(absl::StrCat("H ", H, " K ", K, " page ", page_size, " prefix ", prefix));
      std::vector<int> totals, rows(lengths.size(), prefix);
      for (int n : lengths) totals.push_back(prefix + n);
      Start({H, K, 24, 40, DType::kBF16, page_size}, totals);
      if (prefix > 0) Step(rows);
      Step(lengths);
      ExpectResults();
    }
  }
}

TEST_P(StateTest, PrefillOfEveryWidth) {
  std::vector<Shape> shapes = {{4, 1, 64, 512}, {2, 1, 128, 1024}, {1, 1, 72, 2048}, {2, 1, 136, 64}};
  if (GetParam().large) shapes.push_back({4, 1, 128, 4096});
  for (Shape shape : shapes) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(absl::StrCat("d ", shape.d, " D ", shape.D, " ", Name(dtype)));
      shape.dtype = dtype;
      shape.page_size = 64;
      Start(shape, {130});
      Run({100});
      ExpectResults();
    }
  }
}

// Attention takes 128 queries and 128 tokens at a time where heads are wide: at those edges, and of widths
// that are no multiple of four.
TEST_P(StateTest, WidePrefillAtEveryEdge) {
  const std::vector<int> lengths = {9, 16, 127, 129};
  for (auto [H, K, d] : {std::tuple{1, 1, 128}, {8, 1, 72}, {4, 1, 98}, {3, 1, 38}}) {
    for (int prefix : {0, 126}) {
      SCOPED_TRACE(absl::StrCat("H ", H, " K ", K, " d ", d, " prefix ", prefix));
      std::vector<int> totals, rows(lengths.size(), prefix);
      for (int n : lengths) totals.push_back(prefix + n);
      Start({H, K, d, 8, DType::kBF16, 64}, totals);
      if (prefix > 0) Step(rows);
      Step(lengths);
      ExpectResults();
    }
  }
}

TEST_P(StateTest, EveryCutIsTheSameBits) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int page_size : {16, 32, 64}) {
      std::vector<float> out, s;
      for (int chunk : {200, 1, page_size - 1, page_size, page_size + 1, 9, 3}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " page ", page_size, " chunk ", chunk));
        random_.seed(7);
        Start({4, 2, 8, 40, dtype, page_size}, {200});
        Run({chunk});
        ExpectResults();
        if (out.empty()) out = sequences_[0].out, s = sequences_[0].s;
        if (!MayRound()) {
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
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(Name(dtype));
    Start({2, 1, 8, 16, dtype, 64}, {n});
    const double tolerance = std::max(2e-5, Tolerance());
    // The last rows by decode, then by few and by many: each way has its own kernels.
    Step({n - 70});
    for (int i = 0; i < 10; ++i) Step({1});
    Step({5}), Step({55});
    ASSERT_EQ(sequences_[0].num_done, n);
    Sequence& s = sequences_[0];
    // Only the last rows are checked: the others would take the plain loops too long.
    std::vector<int> rows = {n - 60, n - 56, n - 55, n - 2, n - 1};
    for (int i = 0; i < 10; ++i) rows.push_back(n - 70 + i);
    for (int t : rows) {
      const auto y = Mix(&s.q[(t * 2 + 1) * 8], s.k.data(), s.v.data(), t + 1, 8, 8);
      ExpectNear(y, {s.out.begin() + (t * 2 + 1) * 8, s.out.begin() + (t * 2 + 2) * 8}, tolerance);
      const auto r = Mix(&s.q_b[t * 16], s.k_b.data(), s.s.data(), t, 16, 16);
      std::vector<double> expected;
      for (int i = 0; i < 16; ++i) expected.push_back(s.f[t * 16 + i] + Gamma(s.u[t]) * r[i]);
      ExpectNear(expected, {s.s.begin() + t * 16, s.s.begin() + (t + 1) * 16}, tolerance);
    }
  }
}

TEST_P(StateTest, PagesOfOtherRanksAreLeftAlone) {
  Start({2, 2, 8, 16, DType::kF32, 64}, {256});
  Sequence& s = sequences_[0];
  s.pages = {0, 1, 2, 3};
  state_ = {DType::kF32, 64, 2, 8, 16, /*first_feedback_page=*/2, /*num_feedback_pages=*/2, {}, {}, {}, {}};
  ASSERT_TRUE(backend_->AllocateState(4, &state_).ok());
  StepRows step;
  step.spans = {{0, 256, 0, s.pages}};
  step.token_ids.resize(256), step.positions.resize(256);
  CutIntoWaves(&step, backend_->MaxBlockRows(state_.dtype));
  backend_->BeginStep(step);
  const Device k_b = Put(s.k_b, 256, 16), u = Put(s.u, 256, 1), gamma = Empty(1, 256);
  backend_->AppendRows({k_b.matrix, k_b.matrix, k_b.matrix, k_b.matrix, u.matrix, &gamma_ctx_, &gamma_bias_,
                        kGammaMax, gamma.matrix.data},
                       &state_);
  for (int w = 0; w < 4; ++w) backend_->AppendFeedbackStates(k_b.matrix, w, &state_);
  std::vector<float> keys(128 * 16), states(128 * 16);
  backend_->ReadState(state_, s.pages.data() + 2, 128, nullptr, nullptr, keys.data(), states.data());
  const std::vector<float> expected(s.k_b.begin() + 128 * 16, s.k_b.end());
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(states, expected);
}

INSTANTIATE_TEST_SUITE_P(Devices, StateTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
