// The plan of panels, and their kernels on the emulator where a small model would not lead them: several
// passes, splits, ranks and blocks in one launch. Against double precision.
#include "kernels/cuda/panel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <tuple>

#include "kernels/backend.h"
#include "kernels/convert.h"
#include "kernels/round.h"

namespace sessa::cuda {
namespace {

ReadBlock Block(int num_rows, int start, int num_heads = 1) {
  ReadBlock b = {};
  b.num_rows = num_rows, b.start = start, b.num_heads = num_heads;
  return b;
}

TEST(PanelPlanTest, PassesHoldEachKeyTileOnce) {
  const std::vector<ReadBlock> blocks = {Block(1, 0),       Block(2048, 100000), Block(40, 511),
                                         Block(129, 70000), Block(2048, 8192),   Block(300, 12)};
  for (bool feedback : {true, false}) {
    const PanelPlan plan = MakePanelPlan(blocks, {.feedback = feedback, .dim = 1024, .num_ranks = 1});
    std::vector<int> next_tile(blocks.size());
    for (const PanelPass& pass : plan.passes) {
      int64_t weights = 0, stats = 0;
      int items = 0, query_tiles = 0;
      for (int i = pass.first; i < pass.first + pass.count; ++i) {
        const PanelBlock& p = plan.blocks[i];
        const auto same = [&](const ReadBlock& b) { return b.num_rows == p.num_rows && b.start == p.start; };
        const size_t b = std::find_if(blocks.begin(), blocks.end(), same) - blocks.begin();
        const int tiles = CeilDiv(p.num_rows, kPanelQueries), padded = tiles * kPanelQueries;
        EXPECT_EQ(p.first_tile, next_tile[b]);
        next_tile[b] += p.num_tiles;
        EXPECT_EQ(p.panel_row % kPanelQueries, 0);
        EXPECT_EQ(p.is_last_pass, next_tile[b] * kPanelKeys >= p.start + (feedback ? 0 : p.num_rows));
        EXPECT_EQ(std::tuple(p.weights, p.stats, p.first_item, p.first_query_tile),
                  std::tuple(weights, stats, items, query_tiles));
        weights += int64_t{padded} * p.num_tiles * kPanelKeys;
        stats += int64_t{2} * padded * p.num_tiles;
        items += tiles * p.num_tiles;
        query_tiles += tiles;
      }
      EXPECT_EQ(std::tuple(pass.num_items, pass.num_query_tiles), std::tuple(items, query_tiles));
      EXPECT_LE(weights, plan.num_weights);
      EXPECT_LE(stats, plan.num_stats);
    }
    EXPECT_LE(plan.num_weights, int64_t{48} << 20);  // 96 MiB
    for (size_t b = 0; b < blocks.size(); ++b) {
      const int keys = blocks[b].start + (feedback ? 0 : blocks[b].num_rows);
      EXPECT_EQ(next_tile[b], CeilDiv(keys, kPanelKeys));
    }
  }
}

TEST(PanelPlanTest, ABlockIsCutTheSameWayInAnyBatch) {
  const std::vector<ReadBlock> blocks = {Block(2048, 100000), Block(700, 30000), Block(40, 511)};
  const PanelPlanOptions options = {.feedback = true, .dim = 2048, .num_ranks = 2};
  const auto cuts = [](const PanelPlan& plan, int num_rows) {
    std::vector<std::tuple<int, int, int>> cuts;
    for (const PanelBlock& p : plan.blocks) {
      if (p.num_rows == num_rows) cuts.emplace_back(p.first_tile, p.num_tiles, p.num_splits);
    }
    return cuts;
  };
  const PanelPlan together = MakePanelPlan(blocks, options);
  for (const ReadBlock& b : blocks)
    EXPECT_EQ(cuts(together, b.num_rows), cuts(MakePanelPlan({b}, options), b.num_rows));
  EXPECT_EQ(std::get<2>(cuts(together, 2048)[0]), 1);  // 16 x 8 thread blocks
  EXPECT_EQ(std::get<2>(cuts(together, 40)[0]), 4);    // all chains of a rank
}

TEST(PanelPlanTest, OwnKeys) {
  const PanelPlan plan = MakeOwnPanelPlan({Block(2048, 5), Block(9, 0), Block(257, 1000)});
  ASSERT_EQ(plan.passes.size(), 1u);
  EXPECT_EQ(plan.passes[0].num_items, 16 * 8 + 1 + 3 * 2);
  EXPECT_EQ(plan.panel_rows, 2048 + 128 + 384);
  EXPECT_TRUE(MakeOwnPanelPlan({}).passes.empty());
  EXPECT_TRUE(MakePanelPlan({}, {}).passes.empty());
}

uint16_t Bf16Bits(float x) { return RoundToBf16(x); }
float Rounded(float x) {
  const uint16_t bits = Bf16Bits(x);
  return ToFloat(&bits, 0, DType::kBF16);
}

// Sequences with a past in pages and a block of new rows each.
class PanelTest : public testing::Test {
 protected:
  static constexpr int kPage = 16;
  struct Sequence {
    int num_rows, start;
    std::vector<float> q, k, s, f, gamma;  // k, s: of all positions; s of the past alone
    std::vector<int32_t> pages;
  };

