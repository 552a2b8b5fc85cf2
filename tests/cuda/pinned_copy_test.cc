// What comes out of the device: small results through pinned memory, all of them by the next Synchronize.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/cuda/backend.h"
#include "tests/cuda/emulator.h"

namespace sessa {
namespace {

TEST(PinnedCopyTest, SmallResultsComeThroughPinnedMemory) {
  constexpr int kMany = 3000;  // take 64 bytes of pinned memory each: more than there are
  const auto backend = *MakeCudaBackend({});
  std::vector<float> values(1 << 20);
  std::iota(values.begin(), values.end(), 0.0f);
  const Buffer memory = *backend->Allocate(values.size() * sizeof(float));
  backend->CopyIn(values.data(), memory.size(), memory.data());
  for (int round = 0; round < 2; ++round) {
    const int before = emulator::counts().pageable_copies_out;
    std::vector<float> tokens(100);
    backend->CopyOut(memory.floats() + 5, 400, tokens.data());
    EXPECT_EQ(emulator::counts().pageable_copies_out, before);
    ASSERT_TRUE(backend->Synchronize().ok());
    EXPECT_EQ(tokens, std::vector<float>(values.begin() + 5, values.begin() + 105));
    std::vector<float> some(kMany), all(values.size());
    for (int i = 0; i < kMany; ++i) backend->CopyOut(memory.floats() + 2 * i, sizeof(float), &some[i]);
    backend->CopyOut(memory.data(), memory.size(), all.data());
    EXPECT_LT(emulator::counts().pageable_copies_out, before + kMany);
    ASSERT_TRUE(backend->Synchronize().ok());
    for (int i = 0; i < kMany; ++i) ASSERT_EQ(some[i], values[2 * i]) << i;
    EXPECT_EQ(all, values);
  }
}

}  // namespace
}  // namespace sessa
