// The pages that rows will come to are in memory before their rows, those further on are not, and no byte
// changes.
#include "kernels/cpu/pages_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace sessa {
namespace {

constexpr int64_t kPages = 64, kBlockPages = 16;  // four blocks

int64_t PageBytes() { return 2 * sysconf(_SC_PAGESIZE); }
size_t BlockBytes(int num_tensors) { return num_tensors * kBlockPages * PageBytes(); }

// Without huge pages, so that what is in memory ends where a block does.
PagedTensor Tensor() {
  const size_t bytes = kPages * PageBytes();
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(data, MAP_FAILED);
  madvise(data, bytes, MADV_NOHUGEPAGE);
  PagedTensor tensor;
  tensor.num_pages = kPages;
  tensor.data = Buffer(data, bytes, [](void* p, size_t size) { munmap(p, size); });
  return tensor;
}

char* At(const PagedTensor& tensor, int64_t page) {
  return static_cast<char*>(tensor.data.data()) + page * PageBytes();
}

// How many pages of [from, to) are in memory, by their halves.
int64_t HalvesInMemory(const PagedTensor& tensor, int64_t from, int64_t to) {
  std::vector<unsigned char> there(2 * (to - from));
  EXPECT_EQ(mincore(At(tensor, from), (to - from) * PageBytes(), there.data()), 0);
  return std::count_if(there.begin(), there.end(), [](unsigned char half) { return (half & 1) != 0; });
}

void AwaitAll(const PagedTensor& tensor, int64_t from, int64_t to) {
  while (HalvesInMemory(tensor, from, to) < 2 * (to - from))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class PagesAheadTest : public testing::Test {
 protected:
  void SetUp() override {
    const PagedTensor tensor = Tensor();
    if (madvise(At(tensor, 0), PageBytes(), 23) != 0) GTEST_SKIP() << "this Linux has no MADV_POPULATE_WRITE";
  }
};

TEST_F(PagesAheadTest, TheNextBlockComesBeforeItsRowsAndNoFurtherOne) {
  const PagedTensor keys = Tensor(), values = Tensor();
  At(keys, kBlockPages + 1)[7] = 'x';
  PagesAhead ahead(BlockBytes(2));
  ahead.Add(keys);
  ahead.Add(values);
  ahead.Write(kBlockPages - 1);
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 0, 2 * kBlockPages);
  ahead.Write(0);  // the same block
  for (const PagedTensor* tensor : {&keys, &values})
    EXPECT_EQ(HalvesInMemory(*tensor, 2 * kBlockPages, kPages), 0);
  ahead.Write(kBlockPages);
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 2 * kBlockPages, 3 * kBlockPages);
  for (const PagedTensor* tensor : {&keys, &values})
    EXPECT_EQ(HalvesInMemory(*tensor, 3 * kBlockPages, kPages), 0);
  ahead.Write(kPages - 1);  // the last block has none after it
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 3 * kBlockPages, kPages);
  EXPECT_EQ(At(keys, kBlockPages + 1)[7], 'x');
}

TEST_F(PagesAheadTest, ATensorOfSomeOfThePages) {
  PagedTensor own = Tensor();
  own.first_page = 1000;  // which is in the middle of a block
  PagesAhead ahead(BlockBytes(1));
  ahead.Add(own);
  ahead.Write(3);  // another rank's
  ahead.Write(1000 + kPages - 1);
  const int64_t last_block = (1000 + kPages - 1) / kBlockPages * kBlockPages - 1000;
  AwaitAll(own, last_block, kPages);
  EXPECT_EQ(HalvesInMemory(own, 0, last_block), 0);
}

TEST_F(PagesAheadTest, TensorsMayGoFirstAndMayNotBeThere) {
  PagesAhead ahead(BlockBytes(1));
  ahead.Write(5);  // of a model that keeps none
  {
    const PagedTensor keys = Tensor();
    ahead.Add(keys);
    ahead.Write(0);
  }
  ahead.Write(kBlockPages);
}

}  // namespace
}  // namespace sessa
