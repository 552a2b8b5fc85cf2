// Sequences with cached state, in steps of any cut, and what the operations of cached state have to give:
// against double precision on the values that the pages hold.
#pragma once

#include <map>
#include <numeric>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "kernels/round.h"
#include "tests/kernels/conformance.h"

namespace sessa {

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
    std::string step_rows;  // of its steps, for messages
  };

  static constexpr float kGammaMax = 0.999f, kGammaBias = 0.25f;

  void Start(const Shape& shape, const std::vector<int>& lengths) {
    gamma_ctx_ = Table({2}), gamma_bias_ = Table({kGammaBias});
    shape_ = shape;
    sequences_.clear();
    const int tile_pages = kTileTokens / shape.page_size;
    int num_pages = 0;
    for (int n : lengths) {
      Sequence& s = sequences_.emplace_back();
      s.num_tokens = n;
      s.q = Random(n * shape.H * shape.d), s.k = Random(n * shape.K * shape.d),
      s.v = Random(n * shape.K * shape.d);
      s.q_b = Random(n * shape.D, 1.5f), s.k_b = Random(n * shape.D, 1.5f), s.f = Random(n * shape.D);
      s.u = Random(n), s.g = Random(n * shape.D);
      s.pages.resize(CeilDiv(n, kTileTokens) * tile_pages);
      num_pages += static_cast<int>(s.pages.size());
    }
    std::vector<int32_t> free(num_pages);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), random_);
    for (Sequence& s : sequences_) {
      for (int32_t& page : s.pages) page = free.back(), free.pop_back();
    }
    state_ = {};
    using Use = PagedShape::Use;
    for (const PagedShape& paged : {PagedShape{Use::kKey, shape.K, shape.d, shape.dtype},
                                    {Use::kValue, shape.K, shape.d, shape.dtype},
                                    {Use::kKey, 1, shape.D, shape.dtype, true},
                                    {Use::kValue, 1, shape.D, shape.dtype, true}}) {
      auto tensor = backend_->AllocatePages(paged, shape.page_size, 0, num_pages);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      state_.paged.push_back(*std::move(tensor));
    }
  }
  PagedTensor* keys() { return &state_.paged[0]; }
  PagedTensor* values() { return &state_.paged[1]; }
  PagedTensor* feedback_keys() { return &state_.paged[2]; }
  PagedTensor* states() { return &state_.paged[3]; }

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
    CutIntoWaves(&step, backend_->feedback()->MaxBlockRows(shape_.dtype));
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
                 &acc = Held("acc", {}, kFeedbackChains * n, width), &p = Held("p", {}, n, kTileTokens);
    backend_->BeginStep(step);
    FeedbackOps* feedback = backend_->feedback();
    feedback->Append(
        {dq.matrix, dk.matrix, dv.matrix, keys(), values()},
        {dk_b.matrix, du.matrix, &gamma_ctx_, &gamma_bias_, kGammaMax, gamma.matrix.data, feedback_keys()});
    std::vector<int> q_to_kv;
    for (int h = 0; h < H; ++h) q_to_kv.push_back(h / (H / K));
    const AttendCall attend{dq.matrix, q_to_kv, out.matrix, keys(), values(), window_};
    for (int w = 0; w < static_cast<int>(step.waves.size()); ++w) {
      int wave_rows = 0;
      for (const RowSpan& b : step.waves[w]) wave_rows += b.num_rows;
      const FeedbackPartials partials{max.matrix.data, sum.matrix.data, acc.matrix.data,
                                      p.matrix.data,   wave_rows,       width};
      const FeedbackReadCall read{dq_b.matrix, dk_b.matrix, w, 0, 1, partials, feedback_keys(), states()};
      if (w == 0) {
        feedback->AttendAndRead(attend, read);
      } else {
        feedback->Read(read);
      }
      const auto solve = [&](int begin, int end, bool gate, bool append) {
        feedback->Solve({w, 1, partials, df.matrix, gamma.matrix.data, begin, end, ds.matrix,
                         gate ? dg.matrix : Matrix{}, gate ? gated.matrix : Matrix{}, append, states()});
      };
      if ((w + num_steps_) % 2 == 0) {
        solve(0, D, true, true);
      } else {  // in two parts, as two ranks would
        const int half = dtype == DType::kI8 ? D / 2 / kStateGroup * kStateGroup : D / 2;
        solve(0, half, true, false);
        solve(half, D, true, false);
        feedback->AppendStates(ds.matrix, w, states());
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
      if (rows[i] > 0 && s.step_rows.size() < 60)
        absl::StrAppend(&s.step_rows, s.step_rows.empty() ? "" : " ", rows[i]);
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

  // Queries of bf16 or int8 state may be rounded to bf16, and so their probabilities (2^-9 relative): many of
  // them, which go to tensor cores, or all. Sums are float32: scores of size x then err by about x 2^-10, the
  // results by a few thousandths of their size.
  bool DependsOnRows() const { return !GetParam().batch_invariant && shape_.dtype != DType::kF32; }
  bool MayRound() const { return DependsOnRows() || (GetParam().rounds && shape_.dtype != DType::kF32); }
  double Tolerance() const { return MayRound() ? 8e-3 : 1e-5; }
  // Many rows of a step may read each other's states before they are rounded to int8, which moves those by up
  // to 1/127 of the largest.
  double FeedbackTolerance() const {
    return Tolerance() + (DependsOnRows() && shape_.dtype == DType::kI8 ? 8e-3 : 0);
  }

  static constexpr DType kStateDTypes[] = {DType::kF32, DType::kBF16, DType::kI8};

  // Rows or heads of dim as the cache holds them.
  std::vector<float> Rounded(const std::vector<float>& x, int dim) const {
    std::vector<float> rounded;
    for (size_t i = 0; i < x.size(); i += dim) {
      const auto row = RoundTo(shape_.dtype, x.data() + i, dim);
      rounded.insert(rounded.end(), row.begin(), row.end());
    }
    return rounded;
  }

  // softmax over q . k_j for j in [begin, n), times the values.
  std::vector<double> Mix(const float* q, const float* keys, const float* values, int begin, int n, int dim,
                          int64_t stride) const {
    keys += begin * stride, values += begin * stride, n -= begin;
    std::vector<double> x(n), y(dim);
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < dim; ++i)
        x[j] += double{q[i]} * keys[j * stride + i] / std::sqrt(static_cast<double>(dim));
    }
    const double top = n == 0 ? 0 : *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (double& e : x) sum += e = std::exp(e - top);
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < dim; ++i) y[i] += x[j] / sum * values[j * stride + i];
    }
    return y;
  }

  void ExpectResults() {
    const auto [H, K, d, D, dtype, page_size] = shape_;
    for (const Sequence& s : sequences_) {
      std::vector<double> out(s.num_tokens * H * d), feedback(s.num_tokens * D);
      const auto k = Rounded(s.k, d), v = Rounded(s.v, d), k_b = Rounded(s.k_b, D), states = Rounded(s.s, D);
      for (int t = 0; t < s.num_tokens; ++t) {
        for (int h = 0; h < H; ++h) {
          const int kv = h / (H / K);
          const auto y = Mix(&s.q[(t * H + h) * d], &k[kv * d], &v[kv * d],
                             window_ > 0 ? std::max(0, t + 1 - window_) : 0, t + 1, d, K * d);
          std::copy(y.begin(), y.end(), out.begin() + (t * H + h) * d);
        }
        const auto r = Mix(&s.q_b[t * D], k_b.data(), states.data(), 0, t, D, D);
        for (int i = 0; i < D; ++i) feedback[t * D + i] = s.f[t * D + i] + Gamma(s.u[t]) * r[i];
      }
      SCOPED_TRACE(absl::StrCat("sequence of ", s.num_tokens, ", steps of ", s.step_rows, " rows"));
      ExpectNear(out, s.out, Tolerance(), 0, {"attention", H * d});
      // Each row from the rows before it as the backend gave them.
      ExpectNear(feedback, s.s, FeedbackTolerance(), 0, {"feedback", D});
      for (size_t i = 0; i < s.s.size(); ++i)
        ASSERT_EQ(s.gated[i], s.s[i] * s.g[i]) << "gated, row " << i / D << ", column " << i % D;
      ExpectCached(s);
    }
  }
  static double Gamma(float u) { return kGammaMax * std::tanh(kGammaBias + 2.0 * u); }

  void ExpectCached(const Sequence& s) {
    std::vector<float> k(s.k.size()), v(k.size()), k_b(s.k_b.size()), state(k_b.size());
    int tensor = 0;
    for (float* to : {k.data(), v.data(), k_b.data(), state.data()})
      backend_->ReadState(state_.paged[tensor++], s.pages.data(), s.num_tokens, to);
    for (auto [got, put] : {std::pair{&k, &s.k}, {&v, &s.v}, {&k_b, &s.k_b}, {&state, &s.s}}) {
      const char* name = got == &k ? "k" : got == &v ? "v" : got == &k_b ? "k_b" : "s";
      const int dim = got == &k || got == &v ? shape_.d : shape_.D;
      const auto rounded = Rounded(*put, dim);
      for (size_t i = 0; i < got->size(); ++i)
        ASSERT_EQ((*got)[i], rounded[i]) << "cached " << name << " at " << i << " of " << got->size();
    }
  }

  Shape shape_;
  LayerState state_;
  std::vector<Sequence> sequences_;
  Buffer gamma_ctx_, gamma_bias_;
  std::map<std::string, Device> held_;
  int num_steps_ = 0;
  int window_ = 0;  // of the attention
};

}  // namespace sessa
