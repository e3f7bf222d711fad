#include "worker/kv_cache.h"

#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

std::unique_ptr<KvCache> MakeCache(int n_blocks = 8, int context_length = 64) {
  auto cache = KvCache::Create({2, 2, 16, n_blocks, context_length});
  EXPECT_TRUE(cache.ok()) << cache.status();
  return std::move(cache).value();
}

TEST(KvCache, TablesGrowInOrder) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(7).ok());
  ASSERT_TRUE(cache->Extend(7, {5, 2}, 0, 20).ok());
  ASSERT_TRUE(cache->Extend(7, {}, 20, 12).ok());
  ASSERT_TRUE(cache->Extend(7, {0}, 32, 1).ok());
  EXPECT_EQ(std::vector<int32_t>(cache->BlockTable(7).begin(),
                                 cache->BlockTable(7).end()),
            (std::vector<int32_t>{5, 2, 0}));
  EXPECT_EQ(cache->blocks_in_use(), 3);
}

TEST(KvCache, ReleasedBlocksMayBeTakenAgain) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {3}, 0, 16).ok());
  ASSERT_TRUE(cache->Release(1).ok());
  EXPECT_EQ(cache->blocks_in_use(), 0);
  ASSERT_TRUE(cache->Open(2).ok());
  EXPECT_TRUE(cache->Extend(2, {3}, 0, 16).ok());
}

TEST(KvCache, ABlockHasOneHolder) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  ASSERT_TRUE(cache->Extend(1, {3}, 0, 1).ok());
  // All or none: block 4 is free again after the failure.
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(2, {4, 3}, 0, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(2, {4, 4}, 0, 1)));
  EXPECT_EQ(cache->blocks_in_use(), 1);
  EXPECT_TRUE(cache->Extend(2, {4}, 0, 1).ok());
}

TEST(KvCache, FullBlocksMayHaveSeveralHolders) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {5, 2}, 0, 32).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  ASSERT_TRUE(cache->TakeOver(2, {5, 2}).ok());
  ASSERT_TRUE(cache->Extend(2, {0}, 32, 3).ok());
  EXPECT_EQ(std::vector<int32_t>(cache->BlockTable(2).begin(),
                                 cache->BlockTable(2).end()),
            (std::vector<int32_t>{5, 2, 0}));
  EXPECT_EQ(cache->blocks_in_use(), 3);
  ASSERT_TRUE(cache->Release(1).ok());
  EXPECT_EQ(cache->blocks_in_use(), 3);
  // Still held by 2.
  ASSERT_TRUE(cache->Open(3).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(3, {5}, 0, 1)));
  ASSERT_TRUE(cache->Release(2).ok());
  EXPECT_EQ(cache->blocks_in_use(), 0);
}

TEST(KvCache, ABlockKeepsWhatItHoldsUntilItIsGivenOutAnew) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {5}, 0, 16).ok());
  ASSERT_TRUE(cache->Release(1).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  ASSERT_TRUE(cache->TakeOver(2, {5}).ok());
  ASSERT_TRUE(cache->Release(2).ok());
  ASSERT_TRUE(cache->Open(3).ok());
  ASSERT_TRUE(cache->Extend(3, {5}, 0, 15).ok());
  ASSERT_TRUE(cache->Open(4).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(4, {5})));
  ASSERT_TRUE(cache->Extend(3, {}, 15, 1).ok());
  EXPECT_TRUE(cache->TakeOver(4, {5}).ok());
}

TEST(KvCache, OnlyFullBlocksAfterFullBlocksAreTakenOver) {
  auto cache = MakeCache(8, 64);
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {5, 2}, 0, 20).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  EXPECT_TRUE(absl::IsNotFound(cache->TakeOver(9, {5})));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {5, 2})));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {5, 8})));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {-1})));
  EXPECT_EQ(cache->blocks_in_use(), 2) << "all or none";
  ASSERT_TRUE(cache->Extend(2, {0}, 0, 3).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {5})));
  ASSERT_TRUE(cache->Extend(2, {}, 3, 13).ok());
  EXPECT_TRUE(cache->TakeOver(2, {5}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(2, {1}, 16, 1)));
  EXPECT_TRUE(cache->Extend(2, {1}, 32, 1).ok());
}

TEST(KvCache, TakingOverKeepsToTheContext) {
  auto cache = MakeCache(8, 40);
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {5, 2}, 0, 32).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {5, 2, 5})));
  EXPECT_TRUE(cache->TakeOver(2, {5, 2}).ok());
}

TEST(KvCache, BlocksOutsideThePoolAreRefused) {
  auto cache = MakeCache(8);
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {-1}, 0, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {8}, 0, 1)));
  EXPECT_EQ(cache->blocks_in_use(), 0);
}

TEST(KvCache, PositionsHaveNoGaps) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {0}, 1, 1)));
  ASSERT_TRUE(cache->Extend(1, {0}, 0, 4).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {}, 3, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {}, 5, 1)));
  EXPECT_TRUE(cache->Extend(1, {}, 4, 1).ok());
}

