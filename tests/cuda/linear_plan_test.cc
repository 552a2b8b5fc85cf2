// How linears are cut up, and what becomes of one that the library has no algorithm for.
#include "kernels/cuda/linear_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/backend.h"
#include "tests/cuda/emulator.h"
#include "tests/tensor_view.h"

namespace sessa {
namespace {

using cuda::LinearPath;
using cuda::LinearPlan;

LinearPlan Plan(int rows, int k, int num_tiles, DType dtype = DType::kBF16, bool tensor_cores = true) {
  return cuda::PlanLinear(rows, k, num_tiles, dtype, tensor_cores);
}

TEST(LinearPlanTest, PathsByRowsAndWeights) {
  EXPECT_EQ(Plan(1, 512, 8).path, LinearPath::kOneRow);
  EXPECT_EQ(Plan(8, 512, 8).path, LinearPath::kFewRows);
  EXPECT_EQ(Plan(9, 512, 8).path, LinearPath::kTensorCores);
  EXPECT_EQ(Plan(64, 512, 8).path, LinearPath::kTensorCores);
  EXPECT_EQ(Plan(65, 512, 8).path, LinearPath::kManyRows);
  EXPECT_EQ(Plan(9, 512, 8, DType::kF32).path, LinearPath::kManyRows);
  EXPECT_EQ(Plan(9, 512, 8, DType::kBF16, /*tensor_cores=*/false).path, LinearPath::kManyRows);
}

// The order of a row's sum must not depend on the rows beside it, and every dimension is in one split.
TEST(LinearPlanTest, SplitsCoverKWhateverTheRows) {
  for (int k : {2, 64, 255, 256, 600, 1024, 4096, 11008, 32768}) {
    for (int num_tiles : {1, 2, 16, 64, 132, 224, 500, 2344}) {
      for (bool tensor_cores : {true, false}) {
        const LinearPlan first = Plan(9, k, num_tiles, DType::kBF16, tensor_cores);
        for (int rows = 9; rows <= 64; ++rows) {
          const LinearPlan plan = Plan(rows, k, num_tiles, DType::kBF16, tensor_cores);
          EXPECT_EQ(plan.split, first.split);
          EXPECT_EQ(plan.split % 64, 0);
          EXPECT_EQ(plan.num_splits, (k + plan.split - 1) / plan.split);
          EXPECT_GE(plan.block_rows * plan.num_row_blocks, rows);
          EXPECT_EQ(plan.num_floats,
                    plan.num_splits == 1
                        ? 0
                        : int64_t{64} * plan.block_rows * plan.num_row_blocks * num_tiles * plan.num_splits);
          EXPECT_EQ(plan.num_counters, int64_t{plan.num_row_blocks} * num_tiles);
        }
      }
    }
  }
}

// Shape C's projections (q, k, v, q_b, k_b and more: 14336 columns) by 48 rows were 8 launches once, each of
// which read all weights.
TEST(LinearPlanTest, RowsOfADecodeBatchReadTheWeightsOnce) {
  for (int D : {1024, 2048, 4096}) {
    for (int columns : {D, 2 * D, 7 * D / 2, 4 * D, 32000}) {
      for (int rows : {9, 16, 17, 48, 63}) {
        const int num_tiles = CeilDiv(columns, cuda::kTile);
        EXPECT_EQ(cuda::LinearRowsAtOnce(rows, D, num_tiles, DType::kBF16, true), rows);
        const LinearPlan plan = Plan(rows, D, num_tiles);
        EXPECT_EQ(plan.block_rows, RoundUp(rows, 16));
        EXPECT_LE(plan.num_floats, int64_t{8} << 20) << "beyond the L2 cache: D " << D << ", " << columns;
        // Few tiles are split so that they fill an H100 as far as splits of 256 can.
        EXPECT_GE(num_tiles * plan.num_splits, std::min(132, num_tiles * D / 256)) << D << " " << columns;
        // Where dot products take them, one block has all of the rows, so it reads the weights once too.
        EXPECT_EQ(cuda::LinearRowsAtOnce(rows, D, num_tiles, DType::kBF16, false), rows);
      }
    }
  }
}

TEST(LinearPlanTest, ManyRowsGoByWholeBlocks) {
  for (int rows : {65, 128, 130, 200, 2048}) {
    EXPECT_EQ(cuda::LinearRowsAtOnce(rows, 4096, 64, DType::kBF16, true), 64);
    const int at_once = cuda::LinearRowsAtOnce(rows, 4096, 64, DType::kF32, false);
    EXPECT_TRUE(at_once == rows || at_once % 64 == 0) << at_once;
    EXPECT_GE(at_once, 64);
    EXPECT_LE(Plan(at_once, 4096, 64, DType::kF32, false).num_floats, int64_t{8} << 20);
  }
  EXPECT_EQ(cuda::LinearRowsAtOnce(130, 64, 1, DType::kF32, false), 130);
}

// A linear whose shape the library refuses is as right as the others: 63 rows and 64 beside each other.
TEST(RefusedProductTest, KernelsOfOurOwnTakeItsPlace) {
  constexpr int k = 300, n = 70;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto values = [&](size_t count) {
    std::vector<float> v(count);
    for (float& x : v) x = normal(random);
    return v;
  };
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    const auto backend = *MakeCudaBackend({});
    const auto weight = values(n * k), bias = values(n), scale = values(k);
    const TensorView bias_view = ViewOf(bias);
    const LinearWeights w = *backend->MakeLinear(ViewOf(weight, {n, k}), &bias_view, dtype);
    const Buffer norm = *backend->MakeTable(ViewOf(scale), DType::kF32);
    for (int rows : {64, 70, 200}) {
      const auto x = values(rows * k);
      const Buffer in = *backend->Allocate(x.size() * 4), out = *backend->Allocate(rows * n * 4);
      backend->CopyIn(x.data(), in.size(), in.data());
      const auto run = [&](bool refuse, bool normed) {
        emulator::RefuseProducts(refuse);
        std::vector<float> y(rows * n, 1);
        backend->CopyIn(y.data(), out.size(), out.data());
        const LinearCall call{&w, {out.floats(), rows, n, n}, Epilogue::kAdd};
        const Matrix from{in.floats(), rows, k, k};
        const Norm layer_norm{Norm::Kind::kLayer, &norm, &norm, 1e-5f};
        backend->Linear(from, normed ? layer_norm : Norm{}, {&call, 1});
        backend->CopyOut(out.data(), out.size(), y.data());
        EXPECT_TRUE(backend->Synchronize().ok());
        emulator::RefuseProducts(false);
        return y;
      };
      for (bool normed : {false, true}) {
        const auto library = run(false, normed), own = run(true, normed);
        float largest = 0;
        for (float y : library) largest = std::max(largest, std::abs(y));
        for (size_t i = 0; i < own.size(); ++i)
          ASSERT_NEAR(own[i], library[i], (dtype == DType::kBF16 ? 5e-3f : 2e-6f) * largest)
              << rows << " rows, at " << i;
      }
    }
  }
}

}  // namespace
}  // namespace sessa
