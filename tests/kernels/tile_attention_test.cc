// Attention over paged bf16 state on a tile unit (kernels/cpu/tile_attention.h): its model against double
// precision, a row alone against the same row beside others, and the processor against the model, bit for
// bit.
#include "kernels/cpu/tile_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/memory.h"

namespace sessa {
namespace {

float ToBf16AndBack(float x) {
  const uint16_t rounded = RoundToBf16(x);
  return ToFloat(&rounded, 0, DType::kBF16);
}

struct Shape {
  int dim, page_size, tokens;
  int step = 1, window = 0;  // every step-th tile from tile step / 2 on; 0: no window
};

// The last 64 rows of a sequence. What is no token's is NaN in its pages.
class TileAttentionTest : public testing::TestWithParam<Shape> {
 protected:
  static constexpr int kRows = cpu::kTile;

  TileAttentionTest() {
    const auto [dim, page_size, tokens, step, window] = GetParam();
    const int width = RoundUp(dim, cpu::kPanel), depth = cpu::PanelRows(dim),
              num_pages = CeilDiv(tokens, page_size);
    key_memory_.assign(num_pages * page_size * depth, 0x7fc0);
    value_memory_.assign(num_pages * page_size * width, 0x7fc0);
    for (int i = 0; i < num_pages; ++i) pages_.push_back(num_pages - 1 - i);
    q_ = Random(kRows * dim, false), keys_ = Random(tokens * dim), values_ = Random(tokens * dim);
    for (int t = 0; t < tokens; ++t) {
      const int64_t first = int64_t{pages_[t / page_size]} * page_size;
      const int slot = t % page_size;
      std::vector<float> padded(std::max(width, depth));  // as pages are zero at first
      std::copy_n(&keys_[t * dim], dim, padded.begin());
      cpu::StoreColumn(padded.data(), depth, DType::kBF16, &key_memory_[(first + slot / 16 * 16) * depth],
                       slot % 16);
      std::copy_n(&values_[t * dim], dim, padded.begin());
      cpu::StoreRow(padded.data(), width, DType::kBF16, &value_memory_[first * width], width, slot);
    }
    cache_ = {pages_.data(),        page_size,          0,
              DType::kBF16,         key_memory_.data(), page_size * depth,
              value_memory_.data(), page_size * width,  width};
  }

  std::vector<float> Random(int n, bool rounded = true) {
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float& x : values) x = rounded ? ToBf16AndBack(normal(random_)) : normal(random_);
    return values;
  }
  int Visible(int row) const { return GetParam().tokens - kRows + row + 1; }
  int FirstVisible(int row) const {
    return GetParam().window > 0 ? std::max(0, Visible(row) - GetParam().window) : 0;
  }
  bool IsInChain(int token) const { return token / cpu::kTile % GetParam().step == GetParam().step / 2; }

  // Rows [first, first + m): maxima, sums and weighted values. NaN where the kernel must not have written.
  std::vector<float> Attend(MatrixUnit unit, int terms, int first, int m) {
    const int dim = GetParam().dim, width = RoundUp(dim, cpu::kPanel);
    std::vector<uint16_t> tile_memory;
    uint16_t* tiles = GrownLines(&tile_memory, cpu::TiledSize(m, dim, terms));
    for (int t = 0; t < cpu::TilesOf(m); ++t) cpu::PackTiles(&q_[first * dim], dim, m, dim, terms, t, tiles);
    std::vector<int> visible(m), from(m);
    for (int r = 0; r < m; ++r) visible[r] = Visible(first + r), from[r] = FirstVisible(first + r);
    std::vector<float> result(m * (2 + width), std::nanf("")), scratch;
    cpu::AttendArgs args{nullptr,
                         0,
                         m,
                         dim,
                         dim,
                         1 / std::sqrt(static_cast<float>(dim)),
                         visible.data(),
                         from[0] / cpu::kTile / GetParam().step * GetParam().step + GetParam().step / 2,
                         CeilDiv(visible[m - 1], cpu::kTile),
                         GetParam().step};
    if (GetParam().window > 0) args.first_visible = from.data();
    cpu::AttendOnTiles({unit, terms, tiles}, args, cache_,
                       {result.data(), result.data() + m, result.data() + 2 * m, width},
                       GrownLines(&scratch, cpu::TileAttendScratch(dim, width, DType::kBF16)));
    return result;
  }

