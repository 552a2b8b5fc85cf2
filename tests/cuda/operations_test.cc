// Single operations of decode steps on the emulator: padding is never written, each operand is part of what a
// graph is known by, and layers of different shapes get plans of their own.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/read_plan.h"
#include "tests/cuda/graph_counts.h"
#include "tests/tensor_view.h"

namespace sessa {
namespace {

// A backend, and the rows of decode steps: row i is the token at lengths[i] of a sequence.
class OperationsTest : public testing::Test {
 protected:
  static constexpr float kMark = 12345;
  static constexpr int kHeads = 4, kKvHeads = 2, kHeadDim = 6, kWidth = 24, kPage = 16, kPagesEach = 5;

  void Start(bool decode_graphs) {
    operands_.clear();
    random_.seed(5);
    backend_ = *MakeCudaBackend({.decode_graphs = decode_graphs});
    keys_ = Pages(PagedShape::Use::kKey, kKvHeads, kHeadDim);
    values_ = Pages(PagedShape::Use::kValue, kKvHeads, kHeadDim);
    k_b_ = Pages(PagedShape::Use::kKey, 1, kWidth), s_ = Pages(PagedShape::Use::kValue, 1, kWidth);
    linear_ = Weights(40, true), square_ = Weights(kWidth, false), gate_ = Weights(40, true);
    table_ = Table(40 * kWidth), vector_ = Table(kWidth);
  }

  PagedTensor Pages(PagedShape::Use use, int heads, int dim, DType dtype = DType::kBF16,
                    int num_pages = 100 * kPagesEach) {
    return *backend_->AllocatePages({use, heads, dim, dtype}, kPage, 0, num_pages);
  }
  LinearWeights Weights(int n, bool has_bias) {
    const auto weight = Random(n * kWidth);
    const TensorView bias = ViewOf(weight, {n});
    return *backend_->MakeLinear(ViewOf(weight, {n, kWidth}), has_bias ? &bias : nullptr, DType::kBF16);
  }
  Buffer Table(int n) {
    const auto values = Random(n);
    return *backend_->MakeTable(ViewOf(values), DType::kF32);
  }
  std::vector<float> Random(size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float& x : values) x = normal(random_);
    return values;
  }

  // The first `rows` of a named matrix of the bucket's rows; what is beyond holds a mark.
  Matrix Operand(const std::string& name, int rows, int cols, bool random = false) {
    Buffer& memory = operands_[name];
    const size_t marks = static_cast<size_t>(cuda::DecodeBucket(rows)) * cols;
    if (memory.size() == 0) memory = *backend_->Allocate(marks * sizeof(float));
    std::vector<float> values(marks, kMark);
    if (random) {
      const auto some = Random(static_cast<size_t>(rows) * cols);
      std::copy(some.begin(), some.end(), values.begin());
    }
    backend_->CopyIn(values.data(), values.size() * sizeof(float), memory.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
    return {memory.floats(), rows, cols, cols};
  }

  // Rows of a decode step. Their pages are in pages_.
  StepRows Rows(const std::vector<int>& lengths) {
    const int n = static_cast<int>(lengths.size());
    StepRows step;
    pages_.assign(n, {});
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < kPagesEach; ++j) pages_[i].push_back(j * 100 + (i * 7 + lengths[0]) % 100);
      step.token_ids.push_back(i % 40), step.positions.push_back(lengths[i]),
          step.logit_rows.push_back(n - 1 - i);
      step.spans.push_back({i, 1, lengths[i], pages_[i]});
    }
    step.inv_freq = kInvFreq, step.rope_scale = 1.5f;
    CutIntoWaves(&step, kTileTokens);
    return step;
  }