TEST(KvCache, DraftsOfTheLastCallMayBeWrittenOver) {
  auto cache = MakeCache(8, 64);
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {0, 1}, 0, 18, 4).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {}, 13, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {}, 19, 1)));
  // Two of the drafts came true; the others are no content any more.
  ASSERT_TRUE(cache->Open(2).ok());
  EXPECT_TRUE(cache->TakeOver(2, {0}).ok());
  ASSERT_TRUE(cache->Release(2).ok());
  ASSERT_TRUE(cache->Extend(1, {}, 15, 1, 0).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {}, 15, 1)));
  ASSERT_TRUE(cache->Extend(1, {}, 16, 3, 2).ok());
  ASSERT_TRUE(cache->Extend(1, {}, 17, 15, 3).ok());
  // All did.
  ASSERT_TRUE(cache->Extend(1, {2}, 32, 1).ok());
  EXPECT_EQ(cache->blocks_in_use(), 3);
}

TEST(KvCache, ABlockWhoseDraftsWereGivenUpIsNotFull) {
  auto cache = MakeCache(8, 64);
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Open(2).ok());
  ASSERT_TRUE(cache->Extend(1, {0, 1}, 0, 20, 10).ok());
  ASSERT_TRUE(cache->Extend(1, {}, 10, 1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {0})));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(2, {1})));
  ASSERT_TRUE(cache->Extend(1, {}, 11, 5).ok());
  EXPECT_TRUE(cache->TakeOver(2, {0}).ok());
}

TEST(KvCache, BlocksAndContextMustSuffice) {
  auto cache = MakeCache(8, 40);
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {0}, 0, 17)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {0, 1, 2}, 0, 41)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {0, 1, 2, 3}, 0, 40)));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Extend(1, {0}, 0, 0)));
  EXPECT_TRUE(cache->Extend(1, {0, 1, 2}, 0, 40).ok());
}

TEST(KvCache, SequencesAreOpenedAndReleasedOnce) {
  auto cache = MakeCache();
  EXPECT_TRUE(absl::IsNotFound(cache->Release(1)));
  EXPECT_TRUE(absl::IsNotFound(cache->Extend(1, {0}, 0, 1)));
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(cache->Open(1)));
  ASSERT_TRUE(cache->Release(1).ok());
  EXPECT_TRUE(absl::IsNotFound(cache->Release(1)));
}

TEST(KvCache, ClearFreesEverything) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {0, 1}, 0, 20).ok());
  cache->Clear();
  EXPECT_EQ(cache->blocks_in_use(), 0);
  EXPECT_EQ(cache->sequence_count(), 0);
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(1, {0})));
  EXPECT_TRUE(cache->Extend(1, {0, 1}, 0, 20).ok());
}

// Every block of every layer is its own aligned piece of the pool.
TEST(KvCache, BlocksDoNotOverlap) {
  auto cache = MakeCache(3);
  const size_t bytes = KvBlockElements(2, 16) * sizeof(uint16_t);
  std::set<uintptr_t> begins;
  for (int layer = 0; layer < 2; ++layer) {
    for (int block = 0; block < 3; ++block) {
      const KvBlockView view = cache->Block(layer, block);
      begins.insert(reinterpret_cast<uintptr_t>(view.k));
      begins.insert(reinterpret_cast<uintptr_t>(view.v));
    }
  }
  ASSERT_EQ(begins.size(), 12u);
  EXPECT_EQ(cache->pool_bytes(), 12 * bytes);
  EXPECT_EQ(*begins.rbegin() - *begins.begin(), 11 * bytes);
  for (const uintptr_t begin : begins) EXPECT_EQ(begin % 64, 0u);
}

TEST(KvCache, WhatBlocksHoldOutlivesTheSequencesUntilItIsCleared) {
  auto cache = MakeCache();
  ASSERT_TRUE(cache->Open(1).ok());
  ASSERT_TRUE(cache->Extend(1, {5, 2}, 0, 20).ok());
  EXPECT_EQ(cache->TokenCount(1), 20);
  EXPECT_EQ(cache->extension_count(), 1);
  cache->ReleaseAll();
  EXPECT_EQ(cache->blocks_in_use(), 0);
  EXPECT_EQ(cache->sequence_count(), 0);
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(1, {2})));  // not full
  EXPECT_TRUE(cache->TakeOver(1, {5}).ok());
  EXPECT_EQ(cache->TokenCount(1), 16);
  EXPECT_EQ(cache->extension_count(), 1);
  cache->Clear();
  ASSERT_TRUE(cache->Open(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->TakeOver(1, {5})));
}

TEST(KvCache, TheBoundaryHasAPlaceForEachTokenOfEachBlock) {
  const KvCache::Shape shape = {2, 2, 16, 8, 64, /*boundary_size=*/32};
  auto cache = KvCache::Create(shape);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ((*cache)->Boundary(3) - (*cache)->Boundary(2), 16 * 32);
  EXPECT_EQ((*cache)->pool_bytes(), KvCache::PoolBytes(shape));
  KvCache::Shape without = shape;
  without.boundary_size = 0;
  EXPECT_EQ(KvCache::PoolBytes(shape) - KvCache::PoolBytes(without),
            8u * 16 * 32 * sizeof(float));
}

}  // namespace
}  // namespace tern
