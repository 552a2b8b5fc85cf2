// The pages that rows will come to are in memory before their rows, those further on are not, and no byte
// changes.
#include "kernels/cpu/pages_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/memory.h"

namespace sessa {
namespace {

constexpr int64_t kPageBytes = 64 << 10, kPages = 512;  // 32 MiB each
constexpr int64_t kBlockPages = 128;
constexpr size_t kBlockBytes = 2 * kBlockPages * kPageBytes;  // of two tensors

PagedTensor Tensor() {
  PagedTensor tensor;
  tensor.num_pages = kPages;
  auto memory = AllocateMemory(kPages * kPageBytes);
  EXPECT_TRUE(memory.ok()) << memory.status();
  tensor.data = *std::move(memory);
  return tensor;
}

char* At(const PagedTensor& tensor, int64_t page) {
  return static_cast<char*>(tensor.data.data()) + page * kPageBytes;
}

// How many of the system's pages of [from, to) are in memory.
int64_t InMemory(const PagedTensor& tensor, int64_t from, int64_t to) {
  std::vector<unsigned char> there((to - from) * kPageBytes / sysconf(_SC_PAGESIZE));
  EXPECT_EQ(mincore(At(tensor, from), (to - from) * kPageBytes, there.data()), 0);
  return std::count_if(there.begin(), there.end(), [](unsigned char page) { return (page & 1) != 0; });
}

void AwaitAll(const PagedTensor& tensor, int64_t from, int64_t to) {
  while (InMemory(tensor, from, to) < (to - from) * kPageBytes / sysconf(_SC_PAGESIZE))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(PagesAheadTest, TheNextBlockComesBeforeItsRowsAndNoFurtherOne) {
  const PagedTensor keys = Tensor(), values = Tensor();
  if (madvise(At(keys, 0), kPageBytes, 23) != 0) GTEST_SKIP() << "this Linux has no MADV_POPULATE_WRITE";
  At(keys, kBlockPages + 1)[7] = 'x';
  PagesAhead ahead(kBlockBytes);
  ahead.Add(keys);
  ahead.Add(values);
  ahead.Write(0);
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 0, 2 * kBlockPages);
  ahead.Write(kBlockPages - 1);  // the same block
  // A huge page may reach over a border, by less than a block.
  for (const PagedTensor* tensor : {&keys, &values}) EXPECT_EQ(InMemory(*tensor, 3 * kBlockPages, kPages), 0);
  ahead.Write(kBlockPages + 5);
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 2 * kBlockPages, 3 * kBlockPages);
  ahead.Write(kPages - 1);  // the last one has none after it
  for (const PagedTensor* tensor : {&keys, &values}) AwaitAll(*tensor, 3 * kBlockPages, kPages);
  EXPECT_EQ(At(keys, kBlockPages + 1)[7], 'x');
}

TEST(PagesAheadTest, ATensorOfSomeOfThePages) {
  PagedTensor own = Tensor();
  own.first_page = 1000;
  if (madvise(At(own, 0), kPageBytes, 23) != 0) GTEST_SKIP() << "this Linux has no MADV_POPULATE_WRITE";
  PagesAhead ahead(kBlockPages * kPageBytes);
  ahead.Add(own);
  ahead.Write(3);  // another rank's
  ahead.Write(1000 + kPages - 1);
  AwaitAll(own, kPages - 1, kPages);
  EXPECT_EQ(InMemory(own, kBlockPages, kPages / 2), 0);
}

TEST(PagesAheadTest, TensorsMayGoFirstAndMayNotBeThere) {
  PagesAhead ahead(kBlockBytes);
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
