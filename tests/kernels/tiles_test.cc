// The tile kernels of the CPU backend (kernels/cpu/tiles.h).
#include "kernels/cpu/tiles.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/int8_tiles.h"
#include "tests/kernels/int8_weights.h"

namespace sessa {
namespace {

float ToBf16AndBack(float x) {
  const uint16_t rounded = RoundToBf16(x);
  return ToFloat(&rounded, 0, DType::kBF16);
}

// Values that are no numbers, or that the unit takes for 0.
void Spoil(std::vector<float>* values, std::mt19937* random) {
  for (uint32_t bits : {0x00000001u, 0x807fffffu, 0x00400000u, 0x7f7fffffu, 0x7f800000u, 0xffc00000u})
    (*values)[(*random)() % values->size()] = std::bit_cast<float>(bits);
}

void ExpectSameBits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) {
      ASSERT_TRUE(std::isnan(b[i])) << i;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i])) << i;
    }
  }
}

// Values that the tile unit treats in its own way (denormals are zero, NaN and infinities go on) and shapes
// at the edges of tiles: the processor against the model, bit for bit, and the model against plain sums.
TEST(TilesTest, TheProcessorAndTheModelGiveTheSameBits) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (int m : {1, 2, 15, 16, 17, 32, 33, 65}) {  // the last: of some steps of k at once
    for (int k : {1, 31, 32, 33, 700}) {
      for (int terms : {1, 3}) {
        const int n =
            std::array{50, 48, 80, 95, 4}[(m + k) % 5];  // panels by fours and twos, and what is left
        const int panels = CeilDiv(n, cpu::kPanel);
        SCOPED_TRACE(testing::Message() << m << " rows, k " << k << ", terms " << terms << ", outputs " << n);
        std::vector<float> a(m * k), w(n * k), bias(n);
        for (auto* values : {&a, &w, &bias}) {
          for (float& x : *values) x = normal(random);
        }
        for (float& x : w) x = ToBf16AndBack(x);
        const int64_t panel = int64_t{cpu::TilePanelRows(k)} * cpu::kPanel;
        std::vector<uint16_t> weights(panels * panel);
        const auto product = [&](MatrixUnit unit) {
          for (int j = 0; j < n; ++j) {
            cpu::StoreColumn(w.data() + j * k, k, DType::kBF16, weights.data() + j / cpu::kPanel * panel,
                             j % cpu::kPanel);
          }
          std::vector<uint16_t> left(cpu::TiledSize(m, k, terms));
          for (int t = 0; t < cpu::TilesOf(m); ++t) cpu::PackTiles(a.data(), k, m, k, terms, t, left.data());
          std::vector<float> c(m * n, -1.0f);
          cpu::TileLinear(unit, left.data(), cpu::TileStride(m), m, terms,
                          {weights.data(), DType::kBF16, n, k}, bias.data(), Epilogue::kNone, c.data(), n);
          // The last row of several, alone: as where they are more than go at once.
          std::vector<float> last(n);
          if (m % cpu::kTileRows == 1) {
            cpu::TileLinear(unit, left.data() + cpu::TiledSize(m - 1, k, terms), cpu::TileStride(m), 1, terms,
                            {weights.data(), DType::kBF16, n, k}, bias.data(), Epilogue::kNone, last.data(),
                            n);
            for (int j = 0; j < n; ++j)
              EXPECT_EQ(std::bit_cast<uint32_t>(last[j]), std::bit_cast<uint32_t>(c[(m - 1) * n + j])) << j;
          }
          return c;
        };
        const std::vector<float> c = product(MatrixUnit::kAmxModel);
        for (int r = 0; r < m; ++r) {
          for (int j = 0; j < n; ++j) {
            double sum = bias[j], size = std::abs(sum);
            for (int i = 0; i < k; ++i) {
              const float x = terms == 1 ? ToBf16AndBack(a[r * k + i]) : a[r * k + i];
              sum += static_cast<double>(x) * w[j * k + i];
              size += std::abs(static_cast<double>(x) * w[j * k + i]);
            }
            EXPECT_NEAR(sum, c[r * n + j], size * 0x1p-17) << "row " << r << ", output " << j;
          }
        }
        if (!CpuHasAmx()) continue;
        EXPECT_EQ(c, product(MatrixUnit::kAmx));
        Spoil(&a, &random);
        for (uint32_t bits : {0x00010000u, 0x80700000u}) w[random() % w.size()] = std::bit_cast<float>(bits);
        ExpectSameBits(product(MatrixUnit::kAmxModel), product(MatrixUnit::kAmx));
      }
    }
  }
}

