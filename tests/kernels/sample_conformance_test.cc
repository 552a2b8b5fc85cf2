// Sample on every backend, against a plain sampler in double precision. Where a sum of float weights decides,
// the neighbours of the boundary are right too; everywhere else one token is.
#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/kernels/conformance.h"

namespace sessa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kLargest = std::numeric_limits<float>::max();
constexpr double kError = 3e-6;  // of a sum of weights, relative to the sum of all
constexpr double kUniforms[] = {0, 0.2, 0.37, 0.5, 0.83, 1 - 0x1p-53};

// The tokens that may be drawn from logits [V].
std::vector<int32_t> Expected(const float* logits, int V, const SampleRow& row, const SampleEdit* edits) {
  const auto clean = [](float x) { return std::isnan(x) ? -kInf : std::min(x, kLargest); };
  std::vector<float> scores(V, -kInf);
  if (!row.only_edited) std::transform(logits, logits + V, scores.begin(), clean);
  for (const SampleEdit* e = edits; e < edits + row.num_edits; ++e) {
    float x = clean(logits[e->id]) + e->bias;
    if (e->count >= 0) x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    if (e->count > 0) x -= row.presence_penalty + row.frequency_penalty * static_cast<float>(e->count);
    scores[e->id] = clean(x);
  }
  std::vector<int32_t> order;  // best first
  for (int id = 0; id < V; ++id) {
    if (scores[id] > -kInf) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  if (order.empty()) return {-1};
  if (row.temperature == 0) return {order[0]};
  if (row.top_k > 0 && row.top_k < static_cast<int>(order.size())) order.resize(row.top_k);
  const double scale = std::min(1 / double{row.temperature}, double{kLargest}), best = scores[order[0]];
  const auto weight = [&](int id) { return std::exp((scores[id] - best) * scale); };
  double total = 0, sum = 0;
  for (int id : order) total += weight(id);
  // Those that must be kept, and those that may.
  std::vector<bool> must(V, false), may(V, false);
  for (int id : order) {
    const bool surely = sum < (row.top_p - kError) * total, perhaps = sum < (row.top_p + kError) * total;
    if (row.top_p < 1 && !perhaps && id != order[0]) break;
    sum += weight(id);
    may[id] = weight(id) >= row.min_p * (1 - kError);
    must[id] = id == order[0] || ((row.top_p == 1 || surely) && weight(id) >= row.min_p * (1 + kError));
  }
  double least = 0, most = 0;
  for (int id = 0; id < V; ++id) least += must[id] ? weight(id) : 0, most += may[id] ? weight(id) : 0;
  std::vector<int32_t> tokens;
  double least_before = 0, most_after = 0;
  for (int id = 0; id < V; ++id) {
    if (!may[id]) continue;
    most_after += weight(id);
    if (row.uniform * least <= most_after + kError * most &&
        row.uniform * most >= least_before - kError * most && weight(id) > 0) {
      tokens.push_back(id);
    }
    if (must[id]) least_before += weight(id);
  }
  return tokens;
}

class SampleTest : public ConformanceTest {
 protected:
  std::vector<int32_t> Sample(Matrix logits, const std::vector<SampleRow>& rows,
                              const std::vector<SampleEdit>& edits = {}) {
    const Buffer out = Allocate(rows.size() * sizeof(int32_t));
    backend_->Sample(logits, rows, edits, static_cast<int32_t*>(out.data()));
    std::vector<int32_t> tokens(rows.size());
    if (!rows.empty()) backend_->CopyOut(out.data(), rows.size() * sizeof(int32_t), tokens.data());
    EXPECT_TRUE(backend_->Synchronize().ok());
    return tokens;
  }
  int Below(int n) { return static_cast<int>(random_() % n); }
  template <class T>
  T OneOf(std::initializer_list<T> values) {
    return values.begin()[Below(static_cast<int>(values.size()))];
  }

  // Rows of every kind of logits.
  std::vector<float> Logits(int V, int* num_rows) {
    std::vector<float> all;
    *num_rows = 0;
    const auto add = [&](std::vector<float> row) {
      all.insert(all.end(), row.begin(), row.end());
      ++*num_rows;
    };
    for (float scale : {0.001f, 1.0f, 3.0f, 40.0f, 1e30f}) add(Random(V, scale));
    std::vector<float> row = Random(V, 2);
    for (float& x : row) x = std::round(x * 4) / 4;  // many equals
    add(row);
    add(std::vector<float>(V, 0.25f));
    add(std::vector<float>(V, NAN));
    add(std::vector<float>(V, -kInf));
    row = Random(V, 3);
    for (float& x : row) x = OneOf({x, x, NAN, -kInf, -0.0f, 0.0f});
    add(row);
    row[Below(V)] = kInf, row[Below(V)] = kLargest;
    add(row);
    row = Random(V, 1);
    row[Below(V)] = 100;  // all others are far below
    add(row);
    return all;
  }

  SampleRow Parameters(int V) {
    SampleRow row;
    row.temperature = OneOf({0.0f, 0.3f, 1.0f, 1.0f, 1.0f, 2.0f, 1e-30f, 1e30f});
    row.top_k = OneOf({0, 0, 1, 2, 40, V / 2, V - 1, V, V + 1});
    row.top_p = OneOf({1.0f, 1.0f, 1e-6f, 0.5f, 0.9f, 0.95f, 0.99999f});
    row.min_p = OneOf({0.0f, 0.0f, 0.0f, 0.05f, 1.0f});
    row.uniform = kUniforms[Below(std::size(kUniforms))];
    return row;
  }
  void AddEdits(int V, SampleRow* row, std::vector<SampleEdit>* edits) {
    row->first_edit = static_cast<int>(edits->size());
    row->repetition_penalty = OneOf({1.0f, 1.2f, 0.5f});
    row->presence_penalty = OneOf({0.0f, 1.5f, -0.5f});
    row->frequency_penalty = OneOf({0.0f, 0.75f});
    row->only_edited = Below(3) == 0;
    std::vector<int32_t> ids(V);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    ids.resize(OneOf({0, 1, std::min(V, 7), V / 10, V}));
    for (int32_t id : ids)
      edits->push_back({id, OneOf({0.0f, 0.0f, 2.5f, -100.0f, -kInf}), OneOf({-1, -1, 0, 1, 5})});
    row->num_edits = static_cast<int>(ids.size());
  }
};

TEST_P(SampleTest, Greedy) {
  for (int rows : {1, 7, 70}) {
    for (int columns : {1, 2, 15, 16, 33, 257, 4096, 4097, 9000}) {
      SCOPED_TRACE(absl::StrCat(rows, " x ", columns));
      std::vector<float> x = Random(static_cast<size_t>(rows) * columns);
      std::vector<int32_t> expected(rows);
      std::vector<SampleRow> parameters(rows);
      for (int r = 0; r < rows; ++r) {
        float* row = x.data() + static_cast<size_t>(r) * columns;
        const int last = columns - 1, middle = columns / 2;
        switch (r % 7) {
          case 1: row[last] = row[middle] = 50; break;  // equals
          case 2:
            row[last] = kInf;
            row[0] = NAN;
            break;
          case 3: std::fill(row, row + columns, r % 2 == 0 ? NAN : -kInf); break;  // nothing
          case 4:
            std::fill(row, row + columns, -0.0f);
            row[last] = 0;
            break;  // equals too
          case 5:
            std::fill(row, row + columns, NAN);
            row[middle] = -kLargest;
            break;
          case 6:
            std::fill(row, row + columns, -3e-41f);
            row[last] = -2e-41f;
            break;
        }
        expected[r] = -1;
        for (int c = 0; c < columns; ++c) {
          if (row[c] > (expected[r] < 0 ? -kInf : row[expected[r]])) expected[r] = c;
        }
        parameters[r].row = r;
        parameters[r].temperature = 0;
      }
      const Device in = Put(x, rows, columns, 4);
      for (int repeat = 0; repeat < 2; ++repeat) EXPECT_EQ(Sample(in.matrix, parameters), expected);
      EXPECT_TRUE(Sample(in.matrix, {}).empty());
    }
  }
}

// Rows of all kinds in one call, in any order, some logits drawn from several times, others never.
TEST_P(SampleTest, AgreesWithDoublePrecision) {
  int num_rows = 0, num_exact = 0;
  for (int V : {1, 2, 33, 1000, 33000}) {
    int num_logits = 0;
    const std::vector<float> logits = Logits(V, &num_logits);
    const Device in = Put(logits, num_logits, V, 3);
    std::vector<SampleRow> rows;
    std::vector<SampleEdit> edits(5);  // nobody's
    for (int i = 0; i < (V > 1000 ? 4 : 40) * num_logits; ++i) {
      rows.push_back(Parameters(V));
      rows.back().row = i % num_logits;
      if (Below(3) == 0) AddEdits(V, &rows.back(), &edits);
    }
    std::shuffle(rows.begin(), rows.end(), random_);
    const std::vector<int32_t> tokens = Sample(in.matrix, rows, edits);
    for (size_t i = 0; i < rows.size(); ++i) {
      const SampleRow& r = rows[i];
      SCOPED_TRACE(absl::StrCat("V ", V, " logits ", r.row, " temperature ", r.temperature, " top_k ",
                                r.top_k, " top_p ", r.top_p, " min_p ", r.min_p, " uniform ", r.uniform,
                                " edits ", r.num_edits, r.only_edited ? " alone" : ""));
      const auto expected =
          Expected(logits.data() + static_cast<size_t>(r.row) * V, V, r, edits.data() + r.first_edit);
      EXPECT_TRUE(std::find(expected.begin(), expected.end(), tokens[i]) != expected.end())
          << tokens[i] << ", not " << expected[0] << ", of " << expected.size();
      ++num_rows;
      num_exact += expected.size() == 1;
      if (i % 16 == 0) {
        EXPECT_EQ(Sample(in.matrix, {r}, edits), std::vector<int32_t>{tokens[i]}) << "alone";
      }
    }
    Get(in);  // nothing is written there
  }
  EXPECT_GT(num_exact, num_rows * 3 / 4);
}

// The kept set, id for id: near-equal weights, and a number in the middle of each.
TEST_P(SampleTest, KeepsExactlyK) {
  for (int V : {5, 700, 3000}) {
    for (bool equal : {true, false}) {
      // Of those that differ, every third is far below, and all others are in one bucket of the host's.
      std::vector<float> logits(V, -5);
      for (int id = 0; id < V && !equal; ++id)
        logits[id] = id % 3 == 0 ? -90 : 1e-3f * static_cast<float>(id * 7919L % V) / V;
      std::vector<int32_t> order(V);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
      const Device in = Put(logits, 1, V);
      for (int k : {1, 2, V / 2, V - 1}) {
        std::vector<int32_t> kept(order.begin(), order.begin() + k), expected;
        std::sort(kept.begin(), kept.end());
        std::vector<SampleRow> rows;
        const int step = std::max(1, k / 20);
        for (int i = 0; i < k; i += step) {
          expected.push_back(kept[i]);
          SampleRow& row = rows.emplace_back();
          row.temperature = 1e6f;
          row.uniform = (i + 0.5) / k;
          row.top_k = k;
          rows.push_back(row);  // and of top_p, with a boundary amid the last one
          expected.push_back(kept[i]);
          rows.back().top_k = 0;
          rows.back().top_p = static_cast<float>((k - 0.5) / V);
        }
        EXPECT_EQ(Sample(in.matrix, rows), expected) << V << " keeps " << k << (equal ? ", equal" : "");
      }
    }
  }
}

// Sums that are exact: the fewest that reach a quarter of 1024 equal weights are 256.
TEST_P(SampleTest, TopPKeepsTheFewest) {
  const Device in = Put(std::vector<float>(1024, 3), 1, 1024);
  std::vector<SampleRow> rows;
  std::vector<int32_t> expected;
  for (int i = 0; i < 256; i += 15) {
    SampleRow& row = rows.emplace_back();
    row.top_p = 0.25f;
    row.uniform = (i + 0.5) / 256;
    expected.push_back(i);
  }
  EXPECT_EQ(Sample(in.matrix, rows), expected);
}

// One token with nearly all of the probability, and a hundredth in 32999 others.
TEST_P(SampleTest, TheTailKeepsItsWeight) {
  constexpr int kV = 33000;
  std::vector<float> logits(kV, -15);
  logits[0] = 0;
  const Device in = Put(logits, 1, kV);
  const double tail = std::exp(-15.0), total = 1 + (kV - 1) * tail;
  std::vector<SampleRow> rows;
  for (int id = 1; id < kV; id += 1111) rows.emplace_back().uniform = (1 + (id - 0.5) * tail) / total;
  const std::vector<int32_t> tokens = Sample(in.matrix, rows);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(tokens[i], 1 + 1111 * static_cast<int>(i), 3);
}

INSTANTIATE_TEST_SUITE_P(Devices, SampleTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
