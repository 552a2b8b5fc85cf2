// Decode steps as CUDA graphs, on the emulator: replayed steps give the bits of steps run operation by
// operation, one capture serves every context length, page table and number of rows of its bucket, and
// padding is never written.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/read_plan.h"
#include "tests/cuda/emulator.h"
#include "tests/engine/model_harness.h"
#include "tests/engine/published_folder.h"

namespace sessa {
namespace {

// What happened since it was made.
class Graphs {
 public:
  int captures() const { return emulator::counts().captures - before_.captures; }
  int launches() const { return emulator::counts().graph_launches - before_.graph_launches; }
  int kernels() const { return emulator::counts().kernels - before_.kernels; }

 private:
  const emulator::Counts before_ = emulator::counts();
};

// ---- DecodeGraphs alone ----

void AddKernel(int* x, int y) {
  cuda::BeginKernel();
  if (threadIdx.x == 0) *x = *x * 10 + y;
}
void AddDigit(cudaStream_t stream, int* x, int y) { cuda::Launch(stream, dim3(1), 32, 0, AddKernel, x, y); }

class DecodeGraphsTest : public testing::Test {
 protected:
  DecodeGraphsTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~DecodeGraphsTest() override { cudaStreamDestroy(stream_); }

  // A step of one operation for each digit.
  void Step(cuda::DecodeGraphs* graphs, const std::vector<int>& digits, bool may_replay = true) {
    graphs->Defer();
    for (int digit : digits) graphs->Keep(&AddDigit, stream_, &number_, digit);
    EXPECT_EQ(number_, 0) << "nothing runs before the flush";
    graphs->Flush(may_replay);
    EXPECT_FALSE(graphs->is_deferring());
    int expected = 0;
    for (int digit : digits) expected = expected * 10 + digit;
    EXPECT_EQ(number_, expected);
    number_ = 0;
  }

