#include "coordinator/kept_kv.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/block_manager.h"
#include "coordinator/placement.h"
#include "coordinator/step_plan.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr int kBlocks = 4;

// With one known block, {1, 2}.
BlockManager Blocks() {
  BlockManager blocks(kBlocks, 2);
  const int id = blocks.Allocate();
  blocks.Publish(id, blocks.Root(""), {1, 2}, 1);
  blocks.Release({id});
  return blocks;
}

// Stages of two layers each, by these workers.
Placement Place(const std::vector<std::string>& workers,
                bool keeps_boundary = false) {
  Placement placement;
  placement.kv_block_count = kBlocks;
  placement.keeps_boundary = keeps_boundary;
  for (const std::string& worker : workers) {
    const int begin = 2 * static_cast<int>(placement.stages.size());
    placement.stages.push_back(
        {worker, "address", {begin, begin + 2, begin == 0, false}});
  }
  return placement;
}

KeptKv Kept(const std::vector<std::string>& workers, int64_t epoch = 7,
            bool keeps_boundary = false) {
  KeptKv kept = {{}, "cpu-1/int8", keeps_boundary, Blocks()};
  for (const PlacedStage& stage : Place(workers).stages) {
    kept.stages.push_back({stage.worker_id, 1, stage.range, epoch});
  }
  return kept;
}

class KeptKvsTest : public ::testing::Test {
 protected:
  // The epochs of its stages; empty when nothing is taken.
  std::vector<int64_t> Take(const Placement& placement,
                            const std::string& numerics_id = "cpu-1/int8") {
    std::vector<int64_t> epochs;
    std::optional<KeptKv> taken = kept_.Take(
        placement, numerics_id,
        [this](const std::string& worker) { return incarnations_[worker]; });
    if (!taken.has_value()) return epochs;
    for (const KeptKv::Stage& stage : taken->stages) {
      epochs.push_back(stage.epoch);
    }
    return epochs;
  }

  KeptKvs kept_;
  std::map<std::string, int64_t> incarnations_ = {
      {"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}};
};

TEST_F(KeptKvsTest, ASparesStageIsTheOnlyOneThatIsNotHeld) {
  kept_.Put(Kept({"a", "b", "c"}));
  EXPECT_EQ(Take(Place({"a", "d", "c"})), (std::vector<int64_t>{7, 0, 7}));
  EXPECT_EQ(Take(Place({"a", "d", "c"})), std::vector<int64_t>{});  // is taken
}

TEST_F(KeptKvsTest, ARestartedWorkerHoldsNothing) {
  kept_.Put(Kept({"a", "b"}));
  incarnations_["a"] = 2;
  EXPECT_EQ(Take(Place({"a", "b"})), (std::vector<int64_t>{0, 7}));
}

TEST_F(KeptKvsTest, OnlyTheSameStagesInTheSamePlacesCount) {
  const auto put = [this] {
    EXPECT_EQ(kept_.size(), 0u);
    kept_.Put(Kept({"a", "b"}, 7, /*keeps_boundary=*/true));
  };
  put();
  EXPECT_EQ(Take(Place({"b", "a"}, true)), std::vector<int64_t>{});
  put();
  EXPECT_EQ(Take(Place({"a", "b", "c"}, true)), std::vector<int64_t>{});
  put();
  EXPECT_EQ(Take(Place({"a", "b"}, true), "cpu-1/stored"),
            std::vector<int64_t>{});
  put();
  Placement fewer_blocks = Place({"a", "b"}, true);
  fewer_blocks.kv_block_count = kBlocks - 1;
  EXPECT_EQ(Take(fewer_blocks), std::vector<int64_t>{});
  put();
  Placement other_cut = Place({"a", "b"}, true);
  other_cut.stages[0].range.layer_end = other_cut.stages[1].range.layer_begin =
      3;
  EXPECT_EQ(Take(other_cut), std::vector<int64_t>{});
  put();
  // No room for the boundary any more.
  EXPECT_EQ(Take(Place({"a", "b"}, false)), std::vector<int64_t>{});
  put();
  Placement more_blocks = Place({"a", "b"}, true);
  more_blocks.kv_block_count = kBlocks + 1;
  EXPECT_EQ(Take(more_blocks), (std::vector<int64_t>{7, 7}));
}

TEST_F(KeptKvsTest, ThatOfMostWorkersIsTakenAndTheirOtherIsForgotten) {
  kept_.Put(Kept({"a", "b", "c"}, 5));
  kept_.Put(Kept({"a", "d", "c"}, 6));
  kept_.Put(Kept({"d", "b", "a"}, 4));
  EXPECT_EQ(Take(Place({"a", "d", "c"})), (std::vector<int64_t>{6, 6, 6}));
  // Of the others only b's part is left.
  EXPECT_EQ(kept_.size(), 2u);
  EXPECT_EQ(Take(Place({"x", "b", "y"})), (std::vector<int64_t>{0, 4, 0}));
  EXPECT_EQ(kept_.size(), 0u);
}

TEST_F(KeptKvsTest, WhatNobodyHoldsOrNothingHoldsIsNotRemembered) {
  kept_.Put(Kept({"a", "b"}, 0));
  EXPECT_EQ(kept_.size(), 0u);
  KeptKv empty = Kept({"a", "b"});
  empty.blocks = BlockManager(kBlocks, 2);
  kept_.Put(std::move(empty));
  EXPECT_EQ(kept_.size(), 0u);
  for (size_t i = 0; i < 2 * KeptKvs::kMax; ++i) kept_.Put(Kept({"a", "b"}));
  EXPECT_EQ(kept_.size(), KeptKvs::kMax);
}

StageSpan LostBy(std::optional<BlockManager> blocks) {
  if (!blocks.has_value()) return {-1, -1};
  return blocks->Find(blocks->Root(""), {1, 2})->lost_by;
}

TEST(RecoverBlocks, SaysWhoHasToComputeAgain) {
  const auto lost_by = [](bool keeps_boundary, std::vector<char> has_kept) {
    return LostBy(
        RecoverBlocks(Kept({"a", "b", "c", "d"}, 7, keeps_boundary), has_kept));
  };
  EXPECT_EQ(lost_by(false, {1, 1, 1, 1}), (StageSpan{0, 0}));
  EXPECT_EQ(lost_by(false, {0, 1, 1, 1}), (StageSpan{0, 1}));
  EXPECT_EQ(lost_by(false, {1, 1, 0, 1}), (StageSpan{0, 3}));
  EXPECT_EQ(lost_by(true, {1, 1, 0, 1}), (StageSpan{2, 3}));
  EXPECT_EQ(lost_by(true, {1, 0, 1, 0}), (StageSpan{1, 4}));
  EXPECT_EQ(lost_by(true, {0, 1, 1, 0}), (StageSpan{0, 4}));
  EXPECT_EQ(lost_by(true, {0, 0, 0, 0}), (StageSpan{-1, -1}));  // of no use
}

}  // namespace
}  // namespace tern
