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