  // One step of all operations. Returns every operand, and checks its marks.
  std::map<std::string, std::vector<float>> Step(const std::vector<int>& lengths) {
    const int n = static_cast<int>(lengths.size()), bucket = cuda::DecodeBucket(n), C = kFeedbackChains;
    const Matrix x = Operand("x", n, kWidth), h = Operand("h", n, kWidth), y = Operand("y", n, 40),
                 gated = Operand("gated", n, 40), r = Operand("r", n, 40, true),
                 q = Operand("q", n, kHeads * kHeadDim, true), k = Operand("k", n, kKvHeads * kHeadDim, true),
                 v = Operand("v", n, kKvHeads * kHeadDim, true), o = Operand("o", n, kHeads * kHeadDim),
                 b = Operand("b", n, kWidth, true), s = Operand("s", n, kWidth), z = Operand("z", n, kWidth),
                 gamma = Operand("gamma", n, 1), max = Operand("max", n, C), sum = Operand("sum", n, C),
                 acc = Operand("acc", n, C * 32), p = Operand("p", n, kTileTokens),
                 best = Operand("best", n, 1);
    const StepRows step = Rows(lengths);
    backend_->BeginStep(step);
    backend_->Embed(table_, DType::kF32, x);
    backend_->Linear(x, {Norm::Kind::kLayer, &vector_, &vector_, 1e-5f},
                     {{&linear_, r, Epilogue::kAdd}, {&square_, h}});
    backend_->Linear(x, {Norm::Kind::kRms, &vector_, nullptr, 1e-5f, 2},
                     {{&linear_, gated, Epilogue::kSiluGate, &gate_}});
    backend_->Linear(h, {}, {{&linear_, y, Epilogue::kGelu}, {&linear_, r, Epilogue::kAdd}});
    FeedbackOps* feedback = backend_->feedback();
    feedback->Append({q, k, v, &keys_, &values_}, {b, h, &vector_, &vector_, 0.9f, gamma.data, &k_b_});
    const FeedbackPartials partials{max.data, sum.data, acc.data, p.data, n, 32};
    const int q_to_kv[] = {0, 0, 1, 1};
    feedback->AttendAndRead({q, q_to_kv, o, &keys_, &values_}, {h, b, 0, 0, 1, partials, &k_b_, &s_});
    feedback->Solve({0, 1, partials, x, gamma.data, 0, kWidth, s, h, z, true, &s_});
    backend_->Append({q, k, v, &keys_, &values_, &vector_, &vector_, 1e-6f});
    backend_->Attend({q, q_to_kv, o, &keys_, &values_, 20});
    backend_->GatherLogitRows(h, b);
    // What is asked of a row, and how many edits it has, differs from step to step.
    std::vector<SampleRow> rows(n);
    std::vector<SampleEdit> edits;
    for (int i = 0; i < n; ++i) {
      SampleRow& row = rows[i];
      row.row = n - 1 - i;
      row.temperature = static_cast<float>((i + lengths[0]) % 3);
      row.top_k = i % 5 * 3;
      row.top_p = lengths[i] % 2 == 0 ? 0.7f : 1.0f;
      row.uniform = (i + 0.5) / n;
      row.first_edit = static_cast<int>(edits.size());
      row.num_edits = (i * 5 + lengths[0]) % kWidth;
      row.only_edited = row.num_edits > 0 && i % 4 == 1;
      for (int id = 0; id < row.num_edits; ++id) edits.push_back({id, 0.1f * static_cast<float>(id % 7)});
    }
    backend_->Sample(b, rows, edits, reinterpret_cast<int32_t*>(best.data));
    std::map<std::string, std::vector<float>> results;
    for (auto& [name, memory] : operands_) {
      std::vector<float>& values = results[name];
      values.resize(memory.size() / sizeof(float));
      backend_->CopyOut(memory.data(), memory.size(), values.data());
      EXPECT_TRUE(backend_->Synchronize().ok());
      const size_t end = values.size() / bucket * n;
      for (size_t i = end; i < values.size(); ++i)
        EXPECT_EQ(values[i], kMark) << name << ", padding at " << i - end;
    }
    return results;
  }

