#include "model/stage_plan.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "model/model_config.h"

namespace tern {
namespace {

// The shape of BitNet b1.58 2B-4T.
ModelConfig Large() {
  ModelConfig config;
  config.n_layers = 30;
  config.hidden_size = 2560;
  config.ffn_size = 6912;
  config.n_heads = 20;
  config.n_kv_heads = 5;
  config.head_dim = 128;
  config.vocab_size = 128256;
  return config;
}

ModelConfig Small(int n_layers, int vocab_size) {
  ModelConfig config;
  config.n_layers = n_layers;
  config.hidden_size = 64;
  config.ffn_size = 128;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = vocab_size;
  return config;
}

std::vector<int> Sizes(const std::vector<StageRange>& stages) {
  std::vector<int> sizes;
  for (const StageRange& s : stages) {
    sizes.push_back(s.layer_end - s.layer_begin);
  }
  return sizes;
}

TEST(StagePlan, CountsBytesOfAKnownModel) {
  const ModelConfig config = Large();
  EXPECT_EQ(LayerBytes(config) * 30, 2084044800 / 4);
  EXPECT_EQ(HeadBytes(config, true, 2), 329361408);  // rows of 2560 + 8
  EXPECT_EQ(HeadBytes(config, false, 2 * 2560), 2 * 328335360);
  EXPECT_EQ(HeadBytes(config, false, 4 * 2560), 4 * int64_t{328335360});
  // Q6_K, whose rows are blocks of 256.
  EXPECT_EQ(HeadBytes(config, false, 2560 / 256 * 210), 269337600);

  const StageCost all = CostOf(config, {0, 30, true, true}, true, 2, 64);
  EXPECT_EQ(all.weight_bytes, 2084044800 / 4 + 329361408 + 440320 * 4);
  EXPECT_EQ(all.kv_block_bytes, 30 * 2 * 640 * 64 * 2);
}

TEST(StagePlan, CountsBlocksAsTheWorkerPacksThem) {
  const PackedBlocks five_thirds = {48, 320};
  // 80 panels of q and o, 20 of each k and v, 216 of each gate and up, with 54
  // blocks of 2560 columns; 80 of down with 144 of 6912.
  const int64_t layer = ((80 * 2 + 20 * 2 + 216 * 2) * 54 + 80 * 144) * 320;
  EXPECT_EQ(LayerBytes(Large(), five_thirds), layer);
  const StageCost all =
      CostOf(Large(), {0, 30, true, true}, true, 2, 64, five_thirds);
  EXPECT_EQ(all.weight_bytes, 30 * layer + 329361408 + 440320 * 4);
  // A lighter layer makes the head's stage the smaller one.
  const auto plan = PlanStages(Large(), 2, true, 2, five_thirds);
  ASSERT_TRUE(plan.ok());
  const auto plan_2bit = PlanStages(Large(), 2, true, 2);
  EXPECT_GT(Sizes(*plan)[0], Sizes(*plan_2bit)[0]);
}

TEST(StagePlan, RoundsRowsUpToPanels) {
  ModelConfig config = Small(1, 300);
  config.n_kv_heads = 1;  // 16 rows, kept as 32
  ModelConfig wider = config;
  wider.n_kv_heads = 2;
  EXPECT_EQ(LayerBytes(config), LayerBytes(wider));
}

TEST(StagePlan, SubNormsCount) {
  ModelConfig without = Small(1, 300);
  without.has_sub_norms = false;
  const StageRange stage{0, 1, true, false};
  EXPECT_EQ(CostOf(Small(1, 300), stage, true, 2, 64).weight_bytes -
                CostOf(without, stage, true, 2, 64).weight_bytes,
            (64 + 128) * 4);
}

TEST(StagePlan, GivesTheHeadItsShareOfWork) {
  auto plan = PlanStages(Large(), 2, /*head_int8=*/true, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Sizes(*plan), (std::vector<int>{24, 6}));
  // Twice the bytes: nearly the work of all layers.
  EXPECT_EQ(Sizes(*PlanStages(Large(), 2, /*head_int8=*/false, 2 * 2560)),
            (std::vector<int>{29, 1}));
}

TEST(StagePlan, OneStageHasEverything) {
  auto plan = PlanStages(Small(3, 300), 1, true, 2);
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->size(), 1u);
  EXPECT_EQ((*plan)[0].layer_begin, 0);
  EXPECT_EQ((*plan)[0].layer_end, 3);
  EXPECT_TRUE((*plan)[0].has_embedding);
  EXPECT_TRUE((*plan)[0].has_head);
}

TEST(StagePlan, RefusesImpossibleCuts) {
  for (int n_stages : {-1, 0, 4}) {
    EXPECT_EQ(PlanStages(Small(3, 300), n_stages, true, 2).status().code(),
              absl::StatusCode::kInvalidArgument)
        << n_stages;
  }
}

// Every cut of up to 9 layers, heads from nothing to more than all layers.
TEST(StagePlan, EqualsTheBestOfAllCuts) {
  int n_cases = 0;
  for (int n_layers = 1; n_layers <= 9; ++n_layers) {
    for (int vocab_size : {1, 100, 150, 300, 500, 1000, 1500, 5000}) {
      const ModelConfig config = Small(n_layers, vocab_size);
      for (int n_stages = 1; n_stages <= n_layers; ++n_stages) {
        // All compositions of n_layers into n_stages parts, largest parts
        // first, so that the first best one is the one wanted.
        std::vector<int> best, sizes(n_stages);
        int64_t best_bytes = -1;
        const std::function<void(int, int)> walk = [&](int stage, int left) {
          const bool is_last = stage == n_stages - 1;
          if (is_last) {
            sizes[stage] = left;
            int64_t largest = 0;
            for (int s = 0; s < n_stages; ++s) {
              const StageRange range{0, sizes[s], s == 0, s == n_stages - 1};
              largest = std::max(
                  largest, CostOf(config, range, true, 2, 64).weight_bytes);
            }
            if (best_bytes < 0 || largest < best_bytes) {
              best_bytes = largest;
              best = sizes;
            }
            return;
          }
          for (int n = left - (n_stages - 1 - stage); n >= 1; --n) {
            sizes[stage] = n;
            walk(stage + 1, left - n);
          }
        };
        walk(0, n_layers);

        auto plan = PlanStages(config, n_stages, true, 2);
        ASSERT_TRUE(plan.ok()) << plan.status();
        ASSERT_EQ(Sizes(*plan), best) << n_layers << " layers, " << n_stages
                                      << " stages, vocabulary " << vocab_size;
        for (int s = 0; s < n_stages; ++s) {
          const StageRange& range = (*plan)[s];
          EXPECT_EQ(range.layer_begin, s == 0 ? 0 : (*plan)[s - 1].layer_end);
          EXPECT_EQ(range.has_embedding, s == 0);
          EXPECT_EQ(range.has_head, s == n_stages - 1);
        }
        ++n_cases;
      }
    }
  }
  EXPECT_EQ(n_cases, 45 * 8);
}

}  // namespace
}  // namespace tern
