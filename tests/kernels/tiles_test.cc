// The tile kernels of the CPU backend (kernels/cpu/tiles.h).
#include "kernels/cpu/tiles.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/convert.h"

namespace sessa {
namespace {

float ToBf16AndBack(float x) {
  const uint16_t rounded = RoundToBf16(x);
  return ToFloat(&rounded, 0, DType::kBF16);
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
        for (uint32_t bits : {0x00000001u, 0x807fffffu, 0x00400000u, 0x7f7fffffu, 0x7f800000u, 0xffc00000u})
          a[random() % a.size()] = std::bit_cast<float>(bits);
        for (uint32_t bits : {0x00010000u, 0x80700000u}) w[random() % w.size()] = std::bit_cast<float>(bits);
        const std::vector<float> odd[] = {product(MatrixUnit::kAmxModel), product(MatrixUnit::kAmx)};
        for (int i = 0; i < m * n; ++i) {
          if (std::isnan(odd[0][i])) {
            EXPECT_TRUE(std::isnan(odd[1][i])) << i;
          } else {
            EXPECT_EQ(std::bit_cast<uint32_t>(odd[0][i]), std::bit_cast<uint32_t>(odd[1][i])) << i;
          }
        }
      }
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
