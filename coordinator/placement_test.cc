#include "coordinator/placement.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/stage_plan.h"

namespace tern {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 8;
  config.hidden_size = 256;
  config.ffn_size = 512;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = 1000;
  config.context_length = 160;
  return config;
}

class PlacementTest : public ::testing::Test {
 protected:
  void AddWorker(const std::string& id, int64_t memory_bytes) {
    Worker worker;
    worker.registration.worker_id = id;
    worker.registration.address = id + ":1";
    worker.registration.memory_bytes = memory_bytes;
    workers_.push_back(worker);
  }
  absl::StatusOr<Placement> Place() {
    std::vector<const Worker*> candidates;
    for (const Worker& worker : workers_) candidates.push_back(&worker);
    return PlacePipeline(Config(), options_, candidates);
  }

  PlacementOptions options_;
  std::vector<Worker> workers_;
};

TEST_F(PlacementTest, TakesTheFirstWorkersInOrder) {
  options_.n_stages = 2;
  AddWorker("a", 1 << 30);
  AddWorker("b", 1 << 30);
  AddWorker("c", 1 << 30);
  const absl::StatusOr<Placement> placement = Place();
  ASSERT_TRUE(placement.ok()) << placement.status();
  ASSERT_EQ(placement->stages.size(), 2u);
  EXPECT_EQ(placement->stages[0].worker_id, "a");
  EXPECT_EQ(placement->stages[0].range.layer_begin, 0);
  EXPECT_TRUE(placement->stages[0].range.has_embedding);
  EXPECT_EQ(placement->stages[1].address, "b:1");
  EXPECT_EQ(placement->stages[1].range.layer_end, 8);
  EXPECT_TRUE(placement->stages[1].range.has_head);
}

TEST_F(PlacementTest, AutomaticCacheHoldsEverySequencesContext) {
  AddWorker("a", int64_t{1} << 40);
  options_.max_sequences = 3;
  EXPECT_EQ(Place()->kv_block_count, 3 * 160 / 16);
}

TEST_F(PlacementTest, AutomaticCacheShrinksToTheSmallestWorkersMemory) {
  options_.n_stages = 2;
  options_.max_sequences = 1000;
  AddWorker("a", 1 << 30);
  AddWorker("b", 16 << 20);
  const absl::StatusOr<Placement> placement = Place();
  ASSERT_TRUE(placement.ok()) << placement.status();
  const StageRange& range = placement->stages[1].range;
  const int kv_block_bytes =
      (range.layer_end - range.layer_begin) * 2 * 128 * 16 * 2;
  EXPECT_LE(placement->kv_block_count, (16 << 20) / kv_block_bytes);
  EXPECT_LT(placement->kv_block_count, 1000 * 160 / 16);
  EXPECT_GE(placement->kv_block_count, 160 / 16);
}

TEST_F(PlacementTest, SkipsAWorkerThatLacksMemory) {
  AddWorker("a", 1 << 10);
  AddWorker("b", 1 << 30);
  EXPECT_EQ(Place()->stages[0].worker_id, "b");
}

TEST_F(PlacementTest, WeightsCountAsTheWorkerPacksThem) {
  options_.kv_cache_tokens = 16;
  const StageRange all = {0, 8, true, true};
  const PackedBlocks dense = {48, 320};
  const auto needed = [&](const PackedBlocks& blocks) {
    const StageCost cost = CostOf(Config(), all, options_.head_int8,
                                  options_.head_row_bytes, 16, blocks);
    return cost.weight_bytes + cost.kv_block_bytes;
  };
  ASSERT_LT(needed(dense), needed({}) - 1000);
  // Of the memory, a tenth is left to buffers.
  AddWorker("a", (needed({}) - 1000) * 10 / 9);
  EXPECT_EQ(Place().status().code(), absl::StatusCode::kFailedPrecondition);
  workers_[0].registration.packed_blocks = dense;
  EXPECT_TRUE(Place().ok()) << Place().status();
}

TEST_F(PlacementTest, SaysWhatIsMissing) {
  options_.n_stages = 2;
  AddWorker("a", 1 << 30);
  EXPECT_EQ(Place().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Place().status().message().find("1 of 2 workers"),
            absl::string_view::npos);
  AddWorker("b", 1 << 10);
  EXPECT_EQ(Place().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Place().status().message().find("worker b"),
            absl::string_view::npos);
}

TEST_F(PlacementTest, AnAskedForCacheIsNeverMadeSmaller) {
  options_.kv_cache_tokens = 1000;
  AddWorker("a", 1 << 30);
  EXPECT_EQ(Place()->kv_block_count, 63);
  options_.kv_cache_tokens = int64_t{1} << 30;
  EXPECT_EQ(Place().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PlacementTest, MoreStagesThanLayersAreRefused) {
  options_.n_stages = 9;
  EXPECT_EQ(Place().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tern