// Rows whose sums are kept from one block of k to the next, and those behind them.
TEST(TilesTest, MoreRowsThanSumsAreKeptFor) {
  constexpr int kM = 16 * 2 * cpu::kTileRows + 17, kK = 700, kN = 20;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> a(kM * kK), w(kK), bias(kN);
  for (auto* values : {&a, &bias}) {
    for (float& x : *values) x = normal(random);
  }
  const int64_t panel = int64_t{cpu::TilePanelRows(kK)} * cpu::kPanel;
  std::vector<uint16_t> weights(CeilDiv(kN, cpu::kPanel) * panel), left(cpu::TiledSize(kM, kK, 1));
  for (int j = 0; j < kN; ++j) {
    for (float& x : w) x = normal(random);
    cpu::StoreColumn(w.data(), kK, DType::kBF16, weights.data() + j / cpu::kPanel * panel, j % cpu::kPanel);
  }
  for (int t = 0; t < cpu::TilesOf(kM); ++t) cpu::PackTiles(a.data(), kK, kM, kK, 1, t, left.data());
  for (MatrixUnit unit : {MatrixUnit::kAmxModel, MatrixUnit::kAmx}) {
    if (unit == MatrixUnit::kAmx && !CpuHasAmx()) continue;
    const auto product = [&](int first, int rows) {
      std::vector<float> c(rows * kN);
      cpu::TileLinear(unit, left.data() + cpu::TiledSize(first, kK, 1), cpu::TileStride(kM), rows, 1,
                      {weights.data(), DType::kBF16, kN, kK}, bias.data(), Epilogue::kNone, c.data(), kN);
      return c;
    };
    const std::vector<float> all = product(0, kM);
    for (int r = 0; r < kM; r += cpu::kTileRows) {
      const std::vector<float> some = product(r, std::min(cpu::kTileRows, kM - r));
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + r * kN)) << "from row " << r << " on";
    }
  }
}

// Quantised weights and their panels.
struct Int8Matrix {
  Int8Matrix(int n, int k, std::mt19937* random) : n(n), k(k), values(n * k), bias(n) {
    std::normal_distribution<float> normal;
    for (auto* v : {&values, &bias}) {
      for (float& x : *v) x = normal(*random);
    }
    std::fill_n(values.begin(), k, 1e-39f);  // may count as 0
    const int panels = CeilDiv(n, cpu::kPanel);
    data.resize(panels * cpu::Int8TilePanelSize(k), int8_t{1});
    scales.resize(panels * cpu::kPanel, 1.0f);
    std::vector<float> rotated(cpu::Int8Rotated(k));
    for (int p = 0; p < panels; ++p) {
      cpu::PackInt8Panel(&values[p * cpu::kPanel * k], k, std::min(cpu::kPanel, n - p * cpu::kPanel), k,
                         rotated.data(), &data[p * cpu::Int8TilePanelSize(k)], &scales[p * cpu::kPanel]);
    }
  }
  cpu::Int8TilePanels panels() const { return {data.data(), scales.data(), n, k}; }
  int integer(int j, int i) const {
    return data[j / cpu::kPanel * cpu::Int8TilePanelSize(k) + (i / 4 * cpu::kPanel + j % cpu::kPanel) * 4 +
                i % 4];
  }
  // What the integers stand for.
  double at(int j, int i) const {
    int sum = 0;
    for (int b = 0; b < cpu::kInt8Depth; ++b)
      sum += integer(j, i / cpu::kInt8Depth * cpu::kInt8Depth + b) * Hadamard(i % cpu::kInt8Depth, b);
    return double{scales[j]} * sum;
  }
  const int n, k;
  std::vector<float> values, bias;
  std::vector<int8_t> data;
  std::vector<float> scales;
};

TEST(TilesTest, Int8WeightsErrByTheStepOfTheirOutputsAfterTheRotation) {
  std::mt19937 random(6);
  for (int k : {64, 97, 700}) {
    Int8Matrix w(20, k, &random);
    for (int j = 1; j < w.n; ++j) {
      // Rotated values are 8 times as large; so is the rotation's sum back, of which a 64th is taken.
      const double step = double{w.scales[j]} * 8;
      double squares = 0, largest = 0;
      for (int i = 0; i < k; ++i) {
        squares += std::pow(w.at(j, i) - w.values[j * k + i], 2);
        largest = std::max(largest, std::abs(double{w.values[j * k + i]}));
      }
      EXPECT_LE(std::sqrt(squares / k), step / std::sqrt(12) * 1.25) << "k " << k << ", output " << j;
      EXPECT_GE(std::sqrt(squares / k), step / std::sqrt(12) * 0.5);
      EXPECT_LE(step, largest / 127 * 8);
      for (int i = 0; i < cpu::Int8Rotated(k); ++i) EXPECT_LE(std::abs(w.integer(j, i)), 127);
    }
    EXPECT_EQ(w.scales[0], 0);
  }
}