  std::vector<float> Random(size_t n, float scale) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> x(n);
    for (float& v : x) v = Rounded(normal(random_));
    return x;
  }

  // Makes the last component of q and k a slope of the scores.
  void Drift(int D, Sequence* s) const {
    if (drift_ == 0) return;
    for (size_t i = D - 1; i < s->q.size(); i += D) s->q[i] = 16;
    for (size_t i = D - 1, t = 0; i < s->k.size(); i += D, ++t)
      s->k[i] = Rounded(drift_ * static_cast<float>(t) / 100);
  }

  // Expects s of the feedback recurrence.
  void ExpectFeedback(const std::vector<std::pair<int, int>>& shapes, int D, int num_ranks, int pass_tiles,
                      int full_device) {
    std::vector<Sequence> sequences;
    int num_rows = 0, num_pages = 0;
    for (auto [rows, start] : shapes) {
      const size_t n = rows + start;
      sequences.push_back({rows,
                           start,
                           Random(size_t{1} * rows * D, 1.2f),
                           Random(n * D, 1.2f),
                           Random(start * size_t{1} * D, 1),
                           Random(size_t{1} * rows * D, 1),
                           Random(rows, 0.3f),
                           {}});
      Drift(D, &sequences.back());
      for (size_t i = 0; i < n; i += kPage) sequences.back().pages.push_back(num_pages++);
      num_rows += rows;
    }
    // Each rank has all pages, those of other ranks' tiles full of NaN.
    const int stride = Padded(D);
    std::vector<std::vector<uint16_t>> keys(num_ranks), states(num_ranks);
    std::vector<float> q, k, f, gamma;
    std::vector<ReadBlock> blocks;
    for (int rank = 0; rank < num_ranks; ++rank) {
      keys[rank].assign(size_t{1} * num_pages * kPage * stride, 0x7fff);
      states[rank] = keys[rank];
      for (const Sequence& s : sequences) {
        for (int t = 0; t < s.start; ++t) {
          if (t / kTile % kChains % num_ranks != rank) continue;
          const size_t at = (size_t{1} * s.pages[t / kPage] * kPage + t % kPage) * stride;
          for (int i = 0; i < stride; ++i) {
            keys[rank][at + i] = i < D ? Bf16Bits(s.k[t * D + i]) : 0;
            states[rank][at + i] = i < D ? Bf16Bits(s.s[t * D + i]) : 0;
          }
        }
      }
    }
    for (const Sequence& s : sequences) {
      ReadBlock b = Block(s.num_rows, s.start);
      b.first_row = b.wave_row = static_cast<int>(gamma.size());
      b.pages = s.pages.data();
      blocks.push_back(b);
      q.insert(q.end(), s.q.begin(), s.q.end());
      k.insert(k.end(), s.k.begin() + s.start * D, s.k.end());
      f.insert(f.end(), s.f.begin(), s.f.end());
      gamma.insert(gamma.end(), s.gamma.begin(), s.gamma.end());
    }

    PanelPlan own = MakeOwnPanelPlan(blocks);
    PanelPlan past = MakePanelPlan(blocks, {true, D, num_ranks, pass_tiles, full_device});
    own.device_blocks = own.blocks.data(), past.device_blocks = past.blocks.data();
    const size_t rows = own.panel_rows;
    const auto floats = [](size_t n) { return std::vector<float>(n, NAN); };
    const auto halves = [](size_t n) { return std::vector<uint16_t>(n, 0x7fff); };
    auto panel_q = halves(rows * PanelStride(D)), panel_k = panel_q, own_weights = halves(own.num_weights),
         weights = halves(past.num_weights);
    auto own_stats = floats(own.num_stats), stats = floats(past.num_stats),
         diagonal = floats(rows * kSolveRows), running = floats(rows * 4 * kChains), inverses = diagonal,
         terms = floats(rows * kPanelTerms);
    const PanelScratch scratch = {panel_q.data(),   panel_k.data(), own_weights.data(), weights.data(),
                                  own_stats.data(), stats.data(),   diagonal.data(),    running.data(),
                                  inverses.data(),  terms.data()};
    auto max = floats(kChains * num_rows), sum = max, acc = floats(size_t{kChains} * num_rows * D);
    const auto matrix = [&](std::vector<float>& x) { return Matrix{x.data(), num_rows, D, D}; };
    const auto paged = [&](std::vector<uint16_t>& x) {
      return PagedVectors{x.data(), DType::kBF16, kPage, 1, D, 0, num_pages};
    };
    for (int rank = 0; rank < num_ranks; ++rank) {
      PanelRead read = {};
      read.q = matrix(q), read.k = matrix(k);
      read.keys = paged(keys[rank]), read.values = paged(states[rank]);
      read.scale = 1.44269504f / std::sqrt(static_cast<float>(D));
      read.feedback = true;
      read.rank = rank, read.num_ranks = num_ranks;
      read.scratch = scratch;
      read.max = max.data(), read.sum = sum.data(), read.acc = acc.data();
      read.partial_rows = num_rows, read.width = D;
      ReadOwnPanels(nullptr, OfPass(read, own, own.passes[0]), own.passes[0]);
      for (const PanelPass& pass : past.passes)
        ReadPanels(nullptr, OfPass(read, past, pass), pass, /*round=*/false);
    }
    auto s = floats(size_t{1} * num_rows * D), gated = s, g = Random(s.size(), 1);
    auto pages = halves(keys[0].size());
    PanelSolve solve = {};
    solve.max = max.data(), solve.sum = sum.data(), solve.acc = acc.data();
    solve.partial_rows = num_rows, solve.width = D;
    solve.f = matrix(f), solve.s = matrix(s), solve.g = matrix(g), solve.gated = matrix(gated);
    solve.gamma = gamma.data();
    solve.states = paged(pages);
    solve.scratch = scratch;
    solve.panel_rows = own.panel_rows;
    solve.blocks = own.device_blocks;
    solve.num_blocks = static_cast<int>(own.blocks.size());
    for (const Sequence& sequence : sequences) solve.max_rows = std::max(solve.max_rows, sequence.num_rows);
    for (int middle = D / 3, part = 0; part < 2; ++part) {  // as two ranks would
      solve.begin = part == 0 ? 0 : middle, solve.end = part == 0 ? middle : D;
      SolvePanels(nullptr, solve);
    }

    size_t row = 0;
    for (const Sequence& sequence : sequences) {
      ExpectRows(sequence, D, s.data() + row * D);
      for (int r = 0; r < sequence.num_rows; ++r, ++row) {
        const int t = sequence.start + r;
        for (int i = 0; i < D; ++i) {
          ASSERT_EQ(gated[row * D + i], s[row * D + i] * g[row * D + i]);
          ASSERT_EQ(pages[(size_t{1} * sequence.pages[t / kPage] * kPage + t % kPage) * stride + i],
                    Bf16Bits(s[row * D + i]));
        }
      }
    }
  }

