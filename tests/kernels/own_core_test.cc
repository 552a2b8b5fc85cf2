// Threads that compute together have a core each, where there are just as many, and all others stay free.
#include "kernels/own_core.h"

#include <sched.h>

#include <atomic>
#include <set>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cpu/thread_pool.h"

namespace sessa {
namespace {

cpu_set_t Allowed() {
  cpu_set_t allowed;
  EXPECT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  return allowed;
}

// How many cores the i-th of so many threads may use, and the first of them.
std::pair<int, int> CoresOf(int i, int num_threads) {
  std::pair<int, int> cores;
  std::thread([&] {
    AskForOwnCore(i, num_threads);
    const cpu_set_t allowed = Allowed();
    cores.first = CPU_COUNT(&allowed);
    while (!CPU_ISSET(cores.second, &allowed)) ++cores.second;
  }).join();
  return cores;
}

TEST(OwnCoreTest, EachThreadHasOneWhereThereAreJustSoMany) {
  const cpu_set_t before = Allowed();
  const int num_cores = CPU_COUNT(&before);
  std::set<int> cores;
  for (int i = 0; i < num_cores; ++i) {
    const auto [count, core] = CoresOf(i, num_cores);
    EXPECT_EQ(count, 1);
    cores.insert(core);
  }
  EXPECT_EQ(static_cast<int>(cores.size()), num_cores);
  EXPECT_EQ(CoresOf(0, num_cores + 1).first, num_cores);
  if (num_cores > 1) {
    EXPECT_EQ(CoresOf(0, num_cores - 1).first, num_cores);
  }
  const cpu_set_t after = Allowed();
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(OwnCoreTest, ThePoolsThreadsHaveOneEachAndItsCallerIsFree) {
  const cpu_set_t before = Allowed();
  const int num_cores = CPU_COUNT(&before);
  if (num_cores == 1) GTEST_SKIP() << "one core";
  ThreadPool pool(num_cores);
  // An item waits for those of all other threads, so that each has one.
  std::atomic<int> begun{0}, bound{0};
  pool.ParallelFor(num_cores, [&](int, int thread) {
    begun.fetch_add(1);
    while (begun.load() < num_cores) std::this_thread::yield();
    const cpu_set_t allowed = Allowed();
    if (CPU_COUNT(&allowed) == (thread == 0 ? num_cores : 1)) bound.fetch_add(1);
  });
  EXPECT_EQ(bound.load(), num_cores);
}

}  // namespace
}  // namespace sessa
