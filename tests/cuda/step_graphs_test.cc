// Steps as CUDA graphs, on the emulator: replayed steps give the bits of steps run operation by operation,
// and one capture serves every context length and page table and, of decode steps, every number of rows of
// its bucket. No step calls for memory in a way that may wait for other GPUs.
#include "kernels/cuda/step_graphs.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/backend.h"
#include "tests/cuda/emulator.h"
#include "tests/cuda/graph_counts.h"
#include "tests/engine/model_harness.h"
#include "tests/engine/published_folder.h"

namespace sessa {
namespace {

// ---- StepGraphs alone ----

void AddKernel(int* x, int y) {
  cuda::BeginKernel();
  if (threadIdx.x == 0) *x = *x * 10 + y;
}
void AddDigit(cudaStream_t stream, int* x, int y) { cuda::Launch(stream, dim3(1), 32, 0, AddKernel, x, y); }

class StepGraphsTest : public testing::Test {
 protected:
  StepGraphsTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~StepGraphsTest() override { cudaStreamDestroy(stream_); }

  // A step of one operation for each digit.
  void Step(cuda::StepGraphs* graphs, const std::vector<int>& digits, bool may_replay = true) {
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

TEST_F(StepGraphsTest, RunsThenCapturesThenReplays) {
  cuda::StepGraphs graphs(stream_);
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

// The number of a step's digits is what tells it from others.
TEST_F(StepGraphsTest, TheGraphThatWasNotUsedForLongestMakesRoom) {
  cuda::StepGraphs graphs(stream_);
  constexpr int kMost = cuda::StepGraphs::kMaxGraphs;
  const auto step = [&](int i) {
    const int before = graphs.counts().launches;
    Step(&graphs, {1 + i / 100, i / 10 % 10, i % 10});
    return graphs.counts().launches - before;
  };
  for (int i = 0; i < kMost; ++i) EXPECT_EQ(step(i) + step(i), 1);
  for (int i = 0; i < kMost; ++i) EXPECT_EQ(step(i), 1) << i;
  EXPECT_EQ(step(0), 1);
  EXPECT_EQ(step(kMost) + step(kMost), 1);  // takes the place of 1
  EXPECT_EQ(step(0) + step(2), 2);
  EXPECT_EQ(step(1), 0);
  EXPECT_EQ(graphs.counts().captures, kMost + 1);
}

TEST_F(StepGraphsTest, StepsThatComeOncePushOutNoGraph) {
  cuda::StepGraphs graphs(stream_);
  constexpr int kMost = cuda::StepGraphs::kMaxSeen;
  Step(&graphs, {7}), Step(&graphs, {7});
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i <= kMost; ++i) Step(&graphs, {1, i / 10, i % 10});  // one more than are remembered
  }
  EXPECT_EQ(graphs.counts().captures, 1);
  Step(&graphs, {7});
  EXPECT_EQ(graphs.counts().launches, 2);
  Step(&graphs, {1, kMost / 10, kMost % 10});
  EXPECT_EQ(graphs.counts().captures, 2) << "the last one is remembered";
}

TEST_F(StepGraphsTest, WhatCannotBeCapturedRunsAllTheSame) {
  for (bool refuse_launches : {false, true}) {
    cuda::StepGraphs graphs(stream_);
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

TEST_F(StepGraphsTest, ACaptureThatFailsIsTriedWithoutOverlap) {
  cuda::StepGraphs graphs(stream_);
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
  int waiting_calls;  // for memory, of the steps and the prompts
};

// Sequences of `prompts` tokens, then the steps: which of them take `rows` more tokens.
ModelRun RunModel(const char* folder_name, bool use_graphs, const std::vector<int>& prompts,
                  const std::vector<std::vector<int>>& steps, ModelHarness::Options options = {},
                  int rows = 1) {
  const Folder folder(folder_name);
  options.keep_hidden = false;  // looking at hidden states between the layers would end a step's graph
  options.make_backend = [=] { return MakeCudaBackend({.graphs = use_graphs}); };
  auto harness = ModelHarness::Create(folder.checkpoint->config(), *folder.checkpoint, options);
  EXPECT_TRUE(harness.ok()) << harness.status();
  const int waiting_calls = emulator::counts().waiting_calls;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> tokens = folder.ids[0];
    std::rotate(tokens.begin(), tokens.begin() + i, tokens.end());
    EXPECT_TRUE((*harness)->Step({{(*harness)->AddSequence(tokens), prompts[i]}}).ok());
  }
  const Graphs graphs;
  for (const std::vector<int>& step : steps) {
    std::vector<ModelHarness::Piece> pieces;
    for (int i : step) pieces.push_back({i, rows});
    const absl::Status status = (*harness)->Step(pieces);
    EXPECT_TRUE(status.ok()) << status;
  }
  ModelRun run{{},
               graphs.captures(),
               graphs.launches(),
               graphs.kernels(),
               emulator::counts().waiting_calls - waiting_calls};
  for (size_t i = 0; i < prompts.size(); ++i) run.logits.push_back((*harness)->logits(i));
  return run;
}

TEST(StepGraphsModelTest, OneCaptureForAllContextsOfABucket) {
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
      EXPECT_EQ(replayed.waiting_calls, 0);
    }
  }
}

TEST(StepGraphsModelTest, OneCaptureForEachBucket) {
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
TEST(StepGraphsModelTest, ALayerIsNineLaunches) {
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

// Tokens that were guessed ahead: several rows of each sequence, of contexts that grow.
TEST(StepGraphsModelTest, SeveralRowsOfASequence) {
  const std::vector<std::vector<int>> steps(4, {0, 1});
  for (auto [dtype, rows] : {std::pair{DType::kF32, 2}, {DType::kBF16, 5}}) {
    SCOPED_TRACE(absl::StrCat(Name(dtype), ", rows ", rows));
    const ModelHarness::Options options{.weight_dtype = dtype, .state_dtype = dtype};
    const ModelRun eager = RunModel("gqa", false, {20, 3}, steps, options, rows),
                   replayed = RunModel("gqa", true, {20, 3}, steps, options, rows);
    EXPECT_EQ(eager.logits, replayed.logits);
    EXPECT_EQ(replayed.captures, 1);
    EXPECT_EQ(replayed.launches, 3);
    EXPECT_EQ(replayed.waiting_calls, 0);
  }
}

// Prompts: chunks of one length share a graph, whatever their pages and wherever they begin.
TEST(StepGraphsModelTest, ChunksOfOneLength) {
  const std::vector<std::vector<int>> steps = {{0}, {1}, {0}, {1}};
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(Name(dtype));
    const ModelHarness::Options options{.weight_dtype = dtype, .state_dtype = dtype};
    const ModelRun eager = RunModel("gqa", false, {1, 2}, steps, options, 16),
                   replayed = RunModel("gqa", true, {1, 2}, steps, options, 16);
    EXPECT_EQ(eager.logits, replayed.logits);
    EXPECT_EQ(replayed.captures, 1);
    EXPECT_EQ(replayed.launches, 3);
  }
}

TEST(StepGraphsModelTest, RanksThatTalkThroughTheHostStayRight) {
  const std::vector<int> prompts = {30, 63};
  const std::vector<std::vector<int>> steps(4, {0, 1});
  const ModelRun alone = RunModel("gqa", false, prompts, steps),
                 together = RunModel("gqa", true, prompts, steps, {.ranks = 2, .page_size = 64});
  EXPECT_EQ(alone.logits, together.logits);
}

}  // namespace
}  // namespace sessa