  cudaStream_t stream_;
  int number_ = 0;
};

TEST_F(DecodeGraphsTest, RunsThenCapturesThenReplays) {
  cuda::DecodeGraphs graphs(stream_);
  const Graphs counts;
  const auto expect = [&](int captures, int launches) {
    EXPECT_EQ(counts.captures(), captures);
    EXPECT_EQ(counts.launches(), launches);
  };
  Step(&graphs, {1, 2, 3}), expect(0, 0);
  Step(&graphs, {1, 2, 3}), expect(1, 1);
  Step(&graphs, {1, 2, 3}), expect(1, 2);
  Step(&graphs, {1, 3, 2}), expect(1, 2);  // another order, a shorter and a longer step are other steps
  Step(&graphs, {1, 2}), expect(1, 2);
  Step(&graphs, {1, 2, 3, 4}), expect(1, 2);
  Step(&graphs, {}), expect(1, 2);
  Step(&graphs, {1, 2, 3}, /*may_replay=*/false), expect(1, 2);
  Step(&graphs, {1, 2}), expect(2, 3);
  Step(&graphs, {1, 2, 3}), expect(2, 4);
}

TEST_F(DecodeGraphsTest, MoreStepsThanGraphsAreKept) {
  cuda::DecodeGraphs graphs(stream_);
  for (int round = 0; round < 3; ++round) {
    for (int i = 100; i < 200; ++i) Step(&graphs, {i / 100, i / 10 % 10, i % 10});
  }
}

TEST_F(DecodeGraphsTest, WhatCannotBeCapturedRunsAllTheSame) {
  for (bool refuse_launches : {false, true}) {
    cuda::DecodeGraphs graphs(stream_);
    const Graphs counts;
    emulator::RefuseLaunches(refuse_launches);
    emulator::FailCaptures(refuse_launches ? emulator::CaptureFault::kNone : emulator::CaptureFault::kAll);
    for (int i = 0; i < 3; ++i) Step(&graphs, {4, 5});
    emulator::RefuseLaunches(false);
    emulator::FailCaptures(emulator::CaptureFault::kNone);
    Step(&graphs, {4, 5});  // once is enough
    EXPECT_EQ(counts.captures(), 0);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(cuda::TakeLaunchFailure(), "");
    EXPECT_EQ(graphs.counts().captures, 0);
    EXPECT_EQ(graphs.counts().launches, 0);
    const std::string why =
        refuse_launches ? "a refused kernel: out of memory" : "cudaStreamEndCapture: capture invalidated";
    EXPECT_EQ(graphs.counts().failure,
              why + "; without overlapping launches: " + why + "; they run operation by operation");
  }
}

TEST_F(DecodeGraphsTest, ACaptureThatFailsIsTriedWithoutOverlap) {
  cuda::DecodeGraphs graphs(stream_);
  emulator::FailCaptures(emulator::CaptureFault::kOfOverlappingLaunches);
  for (int i = 0; i < 3; ++i) Step(&graphs, {4, 5}), Step(&graphs, {6});
  emulator::FailCaptures(emulator::CaptureFault::kNone);
  EXPECT_TRUE(cuda::LaunchesOverlap()) << "outside of captures";
  EXPECT_EQ(graphs.counts().captures, 2);
  EXPECT_EQ(graphs.counts().launches, 4);
  EXPECT_EQ(graphs.counts().failure,
            "cudaStreamEndCapture: capture invalidated; they are captured without overlapping launches");
}

// ---- Whole models ----

struct ModelRun {
  std::vector<std::vector<float>> logits;  // of each sequence
  int captures, launches, kernels;
};

// Sequences of `prompts` tokens, then the steps: which of them take one more token.
ModelRun RunModel(const char* folder_name, bool decode_graphs, const std::vector<int>& prompts,
                  const std::vector<std::vector<int>>& steps, ModelHarness::Options options = {}) {
  const Folder folder(folder_name);
  options.keep_hidden = false;  // looking at hidden states between the layers would end a step's graph
  options.make_backend = [=] { return MakeCudaBackend({.decode_graphs = decode_graphs}); };
  auto harness = ModelHarness::Create(folder.checkpoint->config(), *folder.checkpoint, options);
  EXPECT_TRUE(harness.ok()) << harness.status();
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> tokens = folder.ids[0];
    std::rotate(tokens.begin(), tokens.begin() + i, tokens.end());
    EXPECT_TRUE((*harness)->Step({{(*harness)->AddSequence(tokens), prompts[i]}}).ok());
  }
  const Graphs graphs;
  for (const std::vector<int>& step : steps) {
    std::vector<ModelHarness::Piece> pieces;
    for (int i : step) pieces.push_back({i, 1});
    const absl::Status status = (*harness)->Step(pieces);
    EXPECT_TRUE(status.ok()) << status;
  }
  ModelRun run{{}, graphs.captures(), graphs.launches(), graphs.kernels()};
  for (size_t i = 0; i < prompts.size(); ++i) run.logits.push_back((*harness)->logits(i));
  return run;
}

TEST(DecodeGraphTest, OneCaptureForAllContextsOfABucket) {
  // Pages of 16, tiles of 64: every length crosses a page or a tile on the way.
  const std::vector<int> prompts = {14, 15, 47, 62, 63};
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const char* folder : {"gqa", "one_head"}) {
      SCOPED_TRACE(absl::StrCat(folder, " ", Name(dtype)));
      const std::vector<std::vector<int>> steps(6, {0, 1, 2, 3, 4});
      const ModelHarness::Options options{.weight_dtype = dtype, .state_dtype = dtype};
      const ModelRun eager = RunModel(folder, false, prompts, steps, options);
      const ModelRun replayed = RunModel(folder, true, prompts, steps, options);
      EXPECT_EQ(eager.logits, replayed.logits);
      EXPECT_EQ(eager.captures, 0);
      EXPECT_EQ(replayed.captures, 1);
      EXPECT_EQ(replayed.launches, 5);  // the first step ran its operations one by one
    }
  }
}

