// Single operations of decode steps on the emulator: padding is never written, each operand is part of what a
// graph is known by, and what lies before a window is not read.
#include <cmath>
#include <numeric>

#include "kernels/convert.h"
#include "tests/cuda/operations_fixture.h"

namespace sessa {
namespace {

// Each number of rows has its own linears: 70 the library's, which computes padding too, but elsewhere.
TEST_F(OperationsTest, PaddingIsNeverWritten) {
  for (int n : {1, 5, 20, 70}) {
    std::vector<std::map<std::string, std::vector<float>>> eager;
    for (bool use_graphs : {false, true}) {
      Start(use_graphs);
      const Graphs graphs;
      for (int t = 0; t < 4; ++t) {
        SCOPED_TRACE(absl::StrCat(n, " rows, step ", t, use_graphs ? ", graphs" : ", eager"));
        std::vector<int> lengths(n);
        for (int i = 0; i < n; ++i) lengths[i] = (i * 11 + 30 * t) % (kPage * kPagesEach);
        const auto results = Step(lengths);
        if (!use_graphs) {
          eager.push_back(results);
        } else {
          EXPECT_EQ(results, eager[t]);
        }
      }
      EXPECT_EQ(graphs.captures(), use_graphs ? 1 : 0);
      // Scratch may have grown within the first step; then the second one is the first of its kind.
      EXPECT_GE(graphs.launches(), use_graphs ? 2 : 0);
    }
  }
}

// More blocks than one launch takes: how many launches there are depends on more than the bucket, so none is
// captured.
TEST_F(OperationsTest, WhatDoesNotFitAGraphRunsWithout) {
  const int n = 300, heads = 16;
  std::vector<std::vector<float>> eager;
  for (bool use_graphs : {false, true}) {
    Start(use_graphs);
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
      if (!use_graphs) eager.push_back(out);
      EXPECT_EQ(out, eager[t]);
    }
    EXPECT_EQ(graphs.captures(), 0);
  }
}

TEST_F(OperationsTest, OnlyStepsOfFewRowsAreReplayed) {
  Start(/*use_graphs=*/true);
  for (int n : {cuda::kMaxDecodeBucket, cuda::kMaxDecodeBucket + 1}) {
    const Matrix x = Operand(absl::StrCat(n), n, kWidth);
    const std::vector<int32_t> pages(CeilDiv(n, kPage));
    StepRows step;
    step.token_ids.resize(n), step.positions.resize(n);
    step.spans.push_back({0, n, 0, pages});
    CutIntoWaves(&step, kTileTokens);
    const Graphs graphs;
    for (int t = 0; t < 3; ++t) {
      backend_->BeginStep(step);
      backend_->Embed(table_, DType::kF32, x);
      ASSERT_TRUE(backend_->Synchronize().ok());
    }
    EXPECT_EQ(graphs.launches(), n > cuda::kMaxDecodeBucket ? 0 : 2);
  }
}

// More than the pinned megabyte that each step's data has: what is beyond comes there all the same.
TEST_F(OperationsTest, LongPageTablesPinNoMemory) {
  Start(/*use_graphs=*/false);
  const Matrix x = Operand("x", 1, kWidth);
  std::vector<float> first, rows;
  for (size_t num_pages : {1, 300'000, 600'000, 300'000}) {
    const std::vector<int32_t> pages(num_pages);
    StepRows step;
    step.token_ids = {7}, step.positions = {5}, step.logit_rows = {0};
    step.spans.push_back({0, 1, 5, pages});
    CutIntoWaves(&step, kTileTokens);
    const int waiting_calls = emulator::counts().waiting_calls;
    backend_->BeginStep(step);
    backend_->Embed(table_, DType::kF32, x);
    const int q_to_kv[] = {0, 0};
    backend_->Append({x.Columns(0, 12), x.Columns(0, 12), x.Columns(0, 12), &keys_, &values_});
    backend_->Attend({x.Columns(0, 12), q_to_kv, x.Columns(12, 12), &keys_, &values_});
    rows.resize(kWidth);
    backend_->CopyOut(x.data, rows.size() * sizeof(float), rows.data());
    ASSERT_TRUE(backend_->Synchronize().ok());
    EXPECT_EQ(emulator::counts().waiting_calls, waiting_calls);
    if (first.empty()) first = rows;
    EXPECT_EQ(rows, first) << num_pages;
  }
}

// Sequences whose first tile is the same: a graph for steps that share, whoever does, and one for those that
// do not.
TEST_F(OperationsTest, WhoSharesIsData) {
  constexpr int n = 6, C = kFeedbackChains, kTilePages = kTileTokens / kPage;
  const std::vector<std::vector<int>> sharing = {{}, {}, {0, 1, 4}, {1, 2, 5}, {}, {2, 3, 4, 5}};
  std::vector<std::map<std::string, std::vector<float>>> eager;
  for (bool use_graphs : {false, true}) {
    Start(use_graphs);
    for (PagedTensor* t : {&keys_, &values_, &k_b_, &s_}) {
      std::vector<uint16_t> values;
      for (float x : Random(t->data.size() / sizeof(uint16_t))) values.push_back(RoundToBf16(x));
      backend_->CopyIn(values.data(), t->data.size(), t->data.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
    }
    const Matrix q = Operand("q", n, kHeads * kHeadDim, true), o = Operand("o", n, kHeads * kHeadDim),
                 b = Operand("b", n, kWidth, true), max = Operand("max", n, C), sum = Operand("sum", n, C),
                 acc = Operand("acc", n, C * 32), p = Operand("p", n, kTileTokens);
    const FeedbackPartials partials{max.data, sum.data, acc.data, p.data, n, 32};
    const int q_to_kv[] = {0, 0, 1, 1};
    const Graphs graphs;
    for (size_t t = 0; t < sharing.size(); ++t) {
      SCOPED_TRACE(absl::StrCat("step ", t, use_graphs ? ", graphs" : ", eager"));
      const StepRows step = Rows({70, 65, 79, 66, 77, 68});
      for (int i : sharing[t]) std::copy_n(pages_[sharing[t][0]].begin(), kTilePages, pages_[i].begin());
      backend_->BeginStep(step);
      backend_->feedback()->AttendAndRead({q, q_to_kv, o, &keys_, &values_},
                                          {b, b, 0, 0, 1, partials, &k_b_, &s_});
      std::map<std::string, std::vector<float>> results;
      for (const char* name : {"o", "max", "sum", "acc"}) {
        results[name].resize(operands_[name].size() / sizeof(float));
        backend_->CopyOut(operands_[name].data(), operands_[name].size(), results[name].data());
      }
      ASSERT_TRUE(backend_->Synchronize().ok());
      if (!use_graphs) {
        eager.push_back(results);
      } else {
        EXPECT_EQ(results, eager[t]);
      }
    }
    EXPECT_EQ(graphs.captures(), use_graphs ? 2 : 0);
    EXPECT_EQ(graphs.launches(), use_graphs ? 4 : 0);
  }
  EXPECT_EQ(eager[0], eager[1]);
  EXPECT_NE(eager[0].at("acc"), eager[2].at("acc"));
}

TEST_F(OperationsTest, EachOperandMatters) {
  Start(/*use_graphs=*/true);
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

  const Matrix z0 = matrix(0, kScan.inner()), z1 = matrix(1, kScan.inner()),
               xbc0 = matrix(0, kScan.channels()), xbc1 = matrix(1, kScan.channels()), dt0 = matrix(0, 2),
               dt1 = matrix(1, 2), out0 = matrix(2, kScan.inner()), out1 = matrix(3, kScan.inner());
  SlotTensor conv = Slots(conv_.floats), ssm = Slots(ssm_.floats);
  const Buffer conv_weight = Table(3 * kScan.channels());
  const int two_groups[] = {0, 1};
  ExpectEachMatters<ScanCall>(
      "scan",
      {z0,
       xbc0,
       dt0,
       out0,
       kScan,
       {&conv_weight_, &conv_weight_, &vector_, &vector_, &vector_},
       &conv_,
       &ssm_},
      [&](const auto& c) { backend_->scan()->Scan(c); },
      {[&](auto* c) { c->z = z1; }, [&](auto* c) { c->xbc = xbc1; }, [&](auto* c) { c->dt = dt1; },
       [&](auto* c) { c->out = out1; }, [&](auto* c) { c->shape.num_heads = 1; },
       [&](auto* c) { c->shape.head_dim = 5; }, [&](auto* c) { c->shape.state_size = 4; },
       [&](auto* c) { c->shape.num_groups = 2, c->shape.head_group = two_groups, c->shape.state_size = 2; },
       [&](auto* c) { c->shape.conv_kernel = 2; }, [&](auto* c) { c->weights.conv_weight = &conv_weight; },
       [&](auto* c) { c->weights.conv_bias = nullptr; }, [&](auto* c) { c->weights.a_log = &vector; },
       [&](auto* c) { c->weights.d = &vector; }, [&](auto* c) { c->weights.dt_bias = &vector; },
       [&](auto* c) { c->conv = &conv; }, [&](auto* c) { c->ssm = &ssm; }});

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

TEST_F(OperationsTest, TilesBeforeTheWindowAreNotRead) {
  constexpr int kPages = 10, kStart = 100, kWindow = 20;  // the second tile and what follows it is seen
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int rows : {1, 3, 40}) {  // of few queries, and of many
      SCOPED_TRACE(absl::StrCat(Name(dtype), " rows ", rows));
      Start(false);
      PagedTensor keys = Pages(PagedShape::Use::kKey, kKvHeads, kHeadDim, dtype, kPages),
                  values = Pages(PagedShape::Use::kValue, kKvHeads, kHeadDim, dtype, kPages);
      const std::vector<uint32_t> nan(keys.data.size() / kPages * (kTileTokens / kPage) / 4, 0x7fffffff);
      for (const PagedTensor* t : {&keys, &values})
        backend_->CopyIn(nan.data(), nan.size() * 4, t->data.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
      const Matrix q = Operand("q", rows, kHeads * kHeadDim, true), o = Operand("o", rows, q.cols),
                   k = Operand("k", rows, kKvHeads * kHeadDim, true);
      std::vector<int32_t> pages(kPages);
      std::iota(pages.begin(), pages.end(), 0);
      StepRows step;
      step.spans.push_back({0, rows, kStart, pages});
      step.token_ids.resize(rows), step.positions.resize(rows, kStart);
      CutIntoWaves(&step, kTileTokens);
      backend_->BeginStep(step);
      backend_->Append({q, k, k, &keys, &values});
      const int q_to_kv[] = {0, 0, 1, 1};
      backend_->Attend({q, q_to_kv, o, &keys, &values, kWindow});
      std::vector<float> out(rows * q.cols);
      backend_->CopyOut(o.data, out.size() * sizeof(float), out.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
      for (float x : out) ASSERT_TRUE(std::isfinite(x));
    }
  }
}

}  // namespace
}  // namespace sessa