  // Each row from the rows before as they came out.
  static void ExpectRows(const Sequence& in, int D, const float* s) {
    const auto state = [&](int j) {
      return j < in.start ? &in.s[size_t{1} * j * D] : s + size_t{1} * (j - in.start) * D;
    };
    double largest = 0, worst = 0;
    for (int r = 0; r < in.num_rows; ++r) {
      const int n = in.start + r;
      std::vector<double> x(n), expected(in.f.begin() + r * D, in.f.begin() + (r + 1) * D);
      double top = -INFINITY, sum = 0;
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < D; ++i) x[j] += double{in.q[r * D + i]} * in.k[size_t{1} * j * D + i];
        top = std::max(top, x[j] /= std::sqrt(D));
      }
      for (double& e : x) sum += e = std::exp(e - top);
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < D; ++i) expected[i] += in.gamma[r] * x[j] / sum * state(j)[i];
      }
      for (int i = 0; i < D; ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        worst = std::max(worst, std::abs(expected[i] - s[r * D + i]));
      }
    }
    EXPECT_LE(worst, 4e-3 * largest);  // weights and states are rounded to bf16
  }

  std::mt19937 random_{7};
  float drift_ = 0;  // of the scores along the keys
};

TEST_F(PanelTest, ManyPassesAndSplits) {
  for (int full_device : {1, 132}) {
    SCOPED_TRACE(full_device);
    ExpectFeedback({{70, 1100}, {130, 500}, {3, 62}, {20, 0}}, 40, 1, /*pass_tiles=*/2, full_device);
  }
}

TEST_F(PanelTest, Ranks) {
  for (int num_ranks : {2, 4, 8}) {
    SCOPED_TRACE(num_ranks);
    ExpectFeedback({{66, 1300}, {9, 64}, {12, 0}}, 24, num_ranks, /*pass_tiles=*/1, 132);
  }
}

TEST_F(PanelTest, ALongTriangle) { ExpectFeedback({{700, 30}}, 34, 1, 512, 132); }

TEST_F(PanelTest, WideColumns) { ExpectFeedback({{65, 70}}, 520, 1, 512, 132); }

// Scores up to 300 apart, in both directions along the keys: nothing may overflow, and the largest win.
TEST_F(PanelTest, DistantScores) {
  for (float scale : {8.0f, -8.0f}) {
    drift_ = scale;
    ExpectFeedback({{66, 800}}, 16, 1, /*pass_tiles=*/1, 132);
  }
}

}  // namespace
}  // namespace sessa::cuda
