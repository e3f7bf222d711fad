#include "bench/mock_stage.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/step.h"
#include "worker/step_limits.h"

namespace tern {
namespace {

constexpr int kVocab = 50;

StepLimits Limits() {
  return {"model",
          "model/0",
          /*epoch=*/1,
          "mock/int8",
          kVocab,
          /*context_length=*/64,
          /*kv_block_count=*/4,
          /*max_step_tokens=*/64,
          /*is_last_stage=*/true};
}

std::unique_ptr<MockStage> Make(const MockStage::Options& options,
                                const StepLimits& limits = Limits()) {
  absl::StatusOr<std::unique_ptr<MockStage>> stage =
      MockStage::Create(options, limits);
  EXPECT_TRUE(stage.ok()) << stage.status();
  return *std::move(stage);
}

SequenceSetup Opening(int64_t id, uint64_t seed, int prompt_tokens) {
  SequenceSetup setup{id, {}};
  setup.sampler.seed = seed;
  setup.sampler.prompt_token_count = prompt_tokens;
  setup.sampler.stop_token_ids = {0};
  return setup;
}

StepRow Row(int64_t id, int position, int n_tokens,
            std::vector<int32_t> new_blocks, bool samples = true) {
  return {id, position, std::vector<int32_t>(n_tokens, 1),
          std::move(new_blocks), samples};
}

// Takes the first block over, full.
StepRow TakingOver(int64_t id, std::vector<int32_t> blocks, int position) {
  StepRow row = Row(id, position, 2, std::move(blocks));
  row.taken_over_block_count = 1;
  return row;
}

TEST(CostModel, AStepIsASumOfStepTokensAndContext) {
  const CostModel cost = {absl::Microseconds(1000), absl::Microseconds(10),
                          absl::Nanoseconds(100)};
  StepPlan plan;
  plan.rows = {Row(1, 0, 4, {}), Row(2, 9, 1, {})};
  // 4 + 1 tokens; they attend to 1 + 2 + 3 + 4 and to 10 positions.
  const StepWork work = WorkOf(plan);
  EXPECT_EQ(work.n_tokens, 5);
  EXPECT_EQ(work.n_context, 20);
  EXPECT_EQ(StepTime(cost, work, 1), absl::Microseconds(1000 + 50 + 2));
  EXPECT_EQ(StepTime(cost, work, 0.25), absl::Microseconds(263));
}

TEST(CostModel, AStepWithoutRowsTakesNoTime) {
  const CostModel cost = {absl::Seconds(1), absl::Seconds(1), absl::Seconds(1)};
  EXPECT_EQ(StepTime(cost, WorkOf(StepPlan()), 1), absl::ZeroDuration());
}

TEST(MockStage, ReportsTheTimeOfItsShare) {
  MockStage::Options options;
  options.cost.per_step = absl::Microseconds(100);
  options.share = 0.5;
  const auto stage = Make(options);
  const auto outcome =
      stage->Run({1, {}, {Opening(1, 7, 3)}, {Row(1, 0, 3, {2})}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->result.compute_ns, 50000);
  EXPECT_EQ(outcome->n_tokens, 3);
  EXPECT_EQ(outcome->result.blocks_in_use, 1);
}

// Seed and position decide: another run id, another chunking, the same tokens.
TEST(MockStage, AReplayGivesTheSameTokens) {
  std::vector<int32_t> tokens;
  const auto first = Make({});
  StepPlan plan = {1, {}, {Opening(1, 7, 3)}, {Row(1, 0, 3, {0})}};
  for (int step = 1; step <= 5; ++step) {
    const auto outcome = first->Run(plan);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    ASSERT_EQ(outcome->result.sampled.size(), 1);
    EXPECT_EQ(outcome->result.sampled[0].position, 2 + step);
    tokens.push_back(outcome->result.sampled[0].token_id);
    plan = {step + 1, {}, {}, {Row(1, 2 + step, 1, {})}};
  }
  const auto second = Make({});
  const auto replayed =
      second->Run({1, {}, {Opening(9, 7, 3)}, {Row(9, 0, 7, {3})}});
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_EQ(replayed->result.sampled[0].token_id, tokens[4]);

  const auto other = Make({});
  const auto seeded =
      other->Run({1, {}, {Opening(9, 8, 3)}, {Row(9, 0, 7, {3})}});
  ASSERT_TRUE(seeded.ok()) << seeded.status();
  EXPECT_NE(seeded->result.sampled[0].token_id, tokens[4]);
}

TEST(MockStage, StopsNoAnswerUnlessAsked) {
  StepLimits limits = Limits();
  limits.vocab_size = 2;  // token 0 stops
  const auto endless = Make({}, limits);
  MockStage::Options options;
  options.answer_tokens = 3;
  const auto ending = Make(options, limits);
  StepPlan plan = {1, {}, {Opening(1, 7, 2)}, {Row(1, 0, 2, {0})}};
  for (int n_output = 1; n_output <= 10; ++n_output) {
    const auto a = endless->Run(plan);
    const auto b = ending->Run(plan);
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    EXPECT_EQ(a->result.sampled[0].token_id, 1);
    EXPECT_EQ(b->result.sampled[0].token_id, n_output < 3 ? 1 : 0);
    plan = {n_output + 1, {}, {}, {Row(1, n_output + 1, 1, {})}};
  }
}

TEST(MockStage, OnlyTheLastStageSamples) {
  StepLimits limits = Limits();
  limits.is_last_stage = false;
  const auto stage = Make({}, limits);
  const auto outcome =
      stage->Run({1, {}, {Opening(1, 7, 2)}, {Row(1, 0, 2, {0})}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_TRUE(outcome->result.sampled.empty());
}

TEST(MockStage, ScoresPrompts) {
  const auto stage = Make({});
  SequenceSetup setup = Opening(1, 5, 4);
  setup.sampler.prompt_logprobs = 2;
  StepRow row = Row(1, 0, 3, {0}, false);
  row.scored_tokens = {1, 1, 1};
  StepRow last = Row(1, 3, 2, {});
  last.scored_tokens = {1};
  auto outcome = stage->Run({1, {}, {setup}, {row}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome->result.scored.size(), 1u);
  EXPECT_EQ(outcome->result.scored[0].position, 1);
  ASSERT_EQ(outcome->result.scored[0].tokens.size(), 3u);
  EXPECT_EQ(outcome->result.scored[0].tokens[2].alternatives.size(), 2u);
  outcome = stage->Run({2, {}, {}, {last}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome->result.scored.size(), 1u);
  EXPECT_EQ(outcome->result.scored[0].position, 4);
  EXPECT_EQ(outcome->result.scored[0].tokens.size(), 1u);
  EXPECT_EQ(outcome->result.sampled.size(), 1u);
}

TEST(MockStage, TakesFullBlocksOver) {
  const auto stage = Make({});
  ASSERT_TRUE(
      stage->Run({1, {}, {Opening(1, 7, 20)}, {Row(1, 0, 20, {0, 1})}}).ok());
  const auto outcome =
      stage->Run({2, {}, {Opening(2, 7, 18)}, {TakingOver(2, {0, 2}, 16)}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->n_tokens, 2);
  EXPECT_EQ(outcome->result.blocks_in_use, 3);
}

TEST(MockStage, RefusesWhatARealStageRefuses) {
  const StepPlan start = {
      1, {}, {Opening(1, 7, 3), Opening(2, 7, 3)}, {Row(1, 0, 3, {0})}};
  const struct {
    const char* what;
    StepPlan plan;
  } kWrong[] = {
      {"a step left out", {3, {}, {}, {Row(1, 3, 1, {})}}},
      {"a position left out", {2, {}, {}, {Row(1, 4, 1, {})}}},
      {"a block of another's", {2, {}, {}, {Row(2, 0, 3, {0})}}},
      {"too few blocks", {2, {}, {}, {Row(1, 3, 14, {})}}},
      {"an unknown sequence", {2, {}, {}, {Row(3, 0, 1, {1})}}},
      {"a part of a block taken over", {2, {}, {}, {TakingOver(2, {0}, 16)}}},
      {"an unknown release", {2, {3}, {}, {}}},
      {"a second opening", {2, {}, {Opening(1, 7, 3)}, {}}},
  };
  for (const auto& wrong : kWrong) {
    const auto stage = Make({});
    ASSERT_TRUE(stage->Run(start).ok());
    EXPECT_FALSE(stage->Run(wrong.plan).ok()) << wrong.what;
  }
  const auto stage = Make({});
  ASSERT_TRUE(stage->Run(start).ok());
  EXPECT_TRUE(stage->Run({2, {1, 2}, {}, {}}).ok());
  EXPECT_EQ(stage->sequence_count(), 0);
}

}  // namespace
}  // namespace tern
