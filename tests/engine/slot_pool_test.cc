#include "engine/slot_pool.h"

#include "gtest/gtest.h"

namespace sessa {
namespace {

int32_t SnapshotOf(SlotPool* pool, int32_t page) {
  const int32_t slot = pool->Allocate();
  EXPECT_TRUE(pool->Attach(slot, page));
  return slot;
}

TEST(SlotPoolTest, FreeSlotsFirstThenTheSnapshotLongestNotNeeded) {
  SlotPool pool(4);
  const int32_t own = pool.Allocate();
  const int32_t a = SnapshotOf(&pool, 10), b = SnapshotOf(&pool, 11), c = SnapshotOf(&pool, 12);
  pool.Pin(a);
  pool.Unpin(a);  // needed last
  pool.Pin(c);
  ASSERT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
  EXPECT_EQ(pool.Allocate(), b);
  EXPECT_EQ(pool.Find(11), -1);
  EXPECT_EQ(pool.Find(10), a);
  EXPECT_EQ(pool.Allocate(), a);
  EXPECT_FALSE(pool.CanAllocate());  // c is pinned
  EXPECT_EQ(pool.Allocate(), -1);
  pool.Free(own);
  EXPECT_EQ(pool.Allocate(), own);
  pool.Unpin(c);
  EXPECT_EQ(pool.Allocate(), c);
  EXPECT_EQ(pool.num_in_use(), 4);
  EXPECT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
}

TEST(SlotPoolTest, APageHasOneSnapshotAndGivesItBack) {
  SlotPool pool(2);
  const int32_t first = SnapshotOf(&pool, 7), second = pool.Allocate();
  EXPECT_FALSE(pool.Attach(second, 7));
  EXPECT_EQ(pool.Find(7), first);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Detach(8);  // it has none
  pool.Detach(7);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.Find(7), -1);
  EXPECT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
}

TEST(SlotPoolTest, NoSlotsAtAll) {
  SlotPool pool(0);
  EXPECT_EQ(pool.Allocate(), -1);
  EXPECT_EQ(pool.Find(0), -1);
  pool.Detach(0);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

}  // namespace
}  // namespace sessa