TEST(DecodeGraphTest, OneCaptureForEachBucket) {
  const std::vector<int> prompts = {20, 3, 64, 31, 1, 9, 70, 16};
  // Sequences come, go and change places. 7 and 8 rows are one bucket, 5 and 6 another; 1 and 4 have their
  // own.
  const std::vector<std::vector<int>> steps = {{0},
                                               {0},
                                               {1, 2, 3, 4, 5, 6, 7},
                                               {0, 1, 2, 3, 4},
                                               {7, 6, 5, 4, 3, 2, 1, 0},
                                               {6},
                                               {5, 4, 3, 2, 1, 0},
                                               {2, 1, 0, 4},
                                               {1, 3, 5, 7, 0, 2, 4},
                                               {3, 0, 6, 5, 2},
                                               {0, 1, 2, 3},
                                               {4}};
  const ModelRun eager = RunModel("gqa", false, prompts, steps),
                 replayed = RunModel("gqa", true, prompts, steps);
  EXPECT_EQ(eager.logits, replayed.logits);
  EXPECT_EQ(replayed.captures, 4);
  EXPECT_EQ(replayed.launches, static_cast<int>(steps.size()) - 4);
}

// What a decode step costs beyond its memory traffic is its launches.
TEST(DecodeGraphTest, ALayerIsNineLaunches) {
  // Layer norm, two linears, rows appended, reads (tiles, fold), out_proj, solve, W_out.
  constexpr int kOfLayer = 9;
  // The angles of the rope, the embedding; the rows of logits, layer norm, output head.
  constexpr int kOfStep = 5;
  for (const std::vector<int>& step : {std::vector<int>{0}, {0, 1, 2}}) {
    const ModelRun run = RunModel("gqa", true, {70, 3, 64}, std::vector<std::vector<int>>(3, step));
    const Folder folder("gqa");
    EXPECT_EQ(run.kernels, 3 * (kOfLayer * folder.checkpoint->config().num_layers + kOfStep));
  }
}

TEST(DecodeGraphTest, RanksThatTalkThroughTheHostStayRight) {
  const std::vector<int> prompts = {30, 63};
  const std::vector<std::vector<int>> steps(4, {0, 1});
  const ModelRun alone = RunModel("gqa", false, prompts, steps),
                 together = RunModel("gqa", true, prompts, steps, {.ranks = 2, .page_size = 64});
  EXPECT_EQ(alone.logits, together.logits);
}

// ---- Single operations ----

// A backend, and the rows of decode steps: row i is the token at lengths[i] of a sequence.
class OperationsTest : public testing::Test {
 protected:
  static constexpr float kMark = 12345;
  static constexpr int kHeads = 4, kKvHeads = 2, kHeadDim = 6, kWidth = 24, kPage = 16, kPagesEach = 5;

