// Int8 state on the emulated GPU: pages hold the numbers that the CPU's hold, and reads of them, on every
// path, are those of a bf16 state of the same values, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/int8_state.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/round.h"

namespace sessa {
namespace {

using Use = PagedShape::Use;

class Int8PagesTest : public testing::Test {
 protected:
  void Start(bool batch_invariant, int page_size, int num_tokens) {
    backend_ = *MakeCudaBackend({.batch_invariant = batch_invariant});
    page_size_ = page_size;
    pages_.resize(CeilDiv(num_tokens, kTileTokens) * (kTileTokens / page_size));
    std::iota(pages_.rbegin(), pages_.rend(), 0);
  }
  PagedTensor Pages(Use use, int heads, int dim, DType dtype) {
    return *backend_->AllocatePages({use, heads, dim, dtype, heads == 1}, page_size_, 0,
                                    static_cast<int>(pages_.size()));
  }
  std::vector<float> Random(size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    for (size_t i = 0; i < n; ++i) x[i] = normal(random_) * std::ldexp(1.0f, static_cast<int>(i / 7 % 5) - 2);
    return x;
  }
  Matrix Put(const std::vector<float>& x, int cols) {
    const Buffer& memory = memory_.emplace_back(*backend_->Allocate(x.size() * sizeof(float)));
    backend_->CopyIn(x.data(), memory.size(), memory.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
    return {memory.floats(), static_cast<int>(x.size()) / cols, cols, cols};
  }
  std::vector<float> Get(const Matrix& x) {
    std::vector<float> y(size_t{1} * x.rows * x.cols);
    backend_->CopyOut(x.data, y.size() * sizeof(float), y.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
    return y;
  }
  // Of one sequence.
  void Begin(int start, int num_rows, DType dtype) {
    step_ = {};
    step_.spans = {{0, num_rows, start, pages_}};
    step_.token_ids.resize(num_rows), step_.positions.resize(num_rows), step_.logit_rows.resize(num_rows);
    CutIntoWaves(&step_, backend_->feedback()->MaxBlockRows(dtype));
    backend_->BeginStep(step_);
  }
  // The first rows of everything a layer keeps.
  struct Layer {
    PagedTensor keys, values, k_b, s;
  };
  Layer MakeLayer(int heads, int dim, int width, DType dtype) {
    return {Pages(Use::kKey, heads, dim, dtype), Pages(Use::kValue, heads, dim, dtype),
            Pages(Use::kKey, 1, width, dtype), Pages(Use::kValue, 1, width, dtype)};
  }
  void Fill(Layer* to, const std::vector<float>& k, const std::vector<float>& v,
            const std::vector<float>& k_b, const std::vector<float>& s) {
    const int columns = to->keys.shape.num_heads * to->keys.shape.dim, width = to->k_b.shape.dim;
    const Matrix mk = Put(k, columns), mv = Put(v, columns), mk_b = Put(k_b, width), ms = Put(s, width),
                 u = Put(std::vector<float>(mk.rows), 1), gamma = Put(std::vector<float>(mk.rows), 1);
    const Buffer& zero = memory_.emplace_back(*backend_->Allocate(sizeof(float)));
    Begin(0, mk.rows, to->keys.shape.dtype);
    FeedbackOps* feedback = backend_->feedback();
    feedback->Append({mk, mk, mv, &to->keys, &to->values},
                     {mk_b, u, &zero, &zero, 0.9f, gamma.data, &to->k_b});
    for (int w = 0; w < static_cast<int>(step_.waves.size()); ++w) feedback->AppendStates(ms, w, &to->s);
    ASSERT_TRUE(backend_->Synchronize().ok());
  }
  std::vector<float> Read(const PagedTensor& t, int n) {
    std::vector<float> x(size_t{1} * n * t.shape.num_heads * t.shape.dim);
    backend_->ReadState(t, pages_.data(), n, x.data());
    return x;
  }

  std::unique_ptr<Backend> backend_;
  int page_size_ = 16;
  std::vector<int32_t> pages_;
  std::deque<Buffer> memory_;
  StepRows step_;
  std::mt19937 random_{7};
};

// What the quantiser could get wrong: halves, what takes the next exponent, and numbers that are none.
std::vector<float> HardValues(int n) {
  constexpr float kMin = std::numeric_limits<float>::min(), kMax = std::numeric_limits<float>::max(),
                  kInf = std::numeric_limits<float>::infinity();
  const float hard[][4] = {{127, 0.5f, 1.5f, -2.5f}, {127.49999f, 1, -0.4f, -0.0f},
                           {-127.5f, 1, 3, -3},      {63.75f, 0.25f, 0, 0},
                           {kMin / 2, -kMin, 0, 0},  {kMax, 1, 0, 0},
                           {kInf, 1, 2, 3},          {NAN, 1, 2, 3},
                           {kMin * 127, kMin, 0, 0}, {0, 0, 0, 0}};
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[i] = hard[i / 64 % std::size(hard)][i % 64 < 2 ? i % 64 : 2 + i % 2];
  return x;
}

TEST_F(Int8PagesTest, HoldWhatTheCpusHold) {
  for (int page_size : {16, 32, 64}) {
    constexpr int kTokens = 70, kHeads = 2, kDim = 70, kWidth = 130;
    SCOPED_TRACE(absl::StrCat("page ", page_size));
    Start(false, page_size, kTokens);
    Layer layer = MakeLayer(kHeads, kDim, kWidth, DType::kI8);
    const std::vector<float> k = HardValues(kTokens * kHeads * kDim), v = Random(kTokens * kHeads * kDim),
                             k_b = Random(kTokens * kWidth), s = HardValues(kTokens * kWidth);
    Fill(&layer, k, v, k_b, s);
    for (auto [tensor, from] :
         {std::pair{&layer.keys, &k}, {&layer.values, &v}, {&layer.k_b, &k_b}, {&layer.s, &s}}) {
      const auto [use, heads, dim, dtype, by_tile] = tensor->shape;
      const size_t page_bytes = backend_->BytesPerPage(tensor->shape, page_size);
      ASSERT_EQ(page_bytes, page_size * heads * cpu::Int8PanelBytes(dim) / cpu::kPanel);
      std::vector<int8_t> device(page_bytes * pages_.size()), panel(cpu::Int8PanelBytes(dim));
      backend_->CopyOut(tensor->data.data(), device.size(), device.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
      for (int t = 0; t < kTokens; ++t) {
        const int slot = t % page_size;
        for (int h = 0; h < heads; ++h) {
          cpu::StoreInt8(from->data() + (t * heads + h) * dim, dim, Use::kValue, panel.data(), 0);
          const int8_t* head = device.data() + pages_[t / page_size] * page_bytes + h * page_bytes / heads;
          const int8_t* exponents = head + page_size * cpu::Int8Width(dim);
          for (int c = 0; c < cpu::Int8Width(dim); ++c) {
            const int g = c / kStateGroup;
            const int8_t* block = panel.data() + g * cpu::kInt8BlockBytes;
            ASSERT_EQ(head[slot * cpu::Int8Width(dim) + c], block[c % kStateGroup])
                << t << " " << h << " " << c;
            ASSERT_EQ(exponents[g * page_size + slot], block[cpu::kPanel * cpu::Int8Columns(dim, g)])
                << t << " " << h << " " << c;
          }
        }
      }
    }
  }
}

TEST_F(Int8PagesTest, ReadsAreThoseOfABf16StateOfTheSameValues) {
  struct Case {
    int heads, kv_heads, dim, width, page_size, tokens;
  };
  // Heads of both widths of the fused kernel and wider ones; groups that end early; whole and short tiles.
  for (const Case& c : {Case{4, 2, 64, 192, 16, 330}, {3, 1, 100, 70, 32, 200}, {2, 1, 136, 320, 64, 321}}) {
    for (bool batch_invariant : {false, true}) {
      Start(batch_invariant, c.page_size, c.tokens);
      Layer narrow = MakeLayer(c.kv_heads, c.dim, c.width, DType::kI8),
            wide = MakeLayer(c.kv_heads, c.dim, c.width, DType::kBF16);
      const int n = c.tokens;
      Fill(&narrow, Random(n * c.kv_heads * c.dim), Random(n * c.kv_heads * c.dim), Random(n * c.width),
           Random(n * c.width));
      Fill(&wide, Read(narrow.keys, n), Read(narrow.values, n), Read(narrow.k_b, n), Read(narrow.s, n));
      std::vector<int> q_to_kv;
      for (int h = 0; h < c.heads; ++h) q_to_kv.push_back(h / (c.heads / c.kv_heads));
      for (auto [rows, window] : {std::tuple{1, 0}, {4, 0}, {70, 0}, {70, 90}}) {
        const Matrix q = Put(Random(rows * c.heads * c.dim), c.heads * c.dim),
                     q_b = Put(Random(rows * c.width), c.width), k_b = Put(Random(rows * c.width), c.width);
        const int width = RoundUp(c.width, 16);
        std::vector<float> results[2];
        for (int i = 0; i < 2; ++i) {
          Layer& layer = i == 0 ? narrow : wide;
          const auto empty = [&](int cols) { return Put(std::vector<float>(rows * cols), cols); };
          const Matrix out = empty(c.heads * c.dim), max = empty(kFeedbackChains),
                       sum = empty(kFeedbackChains), acc = empty(kFeedbackChains * width),
                       p = empty(kTileTokens);
          Begin(n - rows, rows, layer.keys.shape.dtype);
          FeedbackPartials partials{max.data, sum.data, acc.data, p.data, 0, width};
          for (const RowSpan& span : step_.waves[0]) partials.rows += span.num_rows;
          backend_->feedback()->AttendAndRead({q, q_to_kv, out, &layer.keys, &layer.values, window},
                                              {q_b, k_b, 0, 0, 1, partials, &layer.k_b, &layer.s});
          for (const Matrix& m : {out, max, sum, acc, p}) {
            const std::vector<float> x = Get(m);
            results[i].insert(results[i].end(), x.begin(), x.end());
          }
        }
        EXPECT_EQ(results[0], results[1]) << "heads of " << c.dim << ", width " << c.width << ", " << rows
                                          << " rows, window " << window << ", invariant " << batch_invariant;
      }
    }
  }
}

}  // namespace
}  // namespace sessa