  // Steps of one operation: what they are known by changes with each of its operands.
  template <class Call>
  void ExpectEachMatters(const char* name, const Call& base, const std::function<void(const Call&)>& enqueue,
                         const std::vector<std::function<void(Call*)>>& changes) {
    const auto num_launches = [&](const Call& call) {
      const StepRows step = Rows({3, 40, 17});
      const Graphs graphs;
      backend_->BeginStep(step);
      enqueue(call);
      EXPECT_TRUE(backend_->Synchronize().ok());
      return graphs.launches();
    };
    num_launches(base);
    EXPECT_EQ(num_launches(base), 1) << name;
    for (size_t i = 0; i < changes.size(); ++i) {
      Call changed = base;
      changes[i](&changed);
      EXPECT_EQ(num_launches(changed), 0) << name << ", change " << i;
    }
    EXPECT_EQ(num_launches(base), 1) << name << " once more";
  }

  static constexpr float kInvFreq[kHeadDim / 2] = {1, 0.05f, 0.002f};
  std::unique_ptr<Backend> backend_;
  PagedTensor keys_, values_, k_b_, s_;
  LinearWeights linear_, square_, gate_;
  Buffer table_, vector_;
  std::vector<std::vector<int32_t>> pages_;
  std::map<std::string, Buffer> operands_;
  std::mt19937 random_;
};

// Each number of rows has its own linears: 70 the library's, which computes padding too, but elsewhere.
TEST_F(OperationsTest, PaddingIsNeverWritten) {
  for (int n : {1, 5, 20, 70}) {
    std::vector<std::map<std::string, std::vector<float>>> eager;
    for (bool decode_graphs : {false, true}) {
      Start(decode_graphs);
      const Graphs graphs;
      for (int t = 0; t < 4; ++t) {
        SCOPED_TRACE(absl::StrCat(n, " rows, step ", t, decode_graphs ? ", graphs" : ", eager"));
        std::vector<int> lengths(n);
        for (int i = 0; i < n; ++i) lengths[i] = (i * 11 + 30 * t) % (kPage * kPagesEach);
        const auto results = Step(lengths);
        if (!decode_graphs) {
          eager.push_back(results);
        } else {
          EXPECT_EQ(results, eager[t]);
        }
      }
      EXPECT_EQ(graphs.captures(), decode_graphs ? 1 : 0);
      // Scratch may have grown within the first step; then the second one is the first of its kind.
      EXPECT_GE(graphs.launches(), decode_graphs ? 2 : 0);
    }
  }
}

