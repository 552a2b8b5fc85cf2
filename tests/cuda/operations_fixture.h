// A CUDA backend on the emulator with operands of every kind, for tests of single operations.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/read_plan.h"
#include "tests/cuda/graph_counts.h"
#include "tests/tensor_view.h"

namespace sessa {

// A backend, and the rows of decode steps: row i is the token at lengths[i] of a sequence.
class OperationsTest : public testing::Test {
 protected:
  static constexpr float kMark = 12345;
  static constexpr int kHeads = 4, kKvHeads = 2, kHeadDim = 6, kWidth = 24, kPage = 16, kPagesEach = 5;

  void Start(bool use_graphs) {
    operands_.clear();
    random_.seed(5);
    backend_ = *MakeCudaBackend({.graphs = use_graphs});
    keys_ = Pages(PagedShape::Use::kKey, kKvHeads, kHeadDim);
    values_ = Pages(PagedShape::Use::kValue, kKvHeads, kHeadDim);
    k_b_ = Pages(PagedShape::Use::kKey, 1, kWidth), s_ = Pages(PagedShape::Use::kValue, 1, kWidth);
    linear_ = Weights(40, true), square_ = Weights(kWidth, false), gate_ = Weights(40, true);
    table_ = Table(40 * kWidth), vector_ = Table(kWidth);
    conv_ = Slots(2 * kScan.channels()), ssm_ = Slots(kScan.inner() * kScan.state_size);
    conv_weight_ = Table(3 * kScan.channels());
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

  SlotTensor Slots(int64_t floats) { return {floats, *backend_->Allocate(sizeof(float) * 200 * floats)}; }

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
      step.spans.push_back({i, 1, lengths[i], pages_[i], i, i});
      if (lengths[0] % 20 == 0) step.spans.back().snapshots = kSnapshots;
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
                 best = Operand("best", n, 1), mixed = Operand("mixed", n, kScan.inner());
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
    const Matrix inner = q.Columns(0, kScan.inner()), xbc = r.Columns(0, kScan.channels()),
                 dt = b.Columns(0, kScan.num_heads);
    backend_->scan()->Scan({inner,
                            xbc,
                            dt,
                            mixed,
                            kScan,
                            {&conv_weight_, &conv_weight_, &vector_, &vector_, &vector_},
                            &conv_,
                            &ssm_});
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
  static constexpr int kHeadGroup[] = {0, 0};
  static constexpr ScanShape kScan{2, 6, 1, 5, 3, kHeadGroup};
  static constexpr Snapshot kSnapshots[] = {{0, 150}};
  std::unique_ptr<Backend> backend_;
  PagedTensor keys_, values_, k_b_, s_;
  LinearWeights linear_, square_, gate_;
  Buffer table_, vector_, conv_weight_;
  SlotTensor conv_, ssm_;
  std::vector<std::vector<int32_t>> pages_;
  std::map<std::string, Buffer> operands_;
  std::mt19937 random_;
};

}  // namespace sessa
