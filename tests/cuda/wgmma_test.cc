// Warpgroup products (kernels/cuda/wgmma.h) on the emulator, through kernels that bring their operands as the
// real ones do, against plain products.
#include "kernels/cuda/wgmma.h"

#include <gtest/gtest.h>

#include <vector>

namespace sessa::cuda {
namespace {

constexpr int kDepth = 128, kGroups = 2, kM = kGroups * kWarpgroupRows;

enum Fault { kNone, kNoFence, kNoBegin, kNoWait, kReadsEarly, kOverwrites, kCopiesOver };

// Two warpgroups: d[kM][kN] = a[kM][kDepth] b, with b[kN][kDepth] or, kMnMajorB, b[kDepth][kN].
template <int kN, int kRowBytes, bool kMnMajorB, bool kRegistersA, Fault kFault>
void ProductKernel(const Bf16* a, const Bf16* b, float* d) {
  constexpr int kColumns = kRowBytes / 2, kRowsB = kMnMajorB ? kDepth : kN,
                kColumnsB = kMnMajorB ? kN : kDepth;
  Bf16* shared_a = static_cast<Bf16*>(DynamicShared());  // panels of kColumns, one after the other
  Bf16* shared_b = shared_a + kM * kDepth;
  const int thread = threadIdx.x, lane = thread % kWarpLanes, warp = thread / kWarpLanes;
  const auto load = [&](Bf16* to, const Bf16* from, int rows, int columns) {
    for (int i = thread; i < rows * columns / 8; i += kGroups * kWarpgroup) {
      const int row = i / (columns / 8), c = i % (columns / 8) * 8;
      CopyAsync(to + c / kColumns * rows * kColumns + SwizzledOffset<kRowBytes>(row, c % kColumns),
                from + i * 8, true);
    }
  };
  load(shared_a, a, kM, kDepth);
  load(shared_b, b, kRowsB, kColumnsB);
  CommitCopies();
  WaitForCopies<0>();
  if (kFault != kNoFence) FenceOperands();
  __syncthreads();
  const int first_row = thread / kWarpgroup * kWarpgroupRows, g = lane / 4, t = lane % 4;
  float sums[kN / 8][4] = {};
  if (kFault != kNoBegin) BeginProducts(sums);
  for (int k = 0; k < kDepth; k += 16) {
    const MatrixDescriptor y =
        kMnMajorB ? DescribeMnMajor<kRowBytes>(shared_b + k * kColumns, kRowsB * kRowBytes)
                  : DescribeKMajor<kRowBytes>(shared_b + k / kColumns * kRowsB * kColumns + k % kColumns);
    const Bf16* panel = shared_a + k / kColumns * kM * kColumns;
    if (kRegistersA) {
      unsigned x[4];
      for (int i = 0; i < 4; ++i) {
        const int row = warp * 16 + g + i % 2 * 8, c = k % kColumns + 2 * t + i / 2 * 8;
        const auto bits = [&](int column) -> unsigned {
          return panel[SwizzledOffset<kRowBytes>(row, column)].bits;
        };
        x[i] = bits(c) | bits(c + 1) << 16;
      }
      k == 0 ? Multiply<kN, kMnMajorB, false>(sums, x, y) : Multiply<kN, kMnMajorB>(sums, x, y);
    } else {
      const MatrixDescriptor x = DescribeKMajor<kRowBytes>(panel + first_row * kColumns + k % kColumns);
      k == 0 ? Multiply<kN, kMnMajorB, false>(sums, x, y) : Multiply<kN, kMnMajorB>(sums, x, y);
    }
  }
  CommitProducts();
  if (kFault == kNoWait) return;
  if (kFault == kOverwrites) {
    __syncthreads();
    shared_b[thread].bits = 0;
  }
  if (kFault == kCopiesOver) {
    __syncthreads();
    CopyAsync(shared_b + thread * 8, a, false);
    CommitCopies();
  }
  const auto write = [&] {
    for (int j = 0; j < kN / 8; ++j) {
      for (int e = 0; e < 4; ++e) d[(warp * 16 + g + e / 2 * 8) * kN + 8 * j + 2 * t + e % 2] = sums[j][e];
    }
  };
  if (kFault == kReadsEarly) write();
  WaitForProducts<0>(sums);
  if (kFault != kReadsEarly) write();
}

// Of four blocks, with copies and products early and late: how many results are wrong.
template <int kN, int kRowBytes, bool kMnMajorB, bool kRegistersA, Fault kFault = kNone>
int WrongProducts() {
  std::vector<Bf16> a(kM * kDepth), b(kN * kDepth), b_in_memory(kN * kDepth);
  for (size_t i = 0; i < a.size(); ++i) a[i] = RoundToBf16(static_cast<float>(i * 37 % 101) - 50);
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kDepth; ++k) {
      b[n * kDepth + k] = b_in_memory[kMnMajorB ? k * kN + n : n * kDepth + k] =
          RoundToBf16(static_cast<float>((n * kDepth + k) * 29 % 67) - 30);
    }
  }
  int wrong = 0;
  for (int block = 0; block < 4; ++block) {
    std::vector<float> d(kM * kN, NAN);
    Launch(nullptr, dim3(1), kGroups * kWarpgroup, (a.size() + b.size()) * sizeof(Bf16),
           ProductKernel<kN, kRowBytes, kMnMajorB, kRegistersA, kFault>, a.data(), b_in_memory.data(),
           d.data());
    for (int i = 0; i < kM; ++i) {
      for (int n = 0; n < kN; ++n) {
        float sum = 0;  // whole numbers: exact
        for (int k = 0; k < kDepth; ++k) sum += ToFloat(a[i * kDepth + k]) * ToFloat(b[n * kDepth + k]);
        wrong += !(d[i * kN + n] == sum);
      }
    }
  }
  return wrong;
}

