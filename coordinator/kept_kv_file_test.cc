#include "coordinator/kept_kv_file.h"

#include <stdlib.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "coordinator/block_manager.h"
#include "coordinator/kept_kv.h"
#include "coordinator/kept_kv_proto.h"
#include "coordinator/record_file.h"
#include "coordinator/step_plan.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// A folder of its own for each test.
std::string Folder() {
  std::string folder = absl::StrCat(::testing::TempDir(), "/kept_kv_XXXXXX");
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  return folder;
}

// Texts of two tenants; the longer one's first block is lost by a stage.
KeptKvOfModel Example() {
  BlockManager blocks(5, 2);
  const auto ann = blocks.Root("ann");
  const std::vector<int> ids = {blocks.Allocate(), blocks.Allocate()};
  const auto text = blocks.Publish(ids[0], ann, {1, 2}, 1);
  blocks.Lose({1, 2});
  blocks.Publish(ids[1], text, {3, 4}, 2);
  const int other = blocks.Allocate();
  blocks.Publish(other, blocks.Root("bob"), {1, 2}, 3);
  blocks.Release({other});
  blocks.Release(ids);
  KeptKv kept = {{}, "cpu-1/int8", true, std::move(blocks)};
  kept.stages = {{"a", 11, {0, 3, true, false}, 7},
                 {"b", 12, {3, 4, false, true}, 0}};
  return {"m", 99, std::move(kept)};
}

TEST(KeptKvFile, TheNextCoordinatorFindsWhatWasWrittenOnce) {
  const std::string folder = Folder();
  std::vector<KeptKvOfModel> all;
  all.push_back(Example());
  ASSERT_TRUE(WriteKeptKvFile(folder, all).ok());
  std::vector<KeptKvOfModel> read = TakeKeptKvFile(folder);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].model, "m");
  EXPECT_EQ(read[0].fingerprint, 99u);
  KeptKv& kept = read[0].kept;
  EXPECT_EQ(kept.numerics_id, "cpu-1/int8");
  EXPECT_TRUE(kept.keeps_boundary);
  ASSERT_EQ(kept.stages.size(), 2u);
  EXPECT_EQ(kept.stages[0].worker_id, "a");
  EXPECT_EQ(kept.stages[0].incarnation, 11);
  EXPECT_EQ(kept.stages[0].epoch, 7);
  EXPECT_EQ(kept.stages[1].range.layer_begin, 3);
  EXPECT_TRUE(kept.stages[1].range.has_head);

  BlockManager& blocks = kept.blocks;
  EXPECT_EQ(blocks.n_blocks(), 5);
  EXPECT_EQ(blocks.n_cached(), 3);
  EXPECT_EQ(blocks.n_free(), 5);
  const auto first = blocks.Find(blocks.Root("ann"), {1, 2});
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->lost_by, (StageSpan{1, 2}));
  const auto second = blocks.Find(first->prefix, {3, 4});
  ASSERT_TRUE(second.has_value());
  EXPECT_TRUE(second->lost_by.empty());
  const auto other = blocks.Find(blocks.Root("bob"), {1, 2});
  ASSERT_TRUE(other.has_value());
  EXPECT_NE(other->block_id, first->block_id);
  // Names are never used twice, and the least recently used one goes first.
  EXPECT_NE(blocks.Root("cid"), blocks.Root("ann"));
  EXPECT_NE(blocks.Root("cid"), second->prefix);
  blocks.Allocate();
  blocks.Allocate();
  blocks.Allocate();
  EXPECT_FALSE(blocks.Find(blocks.Root("bob"), {1, 2}).has_value());
  EXPECT_TRUE(blocks.Find(blocks.Root("ann"), {1, 2}).has_value());

  EXPECT_TRUE(TakeKeptKvFile(folder).empty());
}

TEST(KeptKvFile, ADamagedOneIsOfNoUseAndGone) {
  const std::string folder = Folder();
  const std::string path = absl::StrCat(folder, "/kept_kv.state");
  EXPECT_TRUE(TakeKeptKvFile(folder).empty());
  std::ofstream(path) << "TERNREC1 and something else, which is no record";
  EXPECT_TRUE(TakeKeptKvFile(folder).empty());
  EXPECT_FALSE(std::ifstream(path).good());
  ASSERT_TRUE(ReplaceRecordFile(folder, "kept_kv.state", "\xff\xff").ok());
  EXPECT_TRUE(TakeKeptKvFile(folder).empty());
  EXPECT_FALSE(std::ifstream(path).good());
}

BlockManager::State GoodState() { return Example().kept.blocks.ToState(); }

TEST(KeptKvFile, StatesThatNoBlocksCanHaveAreRefused) {
  ASSERT_TRUE(BlockManager::FromState(GoodState()).ok());
  const auto breaks = [](auto change) {
    BlockManager::State state = GoodState();
    change(&state);
    return absl::IsDataLoss(BlockManager::FromState(state).status());
  };
  using State = BlockManager::State;
  EXPECT_TRUE(breaks([](State* s) { s->n_blocks = -1; }));
  EXPECT_TRUE(breaks([](State* s) { s->block_size = 0; }));
  EXPECT_TRUE(breaks([](State* s) { s->n_blocks = 1; }));
  EXPECT_TRUE(breaks([](State* s) { s->known[0].block_id = -1; }));
  EXPECT_TRUE(
      breaks([](State* s) { s->known[0].block_id = s->known[1].block_id; }));
  EXPECT_TRUE(breaks([](State* s) { s->known[0].tokens.pop_back(); }));
  EXPECT_TRUE(breaks([](State* s) { s->known[0].prefix = 0; }));
  EXPECT_TRUE(
      breaks([](State* s) { s->known[0].prefix = s->known[1].prefix; }));
  EXPECT_TRUE(breaks([](State* s) { s->roots["x"] = s->roots["ann"]; }));
  EXPECT_TRUE(breaks([](State* s) { s->known[0].lost_by = {2, 1}; }));
  EXPECT_TRUE(breaks([](State* s) {
    s->known[0].parent = s->known[1].parent;
    s->known[0].tokens = s->known[1].tokens;
  }));
}

}  // namespace
}  // namespace tern
