#include "coordinator/block_manager.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(BlockManager, RoundsTokensUpToBlocks) {
  BlockManager blocks(4, 16);
  EXPECT_EQ(blocks.BlocksFor(0), 0);
  EXPECT_EQ(blocks.BlocksFor(1), 1);
  EXPECT_EQ(blocks.BlocksFor(16), 1);
  EXPECT_EQ(blocks.BlocksFor(17), 2);
}

TEST(BlockManager, GivesEachBlockOutOnce) {
  BlockManager blocks(5, 16);
  std::set<int> ids;
  while (blocks.n_free() > 0) ids.insert(blocks.Allocate());
  EXPECT_EQ(ids, (std::set<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(blocks.n_in_use(), 5);
}

TEST(BlockManager, SharedBlockIsFreedWithItsLastOwner) {
  BlockManager blocks(2, 16);
  const std::vector<int> mine = {blocks.Allocate(), blocks.Allocate()};
  blocks.AddReference(mine[0]);
  blocks.Release(mine);
  EXPECT_EQ(blocks.n_in_use(), 1);
  blocks.Release({mine[0]});
  EXPECT_EQ(blocks.n_in_use(), 0);
}

TEST(BlockManager, ReusesTheBlockFreedLast) {
  BlockManager blocks(3, 16);
  const std::vector<int> ids = {blocks.Allocate(), blocks.Allocate()};
  blocks.Release(ids);
  EXPECT_EQ(blocks.Allocate(), ids[0]);
}

// A pipeline is formed anew: what its steps were still to compute is unknown.
TEST(BlockManager, AnewOnlyWhatWasComputedIsKnown) {
  BlockManager blocks(4, 2);
  const auto root = blocks.Root("");
  const std::vector<int> ids = {blocks.Allocate(), blocks.Allocate(),
                                blocks.Allocate()};
  const auto a = blocks.Publish(ids[0], root, {1, 2}, 7);
  const auto b = blocks.Publish(ids[1], a, {3, 4}, 8);
  blocks.Publish(ids[2], b, {5, 6}, 9);
  blocks.Release(ids);
  blocks.StartAnew(8);
  ASSERT_TRUE(blocks.Find(root, {1, 2}).has_value());
  EXPECT_EQ(blocks.Find(root, {1, 2})->filled_in, 0);
  EXPECT_TRUE(blocks.Find(a, {3, 4}).has_value());
  EXPECT_FALSE(blocks.Find(b, {5, 6}).has_value());
  EXPECT_EQ(blocks.n_cached(), 2);
  EXPECT_EQ(blocks.n_free(), 4);
}

TEST(BlockManager, SaysWhoHasLostABlockUntilItIsRefilled) {
  BlockManager blocks(3, 2);
  const auto root = blocks.Root("");
  const int first = blocks.Allocate(), second = blocks.Allocate();
  const auto a = blocks.Publish(first, root, {1, 2}, 1);
  blocks.Publish(second, a, {3, 4}, 1);
  EXPECT_TRUE(blocks.Find(root, {1, 2})->lost_by.empty());
  blocks.Lose({2, 3});
  blocks.Refill(first, 5);
  EXPECT_TRUE(blocks.Find(root, {1, 2})->lost_by.empty());
  EXPECT_EQ(blocks.Find(root, {1, 2})->filled_in, 5);
  EXPECT_EQ(blocks.Find(a, {3, 4})->lost_by, (StageSpan{2, 3}));
  // Another stage is lost before the second is refilled.
  blocks.Lose({0, 1});
  EXPECT_EQ(blocks.Find(root, {1, 2})->lost_by, (StageSpan{0, 1}));
  EXPECT_EQ(blocks.Find(a, {3, 4})->lost_by, (StageSpan{0, 3}));
  // Whoever gets a block next owes nothing.
  blocks.Release({first, second});
  while (blocks.n_free() > 0) {
    const int id = blocks.Allocate();
    blocks.Publish(id, root, {id, id}, 1);
    EXPECT_TRUE(blocks.Find(root, {id, id})->lost_by.empty());
  }
}

TEST(BlockManagerDeathTest, DoubleFreeCrashes) {
  BlockManager blocks(2, 16);
  const int id = blocks.Allocate();
  blocks.Release({id});
  EXPECT_DEATH(blocks.Release({id}), "free already");
}

TEST(BlockManagerDeathTest, AllocatingFromNothingCrashes) {
  BlockManager blocks(0, 16);
  EXPECT_DEATH(blocks.Allocate(), "no free KV block");
}

}  // namespace
}  // namespace tern
