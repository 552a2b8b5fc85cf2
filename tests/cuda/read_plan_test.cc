// How reads are cut up on the host: pure functions.
#include "kernels/cuda/read_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace sessa {
namespace {

TEST(DecodeBucketTest, GrowsByHalves) {
  std::vector<int> buckets;
  for (int n = 1; n <= cuda::kMaxDecodeBucket; ++n) {
    const int bucket = cuda::DecodeBucket(n);
    EXPECT_EQ(cuda::DecodeBucket(bucket), bucket) << n;
    EXPECT_GE(bucket, n);
    EXPECT_LE(bucket, n + n / 2);
    if (buckets.empty() || buckets.back() != bucket) buckets.push_back(bucket);
  }
  EXPECT_EQ(buckets,
            (std::vector<int>{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512}));
  EXPECT_EQ(cuda::DecodeBucket(513), 513);
}

// Every small tile is in one run, and no thread block has more to read than its share and one tile.
TEST(FewReadsTest, RunsAreEven) {
  for (int num_blocks : {1, 2, 3, 132, 264}) {
    for (int num_large : {0, 1, 32, 200, 264, 500, 5000}) {
      for (int num_small : {0, 1, 100, 2048, 30000}) {
        for (float large : {64.0f, 1024.0f}) {
          const float small = 64, total = num_large * large + num_small * small;
          const auto begin = [&](int i) {
            return cuda::BeginOfRun(i, num_blocks, num_large, large, num_small, small);
          };
          ASSERT_EQ(begin(0), 0);
          ASSERT_EQ(begin(num_blocks), num_small);
          for (int i = 0; i < num_blocks; ++i) {
            ASSERT_LE(begin(i), begin(i + 1));
            const int own = num_large / num_blocks + (i < num_large % num_blocks);
            ASSERT_LE(own * large + (begin(i + 1) - begin(i)) * small,
                      total / num_blocks + std::max(large, 2 * small))
                << num_blocks << " blocks, " << num_large << " large, " << num_small << " small, block " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sessa