  // The rows [first, first + m) of `all`, which has those of 64.
  std::vector<float> Rows(const std::vector<float>& all, int first, int m) const {
    const int width = RoundUp(GetParam().dim, cpu::kPanel);
    std::vector<float> rows(all.begin() + first, all.begin() + first + m);
    rows.insert(rows.end(), all.begin() + kRows + first, all.begin() + kRows + first + m);
    rows.insert(rows.end(), all.begin() + 2 * kRows + first * width,
                all.begin() + 2 * kRows + (first + m) * width);
    return rows;
  }

  std::mt19937 random_{9};
  std::vector<int32_t> pages_;
  std::vector<uint16_t> key_memory_, value_memory_;
  std::vector<float> q_, keys_, values_;
  cpu::PagedState cache_;
};

TEST_P(TileAttentionTest, OneArithmeticForEveryNumberOfRows) {
  const int dim = GetParam().dim, width = RoundUp(dim, cpu::kPanel);
  for (int terms : {1, 3}) {
    SCOPED_TRACE(testing::Message() << "terms " << terms);
    const std::vector<float> all = Attend(MatrixUnit::kAmxModel, terms, 0, kRows);
    for (int r = 0; r < kRows; ++r) {
      std::vector<double> y(dim), scores;
      double sum = 0;
      for (int t = FirstVisible(r); t < Visible(r); ++t) {
        if (!IsInChain(t)) continue;
        double score = 0;
        for (int i = 0; i < dim; ++i) {
          const float q = q_[r * dim + i];
          score += static_cast<double>(terms == 1 ? ToBf16AndBack(q) : q) * keys_[t * dim + i];
        }
        const double p = std::exp(score / std::sqrt(static_cast<double>(dim)));
        sum += p;
        for (int i = 0; i < dim; ++i) y[i] += p * values_[t * dim + i];
      }
      const double tolerance = terms == 1 ? 5e-3 : 5e-6;
      EXPECT_NEAR(std::log(sum), all[r] + std::log(all[kRows + r]), tolerance) << "row " << r;
      for (int i = 0; i < dim; ++i)
        ASSERT_NEAR(y[i] / sum, all[2 * kRows + r * width + i] / all[kRows + r], tolerance)
            << "row " << r << ", column " << i;
    }
    EXPECT_EQ(Rows(all, 11, 5), Attend(MatrixUnit::kAmxModel, terms, 11, 5));
    EXPECT_EQ(Rows(all, 11, 1), Attend(MatrixUnit::kAmxModel, terms, 11, 1));
    if (!CpuHasAmx()) continue;
    for (int m : {1, 2, 3, 4, 5, 15, 16, 17, 33, 64}) {
      for (int first : {0, (kRows - m) / 3, kRows - m})
        EXPECT_EQ(Rows(all, first, m), Attend(MatrixUnit::kAmx, terms, first, m))
            << "rows " << first << " + " << m;
    }
  }
}

// Contexts that end at the edges of pages, tiles and of the tiles that share a maximum; odd widths.
INSTANTIATE_TEST_SUITE_P(Shapes, TileAttentionTest,
                         testing::Values(Shape{64, 64, 64}, Shape{64, 16, 65}, Shape{7, 16, 127},
                                         Shape{33, 32, 255}, Shape{100, 16, 256}, Shape{48, 64, 257},
                                         Shape{16, 16, 321, 1, 70}, Shape{24, 64, 330, 1, 5},
                                         Shape{80, 64, 129, 1, 64}, Shape{130, 64, 700, 2},
                                         Shape{40, 16, 591, 8}),
                         [](const auto& info) {
                           return testing::PrintToString(info.param.dim) + "_" +
                                  testing::PrintToString(info.param.tokens);
                         });

}  // namespace
}  // namespace sessa
