// Cached state in int8 (kernels/cpu/int8_state.h): what the quantiser makes of every kind of value, the
// memory that it takes, and reads of it against those of a bf16 state of the same values, bit for bit.
#include "kernels/cpu/int8_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/step.h"
#include "kernels/cpu/tile_attention.h"

namespace sessa {
namespace {

using Use = PagedShape::Use;

std::vector<float> Quantized(const std::vector<float>& x, Use use = Use::kKey) {
  const int dim = static_cast<int>(x.size());
  std::vector<int8_t> panel(cpu::Int8PanelBytes(dim));
  cpu::StoreInt8(x.data(), dim, use, panel.data(), 5);
  std::vector<float> y(dim, -1);
  cpu::LoadInt8(panel.data(), dim, use, 5, y.data());
  return y;
}

TEST(Int8StateTest, RoundsToNearestAndOfEqualsToTheEvenOne) {
  EXPECT_EQ(Quantized({127, 0.5f, 1.5f, -2.5f, 3.49f, -3.51f, 0}),
            (std::vector<float>{127, 0, 2, -2, 3, -4, 0}));
  EXPECT_FALSE(std::signbit(Quantized({127, -0.4f})[1]));  // a page has no -0
  // The largest magnitude that one exponent holds, and the first of the next.
  EXPECT_EQ(Quantized({127.49999f, 1}), (std::vector<float>{127, 1}));
  EXPECT_EQ(Quantized({-127.5f, 1}), (std::vector<float>{-128, 0}));
  EXPECT_EQ(Quantized({128, 1}), (std::vector<float>{128, 0}));
  EXPECT_EQ(Quantized({64, 0.25f}), (std::vector<float>{64, 0}));
  EXPECT_EQ(Quantized({63.75f, 0.25f}),
            (std::vector<float>{64, 0}));  // the exponent does not round up with it
  EXPECT_EQ(Quantized({63.74f, 0.25f}), (std::vector<float>{63.5f, 0}));
}

TEST(Int8StateTest, ErrsByHalfAStepOfItsGroup) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int dim : {1, 15, 16, 63, 64, 65, 80, 130, 200}) {
    for (Use use : {Use::kKey, Use::kValue}) {
      std::vector<float> x(dim);
      for (int i = 0; i < dim; ++i) x[i] = normal(random) * std::ldexp(1.0f, i / 64 * 20 - 30);
      const std::vector<float> y = Quantized(x, use);
      for (int i = 0; i < dim; ++i) {
        const auto group = x.begin() + i / 64 * 64;
        float largest = 0;
        for (auto v = group; v < std::min(x.end(), group + 64); ++v)
          largest = std::max(largest, std::abs(*v));
        ASSERT_LE(std::abs(x[i] - y[i]), largest / 127) << dim << " " << i;  // half a step of 2 / 127 at most
        const uint16_t bits = RoundToBf16(y[i]);
        ASSERT_EQ(ToFloat(&bits, 0, DType::kBF16), y[i]) << "a bf16 as it is";
      }
    }
  }
}

