// Sequences whose page tables begin alike, on every backend: in one step, where what they share may be read
// once for all of them, each gives the bits that it gives in a step of its own.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/kernels/state_fixture.h"

namespace sessa {
namespace {

class SharedPrefixTest : public StateTest {
 protected:
  // Sequence i begins as sequence `from` does, so many tokens long, and finds its whole pages.
  void Share(int i, int from, int tokens) {
    const Sequence& of = sequences_[from];
    Sequence& s = sequences_[i];
    const int num_pages = tokens / shape_.page_size, found = num_pages * shape_.page_size;
    ASSERT_LE(found, of.num_done);
    std::copy_n(of.pages.begin(), num_pages, s.pages.begin());
    const auto copy = [&](std::vector<float> Sequence::*values, int width, int n) {
      (s.*values).resize(std::max((s.*values).size(), static_cast<size_t>(n) * width));
      std::copy_n((of.*values).begin(), n * width, (s.*values).begin());
    };
    const auto [H, K, d, D, dtype, page_size] = shape_;
    for (auto [values, width] : {std::pair{&Sequence::q, H * d},
                                 {&Sequence::k, K * d},
                                 {&Sequence::v, K * d},
                                 {&Sequence::q_b, D},
                                 {&Sequence::k_b, D},
                                 {&Sequence::f, D},
                                 {&Sequence::u, 1},
                                 {&Sequence::g, D}})
      copy(values, width, tokens);
    for (auto [values, width] : {std::pair{&Sequence::out, H * d}, {&Sequence::s, D}, {&Sequence::gated, D}})
      copy(values, width, found);
    s.num_done = found;
  }

  // The next rows[i] tokens of sequence i as one step, and then in a step for each sequence.
  void StepTogetherAndApart(const std::vector<int>& rows) {
    const std::vector<Sequence> before = sequences_;
    Step(rows);
    if (!GetParam().batch_invariant) return;
    const std::vector<Sequence> together = sequences_;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) continue;
      sequences_[i] = before[i];
      std::vector<int> alone(rows.size());
      alone[i] = rows[i];
      Step(alone);
      SCOPED_TRACE(absl::StrCat("sequence ", i, " of ", rows.size(), ", from token ", before[i].num_done));
      ASSERT_EQ(sequences_[i].out, together[i].out) << "attention: bits differ";
      ASSERT_EQ(sequences_[i].s, together[i].s) << "feedback: bits differ";
    }
  }
  // All in one step up to the given tokens.
  void StepTo(int tokens) {
    std::vector<int> rows;
    for (const Sequence& s : sequences_) rows.push_back(tokens - s.num_done);
    StepTogetherAndApart(rows);
  }
};

// Groups of 1, 2, 3 or 17 sequences in one step, beside two strangers of whom one brings many rows: decode,
// a few rows at once, and a prompt.
TEST_P(SharedPrefixTest, EveryEdge) {
  for (auto [dtype, page_size] :
       {std::pair{DType::kBF16, 16}, {DType::kF32, 64}, {DType::kBF16, 64}, {DType::kI8, 32}}) {
    for (int prefix : {page_size - 1, page_size, page_size + 1, 2 * page_size, 64, 65, 127, 130}) {
      if (!GetParam().large && (prefix != 65 || dtype == DType::kF32 || page_size == 64)) continue;
      SCOPED_TRACE(absl::StrCat(Name(dtype), " page ", page_size, " prefix ", prefix));
      const std::vector<int> groups =
          prefix == 130 ? std::vector<int>{1, 1, 2, 17} : std::vector<int>{1, 1, 1, 2, 3};
      std::vector<int> firsts;
      int n = 0;
      for (int group : groups) firsts.push_back(n), n += group;
      std::vector<int> lengths(n, prefix + 12), rows(n);
      lengths[1] = prefix + 80;
      Start({4, 2, 8, 24, dtype, page_size}, lengths);
      for (int first : firsts) rows[first] = prefix;
      Step(rows);
      for (size_t g = 0; g < groups.size(); ++g) {
        for (int i = 1; i < groups[g]; ++i) Share(firsts[g] + i, firsts[g], prefix);
      }
      StepTo(prefix + 2);
      std::fill(rows.begin(), rows.end(), 1);
      rows[1] = 70;
      StepTogetherAndApart(rows);
      for (int i = 0; i < n; ++i) rows[i] = i == 1 ? 0 : 1 + i % 5;
      StepTogetherAndApart(rows);
      if (prefix != 65) continue;
      for (int i = 0; i < n; ++i) rows[i] = lengths[i] - sequences_[i].num_done;
      StepTogetherAndApart(rows);
      ExpectResults();
    }
  }
}