// More blocks than one launch takes: how many launches there are depends on more than the bucket, so none is
// captured.
TEST_F(OperationsTest, WhatDoesNotFitAGraphRunsWithout) {
  const int n = 300, heads = 16;
  std::vector<std::vector<float>> eager;
  for (bool decode_graphs : {false, true}) {
    Start(decode_graphs);
    PagedTensor keys = Pages(PagedShape::Use::kKey, heads, 2, DType::kF32, n),
                values = Pages(PagedShape::Use::kValue, heads, 2, DType::kF32, n);
    const Matrix q = Operand("q", n, heads * 2, true), k = Operand("k", n, heads * 2, true),
                 o = Operand("o", n, heads * 2);
    std::vector<int> q_to_kv(heads);
    std::iota(q_to_kv.begin(), q_to_kv.end(), 0);
    const Graphs graphs;
    for (int t = 0; t < 3; ++t) {
      StepRows step;
      std::vector<int32_t> pages(n);
      std::iota(pages.begin(), pages.end(), 0);
      for (int i = 0; i < n; ++i) step.spans.push_back({i, 1, t, {&pages[i], 1}});
      step.token_ids.resize(n), step.positions.resize(n, t), step.logit_rows.resize(n);
      CutIntoWaves(&step, kTileTokens);
      backend_->BeginStep(step);
      backend_->Append({q, k, k, &keys, &values});
      backend_->Attend({q, q_to_kv, o, &keys, &values});
      std::vector<float> out(n * heads * 2);
      backend_->CopyOut(o.data, out.size() * sizeof(float), out.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
      if (!decode_graphs) eager.push_back(out);
      EXPECT_EQ(out, eager[t]);
    }
    EXPECT_EQ(graphs.captures(), 0);
  }
}

TEST_F(OperationsTest, EachOperandMatters) {
  Start(/*decode_graphs=*/true);
  Step(std::vector<int>(20, 70));  // scratch that grew later would make any step another
  constexpr int n = 3, kQ = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim, C = kFeedbackChains;
  // Two of each.
  const auto matrix = [&](int i, int cols) { return Operand(absl::StrCat(i, " ", cols), n, cols); };
  const Buffer table = Table(40 * kWidth), vector = Table(kWidth);
  const LinearWeights weights = Weights(40, true);
  PagedTensor keys = Pages(PagedShape::Use::kKey, kKvHeads, kHeadDim),
              values = Pages(PagedShape::Use::kValue, kKvHeads, kHeadDim),
              k_b = Pages(PagedShape::Use::kKey, 1, kWidth), s = Pages(PagedShape::Use::kValue, 1, kWidth);
  const Matrix w0 = matrix(0, kWidth), w1 = matrix(1, kWidth), w2 = matrix(2, kWidth), w3 = matrix(3, kWidth),
               y0 = matrix(0, 40), y1 = matrix(1, 40), q0 = matrix(4, kQ), q1 = matrix(5, kQ),
               o0 = matrix(6, kQ), o1 = matrix(7, kQ), kv0 = matrix(0, kKv), kv1 = matrix(1, kKv),
               one0 = matrix(0, 1), one1 = matrix(1, 1);

  struct EmbedCall {
    const Buffer* table;
    DType dtype;
    Matrix x;
  };
  ExpectEachMatters<EmbedCall>(
      "embed", {&table_, DType::kF32, w0}, [&](const auto& c) { backend_->Embed(*c.table, c.dtype, c.x); },
      {[&](auto* c) { c->table = &table; }, [&](auto* c) { c->dtype = DType::kBF16; },
       [&](auto* c) { c->x = w1; }, [&](auto* c) { c->x.cols = 8; }, [&](auto* c) { c->x.rows = 2; }});

  struct NormedCall {
    Matrix x;
    Norm norm;
    LinearCall call;
  };
  ExpectEachMatters<NormedCall>(
      "linear", {w0, {Norm::Kind::kRms, &vector_, &vector_, 1e-5f}, {&linear_, y0, Epilogue::kNone, &gate_}},
      [&](const auto& c) {
        backend_->Linear(c.x, c.norm, {&c.call, 1});
      },
      {[&](auto* c) { c->x = w1; }, [&](auto* c) { c->norm.kind = Norm::Kind::kNone; },
       [&](auto* c) { c->norm.kind = Norm::Kind::kLayer; }, [&](auto* c) { c->norm.weight = &vector; },
       [&](auto* c) { c->norm.eps = 1e-6f; }, [&](auto* c) { c->norm.groups = 2; },
       [&](auto* c) { c->call.weights = &weights; }, [&](auto* c) { c->call.y = y1; },
       [&](auto* c) { c->call.epilogue = Epilogue::kGelu; },
       [&](auto* c) { c->call.epilogue = Epilogue::kSiluGate; },
       [&](auto* c) { c->call.epilogue = Epilogue::kSiluGate, c->call.up = &weights; },
       [&](auto* c) { c->norm.kind = Norm::Kind::kLayer, c->norm.bias = &vector; }});

  struct RowsCall {
    Matrix x, y;
  };
  ExpectEachMatters<RowsCall>("gather", {w0, w1}, [&](const auto& c) { backend_->GatherLogitRows(c.x, c.y); },
                              {[&](auto* c) { c->x = w2; }, [&](auto* c) { c->y = w2; }});
  ExpectEachMatters<RowsCall>(
      "sample", {w0, one0},
      [&](const auto& c) {
        backend_->Sample(c.x, std::vector<SampleRow>(n), {}, reinterpret_cast<int32_t*>(c.y.data));
      },
      {[&](auto* c) { c->x = w2; }, [&](auto* c) { c->y = one1; }, [&](auto* c) { c->x.cols = 9; }});

  const AppendCall append{q0, kv0, kv0, &keys_, &values_, &vector_, &vector_, 1e-5f};
  ExpectEachMatters<AppendCall>(
      "append", append, [&](const auto& c) { backend_->Append(c); },
      {[&](auto* c) { c->q = q1; }, [&](auto* c) { c->k = kv1; }, [&](auto* c) { c->v = kv1; },
       [&](auto* c) { c->keys = &keys; }, [&](auto* c) { c->values = &values; },
       [&](auto* c) { c->q_norm = &vector; }, [&](auto* c) { c->k_norm = &vector; },
       [&](auto* c) { c->norm_eps = 1e-6f; }});
  ExpectEachMatters<FeedbackRows>(
      "append of feedback", {w0, w1, &vector_, &vector_, 0.9f, one0.data, &k_b_},
      [&](const auto& c) { backend_->feedback()->Append(append, c); },
      {[&](auto* c) { c->k_b = w2; }, [&](auto* c) { c->u = w2; }, [&](auto* c) { c->gamma_ctx = &vector; },
       [&](auto* c) { c->gamma_bias = &vector; }, [&](auto* c) { c->gamma_max = 0.8f; },
       [&](auto* c) { c->gamma = one1.data; }, [&](auto* c) { c->keys = &k_b; }});
  ExpectEachMatters<RowsCall>(
      "append of states", {w0, {}},
      [&](const auto& c) { backend_->feedback()->AppendStates(c.x, 0, c.y.data == nullptr ? &s_ : &s); },
      {[&](auto* c) { c->x = w1; }, [&](auto* c) { c->y = w1; }});

  const int q_to_kv[] = {0, 0, 1, 1};
  ExpectEachMatters<AttendCall>(
      "attend", {q0, q_to_kv, o0, &keys_, &values_}, [&](const auto& c) { backend_->Attend(c); },
      {[&](auto* c) { c->q = q1; }, [&](auto* c) { c->out = o1; }, [&](auto* c) { c->keys = &keys; },
       [&](auto* c) { c->values = &values; }, [&](auto* c) { c->window = 10; }});

  const Matrix stats = matrix(8, C), others = matrix(9, C), acc = matrix(10, C * 32), p = matrix(11, 64),
               more = matrix(12, C * 32);
  const FeedbackPartials partials{stats.data, stats.data, acc.data, p.data, n, 32};
  const FeedbackReadCall read{w0, w1, 0, 0, 2, partials, &k_b_, &s_};
  ExpectEachMatters<FeedbackReadCall>(
      "read", read, [&](const auto& c) { backend_->feedback()->Read(c); },
      {[&](auto* c) { c->q_b = w2; }, [&](auto* c) { c->rank = 1; }, [&](auto* c) { c->num_ranks = 4; },
       [&](auto* c) { c->partials.max = others.data; }, [&](auto* c) { c->partials.sum = others.data; },
       [&](auto* c) { c->partials.acc = more.data; }, [&](auto* c) { c->partials.p = more.data; },
       [&](auto* c) { c->partials.width = 24; }, [&](auto* c) { c->keys = &k_b; },
       [&](auto* c) { c->states = &s; }});
  ExpectEachMatters<FeedbackSolveCall>(
      "solve", {0, 1, partials, w0, one0.data, 0, kWidth, w1, w2, w3, true, &s_},
      [&](const auto& c) { backend_->feedback()->Solve(c); },
      {[&](auto* c) { c->partials.max = others.data; }, [&](auto* c) { c->partials.sum = others.data; },
       [&](auto* c) { c->partials.acc = more.data; }, [&](auto* c) { c->partials.p = more.data; },
       [&](auto* c) { c->partials.width = 24; }, [&](auto* c) { c->f = w1; },
       [&](auto* c) { c->gamma = one1.data; }, [&](auto* c) { c->begin = 8; }, [&](auto* c) { c->end = 8; },
       [&](auto* c) { c->s = w0; }, [&](auto* c) { c->g = w0; }, [&](auto* c) { c->gated = w0; },
       [&](auto* c) { c->append = false; }, [&](auto* c) { c->states = &s; }});
}

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
  const auto together = run({0, 1, 2, 3, 4, 0});
  for (size_t i = 0; i < together.size(); ++i) {
    const int which = i < shapes.size() ? static_cast<int>(i) : 0;
    EXPECT_EQ(together[i].results, run({which})[0].results) << "layer " << i;
  }
}

}  // namespace
}  // namespace sessa