TEST(Int8StateTest, ZerosAndTheSmallestAndLargestValues) {
  constexpr float kSmallest = std::numeric_limits<float>::min(), kLargest = std::numeric_limits<float>::max();
  EXPECT_EQ(Quantized(std::vector<float>(64)), std::vector<float>(64));
  // Denormals are not kept: what is below half of the smallest normal value is 0.
  EXPECT_EQ(Quantized({kSmallest / 2, kSmallest / 4, std::numeric_limits<float>::denorm_min()}),
            (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(Quantized({kSmallest, -kSmallest * 0.75f}), (std::vector<float>{kSmallest, -kSmallest}));
  EXPECT_EQ(Quantized({kSmallest * 127, kSmallest}), (std::vector<float>{kSmallest * 127, kSmallest}));
  EXPECT_EQ(Quantized({std::ldexp(1.0f, 127), 0}), (std::vector<float>{std::ldexp(1.0f, 127), 0}));
  // As in bf16, what rounds up beyond the last value is an infinity.
  EXPECT_EQ(Quantized({kLargest, 0}), (std::vector<float>{std::numeric_limits<float>::infinity(), 0}));
}

TEST(Int8StateTest, AGroupWithWhatIsNotFiniteIsNaN) {
  for (float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(130, 3.0f);
    x[70] = bad;
    const std::vector<float> y = Quantized(x);
    for (int i = 0; i < 130; ++i) {
      EXPECT_EQ(std::isnan(y[i]), i / 64 == 1) << i;
      if (i / 64 != 1) {
        EXPECT_EQ(y[i], 3.0f);
      }
    }
  }
}

TEST(Int8StateTest, TakesAByteAColumnAndOneForAGroup) {
  const auto backend = MakeCpuBackend({});
  for (Use use : {Use::kKey, Use::kValue}) {
    for (int page_size : {16, 32, 64}) {
      const auto bytes = [&](int heads, int dim, DType dtype) {
        return backend->BytesPerPage({use, heads, dim, dtype}, page_size);
      };
      EXPECT_EQ(bytes(4, 64, DType::kI8), page_size * 4 * 65u);
      EXPECT_EQ(bytes(1, 1024, DType::kI8), page_size * 1040u);
      EXPECT_EQ(bytes(2, 128, DType::kI8) * 128, bytes(2, 128, DType::kBF16) * 65);
      EXPECT_EQ(bytes(2, 32, DType::kI8), page_size * 2 * 33u);
      EXPECT_EQ(bytes(1, 80, DType::kI8), page_size * 82u);
      EXPECT_EQ(bytes(1, 100, DType::kI8), page_size * (112u + 2));
    }
  }
}

// The last rows of a sequence, of each number of rows, over int8 and over a bf16 state of the same values.
TEST(Int8StateTest, ReadsAreThoseOfABf16StateOfTheSameValues) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const auto backend = MakeCpuBackend({});
  for (auto [dim, page_size, tokens] :
       {std::tuple{64, 16, 150}, {192, 64, 321}, {33, 32, 127}, {80, 16, 65}, {7, 64, 200}}) {
    const int width = RoundUp(dim, cpu::kPanel), num_pages = CeilDiv(tokens, page_size);
    std::vector<int32_t> pages;
    for (int i = 0; i < num_pages; ++i) pages.push_back(num_pages - 1 - i);
    PagedTensor state[2][2];  // [int8, bf16][keys, values]
    for (int i = 0; i < 2; ++i) {
      for (Use use : {Use::kKey, Use::kValue}) {
        const PagedShape shape{use, 1, dim, i == 0 ? DType::kI8 : DType::kBF16};
        state[i][static_cast<int>(use)] = *backend->AllocatePages(shape, page_size, 0, num_pages);
      }
    }
    std::vector<float> x(dim);
    for (int t = 0; t < tokens; ++t) {
      for (int use = 0; use < 2; ++use) {
        const float size = std::ldexp(1.0f, t % 5 - 2);
        for (float& value : x) value = size * normal(random);
        StoreToken(x.data(), &state[0][use], pages[t / page_size], t % page_size);
        LoadToken(state[0][use], pages[t / page_size], t % page_size, x.data());
        StoreToken(x.data(), &state[1][use], pages[t / page_size], t % page_size);
      }
    }
    std::vector<float> q(64 * dim);
    for (float& value : q) value = normal(random);
    struct Way {
      MatrixUnit unit;
      int terms;
    };
    std::vector<Way> ways = {
        {MatrixUnit::kVector, 0}, {MatrixUnit::kAmxModel, 1}, {MatrixUnit::kAmxModel, 3}};
    if (CpuHasAmx()) ways.insert(ways.end(), {{MatrixUnit::kAmx, 1}, {MatrixUnit::kAmx, 3}});
    for (const auto [unit, terms] : ways) {
      for (int m : {1, 2, 3, 4, 5, 17, 64}) {
        if (m > tokens || (unit == MatrixUnit::kAmxModel && m != 1 && m != 17)) continue;
        for (bool keep : {false, true}) {  // the last tile's probabilities, as the feedback read does
          std::vector<int> visible(m);
          for (int r = 0; r < m; ++r) visible[r] = tokens - m + 1 + r;
          const int last = CeilDiv(tokens, cpu::kTile);
          std::vector<float> results[2];
          for (int i = 0; i < 2; ++i) {
            std::vector<float> p(m * cpu::kTile), scratch;
            std::vector<float>& result = results[i];
            result.resize(m * (2 + width));
            std::fill_n(result.begin(), m, -std::numeric_limits<float>::infinity());
            cpu::AttendArgs args{q.data(), dim, m, dim, dim, 0.3f, visible.data(), 0, last, 1};
            if (keep) args.probabilities = p.data(), args.value_limit = tokens - m;
            const cpu::PagedState cache = HeadOf(state[i][0], state[i][1], 0, pages.data());
            const cpu::SoftmaxState softmax{result.data(), result.data() + m, result.data() + 2 * m, width};
            if (unit == MatrixUnit::kVector) {
              std::vector<float> packed(cpu::PackedSize(m, dim));
              if (m > cpu::kFewRows) {
                cpu::PackRows(q.data(), dim, m, dim, 0, cpu::NumRowTiles(m), packed.data());
                args.q = packed.data();
              }
              cpu::AttendTiles(args, cache, softmax);
            } else {
              std::vector<uint16_t> memory;
              uint16_t* tiles = GrownLines(&memory, cpu::TiledSize(m, dim, terms));
              for (int t = 0; t < cpu::TilesOf(m); ++t)
                cpu::PackTiles(q.data(), dim, m, dim, terms, t, tiles);
              cpu::AttendOnTiles({unit, terms, tiles}, args, cache, softmax,
                                 GrownLines(&scratch, cpu::TileAttendScratch(dim, width, cache.dtype)));
            }
            result.insert(result.end(), p.begin(), p.end());
          }
          EXPECT_EQ(results[0], results[1])
              << "dim " << dim << ", " << m << " rows, unit " << static_cast<int>(unit) << ", terms " << terms
              << ", keep " << keep;
        }
      }
    }
  }
}

}  // namespace
}  // namespace sessa
