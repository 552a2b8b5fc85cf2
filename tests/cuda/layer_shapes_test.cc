// Layers of different shapes in one step get plans of their own: each has the bits that it has alone.
#include "tests/cuda/operations_fixture.h"

namespace sessa {
namespace {

// A layer of some shape, with memory of its own.
struct TestLayer {
  int heads, kv_heads, dim, width, window;
  DType dtype;
  PagedTensor keys, values, k_b, s;
  std::map<std::string, Buffer> memory;
  std::vector<float> results;
};

TEST_F(OperationsTest, LayersOfDifferentShapesInOneStep) {
  constexpr int kSequences = 2;
  const std::vector<TestLayer> shapes = [] {
    std::vector<TestLayer> list;  // each differs from another one in one respect
    list.push_back({4, 2, 8, 24, 0, DType::kBF16, {}, {}, {}, {}, {}, {}});
    list.push_back({4, 2, 8, 24, 0, DType::kF32, {}, {}, {}, {}, {}, {}});
    list.push_back({4, 2, 8, 24, 12, DType::kBF16, {}, {}, {}, {}, {}, {}});
    list.push_back({4, 1, 16, 40, 0, DType::kBF16, {}, {}, {}, {}, {}, {}});
    list.push_back({4, 1, 144, 40, 0, DType::kBF16, {}, {}, {}, {}, {}, {}});
    list.push_back({4, 2, 8, 24, 0, DType::kI8, {}, {}, {}, {}, {}, {}});
    return list;
  }();
  // The results of the layers, of steps that run all of them.
  const auto run = [&](const std::vector<int>& which) {
    backend_ = *MakeCudaBackend({});
    std::vector<TestLayer> layers;
    for (int i : which) {
      const TestLayer& a = shapes[i];
      TestLayer& l = layers.emplace_back();
      l.heads = a.heads, l.kv_heads = a.kv_heads, l.dim = a.dim, l.width = a.width, l.window = a.window;
      l.dtype = a.dtype;
      l.keys = Pages(PagedShape::Use::kKey, l.kv_heads, l.dim, l.dtype);
      l.values = Pages(PagedShape::Use::kValue, l.kv_heads, l.dim, l.dtype);
      l.k_b = Pages(PagedShape::Use::kKey, 1, l.width, l.dtype);
      l.s = Pages(PagedShape::Use::kValue, 1, l.width, l.dtype);
    }
    std::vector<int32_t> pages[kSequences];
    for (int i = 0; i < kSequences; ++i)
      for (int j = 0; j < 8; ++j) pages[i].push_back(j * kSequences + i);
    for (auto [rows, start] : {std::pair{75, 0}, {1, 75}, {70, 3}, {1, 73}, {1, 74}}) {
      StepRows step;
      const int n = rows * kSequences;
      for (int i = 0; i < kSequences; ++i) {
        step.spans.push_back({i * rows, rows, start, pages[i]});
        if (rows == 1) step.logit_rows.push_back(i);
      }
      step.token_ids.resize(n), step.positions.resize(n);
      CutIntoWaves(&step, kTileTokens);
      std::vector<std::function<void()>> reads, copies;
      for (TestLayer& l : layers) {
        random_.seed(l.dim * 100 + l.width + start);
        const auto operand = [&](const std::string& name, int cols, bool random = true) {
          Buffer& memory = l.memory[absl::StrCat(name, " ", n)];
          memory = *backend_->Allocate(sizeof(float) * n * cols);
          const auto values = random ? Random(size_t{1} * n * cols) : std::vector<float>(n * cols);
          backend_->CopyIn(values.data(), memory.size(), memory.data());
          EXPECT_TRUE(backend_->Synchronize().ok());
          return Matrix{memory.floats(), n, cols, cols};
        };
        const Matrix q = operand("q", l.heads * l.dim), k = operand("k", l.kv_heads * l.dim),
                     v = operand("v", l.kv_heads * l.dim), o = operand("o", l.heads * l.dim, false),
                     q_b = operand("q_b", l.width), k_b = operand("k_b", l.width), f = operand("f", l.width),
                     s = operand("s", l.width, false), gamma = operand("gamma", 1, false),
                     max = operand("max", kFeedbackChains, false),
                     sum = operand("sum", kFeedbackChains, false),
                     acc = operand("acc", kFeedbackChains * l.width, false),
                     p = operand("p", kTileTokens, false);
        reads.push_back([=, this, &l, &step] {
          std::vector<int> q_to_kv;
          for (int h = 0; h < l.heads; ++h) q_to_kv.push_back(h / (l.heads / l.kv_heads));
          FeedbackOps* feedback = backend_->feedback();
          feedback->Append({q, k, v, &l.keys, &l.values},
                           {k_b, q_b, &vector_, &vector_, 0.9f, gamma.data, &l.k_b});
          backend_->Attend({q, q_to_kv, o, &l.keys, &l.values, l.window});
          for (int w = 0; w < static_cast<int>(step.waves.size()); ++w) {
            int rows = 0;
            for (const RowSpan& b : step.waves[w]) rows += b.num_rows;
            const FeedbackPartials partials{max.data, sum.data, acc.data, p.data, rows, l.width};
            feedback->Read({q_b, k_b, w, 0, 1, partials, &l.k_b, &l.s});
            feedback->Solve({w, 1, partials, f, gamma.data, 0, l.width, s, {}, {}, true, &l.s});
          }
        });
        copies.push_back([=, this, &l] {
          for (const Matrix& m : {o, s}) {
            std::vector<float> values(size_t{1} * n * m.cols);
            backend_->CopyOut(m.data, values.size() * sizeof(float), values.data());
            EXPECT_TRUE(backend_->Synchronize().ok());
            l.results.insert(l.results.end(), values.begin(), values.end());
          }
        });
      }
      random_.seed(1);
      vector_ = Table(40);
      backend_->BeginStep(step);
      for (const auto& f : reads) f();
      for (const auto& f : copies) f();
    }
    return layers;
  };
  const auto together = run({0, 1, 2, 3, 4, 5, 0});
  for (size_t i = 0; i < together.size(); ++i) {
    const int which = i < shapes.size() ? static_cast<int>(i) : 0;
    EXPECT_EQ(together[i].results, run({which})[0].results) << "layer " << i;
  }
}

}  // namespace
}  // namespace sessa