// A single outlier does not take the others' bits.
TEST(TilesTest, AnOutlierIsSpreadOverItsBlock) {
  constexpr int kK = 64;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(kK), w(kK), rotated(kK);
  for (float& v : x) v = normal(random);
  std::copy(x.begin(), x.end(), w.begin());
  x[5] = 400, w[5] = 0;
  std::vector<int8_t> tiles(cpu::Int8TiledSize(1, kK, 1)), panel(cpu::Int8TilePanelSize(kK));
  float row_scale, scales[cpu::kPanel], y = 0;
  cpu::PackInt8Tiles(x.data(), kK, 1, kK, 1, 0, rotated.data(), tiles.data(), &row_scale);
  cpu::PackInt8Panel(w.data(), kK, 1, kK, rotated.data(), panel.data(), scales);
  cpu::Int8TileLinear(MatrixUnit::kAmxModel, {tiles.data(), &row_scale, 1, cpu::Int8TileStride(1)}, 1,
                      {panel.data(), scales, 1, kK}, nullptr, Epilogue::kNone, &y, 1);
  double expected = 0;
  for (int i = 0; i < kK; ++i) expected += double{x[i]} * w[i];
  EXPECT_NEAR(expected, y, 3);  // in steps of 400 / 127 most other values would be 0
  EXPECT_GE(expected, 30);
}

// As above: the processor and the model, each row alone and among others, what the integers stand for in
// double; and gated products, those of two linears.
TEST(TilesTest, Int8WeightsGiveTheSameBitsOnTheProcessorAndTheModel) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int m : {1, 2, 16, 17, 33, 65, 530}) {  // the last: more than go at once
    for (int k : {1, 33, 64, 97, 1300}) {      // the last: of more steps than go at once
      if (m == 530 && k != 97) continue;       // the model is slow
      for (int terms : {1, 2}) {
        const int n = std::array{64, 48, 80, 95, 4}[(m + k) % 5];
        SCOPED_TRACE(testing::Message() << m << " rows, k " << k << ", terms " << terms << ", outputs " << n);
        const Int8Matrix w(n, k, &random), up(n, k, &random);
        std::vector<float> a(m * k), rotated(cpu::Int8Rotated(k)), scales(m);
        for (float& x : a) x = normal(random);
        std::vector<int8_t> tiles;
        const auto left_of = [&](int row, int rows) -> cpu::Int8Left {
          tiles.resize(cpu::Int8TiledSize(rows, k, terms));
          for (int t = 0; t < cpu::TilesOf(rows); ++t) {
            cpu::PackInt8Tiles(a.data() + row * k, k, rows, k, terms, t, rotated.data(), tiles.data(),
                               scales.data());
          }
          return {tiles.data(), scales.data(), terms, cpu::Int8TileStride(rows)};
        };
        const auto product = [&](MatrixUnit unit, const Int8Matrix& b, int row, int rows,
                                 Epilogue epilogue = Epilogue::kNone, std::vector<float> c = {}) {
          c.resize(rows * n, -1.0f);
          cpu::Int8TileLinear(unit, left_of(row, rows), rows, b.panels(), b.bias.data(), epilogue, c.data(),
                              n);
          return c;
        };
        const std::vector<float> c = product(MatrixUnit::kAmxModel, w, 0, m);
        for (int r = 0; r < m; r += m == 530 ? 23 : 1) {
          for (int j = 0; j < n; j += k == 1300 ? 7 : 1) {
            double sum = w.bias[j], size = std::abs(sum), integers = 0;
            for (int i = 0; i < k; ++i) {
              sum += w.at(j, i) * a[r * k + i];
              size += std::abs(w.at(j, i) * a[r * k + i]);
            }
            for (int i = 0; i < cpu::Int8Rotated(k); ++i) integers += std::abs(w.integer(j, i));
            const double half_steps = integers * w.scales[j] * scales[r] / 2;
            EXPECT_NEAR(sum, c[r * n + j], half_steps + size * 0x1p-19) << "row " << r << ", output " << j;
          }
        }
        const MatrixUnit unit = CpuHasAmx() ? MatrixUnit::kAmx : MatrixUnit::kAmxModel;
        for (bool spoiled : {false, true}) {
          if (spoiled) Spoil(&a, &random);
          const std::vector<float> all = product(MatrixUnit::kAmxModel, w, 0, m);
          for (MatrixUnit other : {unit, MatrixUnit::kVector}) {
            if (other == MatrixUnit::kVector && !CpuHasInt8Dot()) continue;
            ExpectSameBits(product(other, w, 0, m), all);
            for (int row : {0, m / 2, m - 1}) {
              const auto first = all.begin() + row * n;
              ExpectSameBits(product(other, w, row, 1), {first, first + n});
              const int rows = std::min(3, m - row);
              ExpectSameBits(product(other, w, row, rows), {first, first + rows * n});
            }
          }
          if (m == 1) continue;
          const std::vector<float> gated =
              product(unit, w, 0, m, Epilogue::kSiluGate, product(unit, up, 0, m));
          std::vector<float> at_once(m * n);
          cpu::Int8TileGated(unit, left_of(0, m), m, w.panels(), up.panels(), w.bias.data(), up.bias.data(),
                             at_once.data(), n);
          ExpectSameBits(gated, at_once);
        }
      }
    }
  }
}