template <int kRowBytes, bool kMnMajorB, bool kRegistersA>
void ExpectRightAtAllWidths() {
  EXPECT_EQ((WrongProducts<32, kRowBytes, kMnMajorB, kRegistersA>()), 0);
  EXPECT_EQ((WrongProducts<64, kRowBytes, kMnMajorB, kRegistersA>()), 0);
  EXPECT_EQ((WrongProducts<128, kRowBytes, kMnMajorB, kRegistersA>()), 0);
  EXPECT_EQ((WrongProducts<256, kRowBytes, kMnMajorB, kRegistersA>()), 0);
}

TEST(WgmmaTest, SharedAKMajorB) {
  ExpectRightAtAllWidths<128, false, false>();
  ExpectRightAtAllWidths<64, false, false>();
}
TEST(WgmmaTest, SharedAMnMajorB) {
  EXPECT_EQ((WrongProducts<64, 128, true, false>()), 0);
  EXPECT_EQ((WrongProducts<128, 128, true, false>()), 0);
  EXPECT_EQ((WrongProducts<256, 128, true, false>()), 0);
  ExpectRightAtAllWidths<64, true, false>();
}
TEST(WgmmaTest, RegistersAKMajorB) {
  ExpectRightAtAllWidths<128, false, true>();
  ExpectRightAtAllWidths<64, false, true>();
}
TEST(WgmmaTest, RegistersAMnMajorB) {
  EXPECT_EQ((WrongProducts<64, 128, true, true>()), 0);
  EXPECT_EQ((WrongProducts<128, 128, true, true>()), 0);
  EXPECT_EQ((WrongProducts<256, 128, true, true>()), 0);
  ExpectRightAtAllWidths<64, true, true>();
}

TEST(WgmmaTest, ReadingOrOverwritingEarlyShows) {
  EXPECT_GT((WrongProducts<32, 128, false, false, kReadsEarly>()), 0);
  EXPECT_GT((WrongProducts<32, 128, false, true, kReadsEarly>()), 0);
  EXPECT_GT((WrongProducts<32, 128, false, false, kOverwrites>()), 0);
  EXPECT_GT((WrongProducts<32, 128, false, false, kCopiesOver>()), 0);
}

TEST(WgmmaDeathTest, EndsWhatAGpuWouldNotForgive) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH((WrongProducts<32, 128, false, false, kNoFence>()), "that no FenceOperands followed");
  EXPECT_DEATH((WrongProducts<32, 128, false, false, kNoBegin>()), "without BeginProducts");
  EXPECT_DEATH((WrongProducts<32, 128, false, false, kNoWait>()), "ends before its products");
}

}  // namespace
}  // namespace sessa::cuda