// Prefixes within prefixes, long enough that tiles of a chain share maxima.
TEST_P(SharedPrefixTest, ATreeOfPrefixes) {
  for (DType dtype : kStateDTypes) {
    if (!GetParam().large && dtype == DType::kF32) continue;
    const int tiles = GetParam().large ? 9 : 1, trunk = 64 * tiles, branch = 64 * 2 * tiles + 16,
              twig = 64 * 3 * tiles, n = twig + 60;
    SCOPED_TRACE(Name(dtype));
    Start({4, 1, 8, 16, dtype, 16}, std::vector<int>(9, n));
    Step({twig, 0, 0, trunk, 0, 0, 0, 0, 30});
    for (int i : {1, 2}) Share(i, 0, twig);
    Share(3, 0, trunk);
    Step({0, 0, 0, branch - trunk, 0, 0, 0, 0, 0});
    for (int i : {4, 5}) Share(i, 3, branch);
    for (int i : {6, 7}) Share(i, 0, trunk);
    StepTogetherAndApart({1, 1, 3, 1, 1, 7, 1, 2, 1});
    StepTogetherAndApart({0, 1, 1, 0, 1, 1, 0, 1, 30});
    StepTogetherAndApart({1, 0, 1, 1, 0, 1, 1, 1, 1});
  }
}

// More rows than a kernel takes at once, and heads that fill it with a few rows.
TEST_P(SharedPrefixTest, ManyRows) {
  if (!GetParam().large) GTEST_SKIP() << "too slow there";
  for (auto [H, group] : {std::pair{2, 70}, {40, 5}, {70, 3}}) {
    SCOPED_TRACE(absl::StrCat(H, " heads, group ", group));
    const int prefix = 64 * 3;
    Start({H, 1, 8, 16, DType::kBF16, 64}, std::vector<int>(group, prefix + 5));
    std::vector<int> rows(group);
    rows[0] = prefix;
    Step(rows);
    for (int i = 1; i < group; ++i) Share(i, 0, prefix);
    std::fill(rows.begin(), rows.end(), 1);
    StepTogetherAndApart(rows);
    for (int i = 0; i < group; ++i) rows[i] = 1 + i % 3;
    StepTogetherAndApart(rows);
  }
}

// Windows that begin before the end of what is shared, in it, and behind it.
TEST_P(SharedPrefixTest, AttentionInAWindow) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int window : {3, 64, 70, 200, 1000}) {
      if (!GetParam().large && (window != 70 || dtype == DType::kF32)) continue;
      SCOPED_TRACE(absl::StrCat(Name(dtype), " window ", window));
      const int prefix = 64 * 4;
      Start({4, 2, 8, 16, dtype, 16}, std::vector<int>(5, prefix + 150));
      window_ = window;
      Step({prefix, 0, 0, 0, 0});
      for (int i = 1; i < 5; ++i) Share(i, 0, prefix);
      StepTogetherAndApart({1, 1, 20, 100, 2});
      StepTogetherAndApart({1, 2, 1, 1, 1});
      StepTogetherAndApart({3, 1, 70, 1, 4});
    }
  }
}

std::vector<TestDevice> Devices() {
  std::vector<TestDevice> devices = TestDevices();
  devices.push_back(CpuTiles("CpuTilesBf16", /*bf16_activations=*/true));
  return devices;
}

INSTANTIATE_TEST_SUITE_P(Devices, SharedPrefixTest, testing::ValuesIn(Devices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