  void Start(bool decode_graphs) {
    operands_.clear();
    random_.seed(5);
    backend_ = *MakeCudaBackend({.decode_graphs = decode_graphs});
    state_ = {};
    state_.dtype = DType::kBF16;
    state_.page_size = kPage, state_.num_kv_heads = kKvHeads, state_.head_dim = kHeadDim;
    state_.hidden_size = kWidth, state_.num_feedback_pages = 100 * kPagesEach;
    ASSERT_TRUE(backend_->AllocateState(100 * kPagesEach, &state_).ok());
    const auto weight = Random(40 * kWidth), vector = Random(kWidth);
    linear_ = *backend_->MakeLinear(weight.data(), weight.data(), DType::kF32, 40, kWidth, DType::kBF16);
    square_ = *backend_->MakeLinear(weight.data(), nullptr, DType::kF32, kWidth, kWidth, DType::kBF16);
    table_ = *backend_->MakeTable(weight.data(), DType::kF32, weight.size(), DType::kF32);
    vector_ = *backend_->MakeTable(vector.data(), DType::kF32, vector.size(), DType::kF32);
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

  // One step of all operations. Returns every operand, and checks its marks.
  std::map<std::string, std::vector<float>> Step(const std::vector<int>& lengths) {
    const int n = static_cast<int>(lengths.size()), bucket = cuda::DecodeBucket(n), C = kFeedbackChains;
    const Matrix x = Operand("x", n, kWidth), h = Operand("h", n, kWidth), y = Operand("y", n, 40),
                 r = Operand("r", n, 40, true), q = Operand("q", n, kHeads * kHeadDim, true),
                 k = Operand("k", n, kKvHeads * kHeadDim, true),
                 v = Operand("v", n, kKvHeads * kHeadDim, true), o = Operand("o", n, kHeads * kHeadDim),
                 b = Operand("b", n, kWidth, true), s = Operand("s", n, kWidth), z = Operand("z", n, kWidth),
                 gamma = Operand("gamma", n, 1), max = Operand("max", n, C), sum = Operand("sum", n, C),
                 acc = Operand("acc", n, C * 32), p = Operand("p", n, kFeedbackTile),
                 best = Operand("best", n, 1);
    StepRows step;
    std::vector<std::vector<int32_t>> pages(n);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < kPagesEach; ++j) pages[i].push_back(j * 100 + (i * 7 + lengths[0]) % 100);
      step.token_ids.push_back(i % 40), step.positions.push_back(lengths[i]),
          step.logit_rows.push_back(n - 1 - i);
      step.spans.push_back({i, 1, lengths[i], pages[i]});
    }
    step.head_dim = kHeadDim, step.rope_theta = 10000;
    CutIntoWaves(&step, kFeedbackTile);
    backend_->BeginStep(step);
    backend_->Embed(table_, DType::kF32, x);
    backend_->LayerNormLinear(x, {&vector_, &vector_, 1e-5f}, {{&linear_, r, Epilogue::kAdd}, {&square_, h}});
    backend_->Linear(h, {{&linear_, y, Epilogue::kGelu}, {&linear_, r, Epilogue::kAdd}});
    backend_->AppendRows({q, k, v, b, h, &vector_, &vector_, 0.9f, gamma.data}, &state_);
    const FeedbackPartials partials{max.data, sum.data, acc.data, p.data, n, 32};
    const int q_to_kv[] = {0, 0, 1, 1};
    backend_->AttendAndFeedbackRead({q, q_to_kv, o}, {h, b, 0, 0, 1, partials}, state_);
    backend_->FeedbackSolve({0, 1, partials, x, gamma.data, 0, kWidth, s, h, z, true}, &state_);
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

  std::unique_ptr<Backend> backend_;
  LayerState state_;
  LinearWeights linear_, square_;
  Buffer table_, vector_;
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
      EXPECT_EQ(graphs.launches(), decode_graphs ? 3 : 0);
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
    LayerState state{DType::kF32, kPage, heads, 2, kWidth, 0, 1, {}, {}, {}, {}};
    ASSERT_TRUE(backend_->AllocateState(n, &state).ok());
    const Matrix q = Operand("q", n, heads * 2, true), k = Operand("k", n, heads * 2, true),
                 b = Operand("b", n, kWidth, true), gamma = Operand("gamma", n, 1),
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
      CutIntoWaves(&step, kFeedbackTile);
      backend_->BeginStep(step);
      backend_->AppendRows({q, k, k, b, b, &vector_, &vector_, 0.9f, gamma.data}, &state);
      backend_->Attend({q, q_to_kv, o}, state);
      std::vector<float> out(n * heads * 2);
      backend_->CopyOut(o.data, out.size() * sizeof(float), out.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
      if (!decode_graphs) eager.push_back(out);
      EXPECT_EQ(out, eager[t]);
    }
    EXPECT_EQ(graphs.captures(), 0);
  }
}

}  // namespace
}  // namespace sessa