// The longest rows of the largest values: sums of low bytes just fit.
TEST(TilesTest, Int8SumsOfTheMostInputsFit) {
  constexpr int kK = cpu::kMostInt8Depth;
  std::vector<float> x(kK, 1.0f), rotated(kK);
  std::vector<int8_t> panel(cpu::Int8TilePanelSize(kK));
  float scales[cpu::kPanel];
  for (int i = 0; i < kK; ++i) x[i] = i % 64 == 0 ? 1.0f : 0.0f;  // whose rotation is 1 everywhere
  cpu::PackInt8Panel(x.data(), kK, 1, kK, rotated.data(), panel.data(), scales);
  for (float last : {1.0f, -1.0f}) {
    std::vector<float> a = x;
    for (float& v : a) v *= last;
    std::vector<int8_t> tiles(cpu::Int8TiledSize(1, kK, 2));
    float row_scale, y = 0;
    cpu::PackInt8Tiles(a.data(), kK, 1, kK, 2, 0, rotated.data(), tiles.data(), &row_scale);
    for (MatrixUnit unit : {MatrixUnit::kAmxModel, MatrixUnit::kAmx, MatrixUnit::kVector}) {
      if (unit == MatrixUnit::kAmx && !CpuHasAmx()) continue;
      if (unit == MatrixUnit::kVector && !CpuHasInt8Dot()) continue;
      cpu::Int8TileLinear(unit, {tiles.data(), &row_scale, 2, cpu::Int8TileStride(1)}, 1,
                          {panel.data(), scales, 1, kK}, nullptr, Epilogue::kNone, &y, 1);
      EXPECT_NEAR(y, last * kK / 64, 1e-3);
    }
  }
}

// What the epilogue makes of the products is the same whether the tiles hand them on while they work on the
// next, or all at once; rows and columns beside them stay as they are.
TEST(TilesTest, EpiloguesOfBlocksAreThoseOfRows) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (int m : {1, 2, 16, 17, 33, 70}) {
    for (int k : {32, 96, 1300}) {  // more and fewer steps than rows are handed on
      const int n = 70 + m % 3 * 9, stride = n + 5;
      const int64_t panel = int64_t{cpu::TilePanelRows(k)} * cpu::kPanel;
      std::vector<float> a(m * k), w(k), before((m + 1) * stride);
      std::vector<uint16_t> weights(CeilDiv(n, cpu::kPanel) * panel), left(cpu::TiledSize(m, k, 1));
      for (auto* values : {&a, &before}) {
        for (float& x : *values) x = normal(random);
      }
      for (int j = 0; j < n; ++j) {
        for (float& x : w) x = normal(random);
        cpu::StoreColumn(w.data(), k, DType::kBF16, weights.data() + j / cpu::kPanel * panel,
                         j % cpu::kPanel);
      }
      for (int t = 0; t < cpu::TilesOf(m); ++t) cpu::PackTiles(a.data(), k, m, k, 1, t, left.data());
      const auto product = [&](MatrixUnit unit, Epilogue epilogue, std::vector<float>* y) {
        cpu::TileLinear(unit, left.data(), cpu::TileStride(m), m, 1, {weights.data(), DType::kBF16, n, k},
                        nullptr, epilogue, y->data(), stride);
      };
      for (MatrixUnit unit : {MatrixUnit::kAmxModel, MatrixUnit::kAmx}) {
        if (unit == MatrixUnit::kAmx && !CpuHasAmx()) continue;
        std::vector<float> products(m * stride);
        product(unit, Epilogue::kNone, &products);
        for (Epilogue epilogue :
             {Epilogue::kNone, Epilogue::kGelu, Epilogue::kAdd, Epilogue::kMultiply, Epilogue::kSiluGate}) {
          SCOPED_TRACE(testing::Message()
                       << m << " rows, k " << k << ", epilogue " << static_cast<int>(epilogue));
          std::vector<float> at_once = before, expected = before;
          product(unit, epilogue, &at_once);
          cpu::ApplyEpilogue(epilogue, products.data(), stride, m, n, expected.data(), stride);
          EXPECT_EQ(at_once, expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace sessa
