#include "worker/step_proto.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

StepLimits Limits() {
  return {"m", "p", 3, "cpu-1/int8", 100, 64, 8, 16, true, 3};
}

v1::StepPlan GoodPlan() {
  v1::StepPlan plan;
  plan.set_model("m");
  plan.set_pipeline_id("p");
  plan.set_epoch(3);
  plan.set_step_id(1);
  plan.set_numerics_id("cpu-1/int8");
  plan.add_released_sequence_ids(4);
  v1::SequenceSetup* setup = plan.add_new_sequences();
  setup->set_sequence_id(5);
  setup->mutable_sampler()->set_temperature(0.5f);
  setup->mutable_sampler()->set_top_k(40);
  setup->mutable_sampler()->set_top_p(0.9f);
  setup->mutable_sampler()->set_min_p(0.1f);
  setup->mutable_sampler()->set_seed(~uint64_t{0});
  setup->mutable_sampler()->set_sample_index(2);
  setup->mutable_sampler()->set_repetition_penalty(1.5f);
  setup->mutable_sampler()->set_frequency_penalty(-0.5f);
  setup->mutable_sampler()->set_presence_penalty(0.25f);
  (*setup->mutable_sampler()->mutable_logit_bias())[99] = -3;
  setup->mutable_sampler()->set_min_output_tokens(6);
  setup->mutable_sampler()->add_stop_token_ids(98);
  setup->mutable_sampler()->set_logprobs(4);
  setup->set_prompt_token_count(2);
  v1::StepRow* row = plan.add_rows();
  row->set_sequence_id(5);
  row->mutable_tokens()->add_ids(0);
  row->mutable_tokens()->add_ids(99);
  row->add_new_block_ids(7);
  row->set_samples(true);
  return plan;
}

absl::Status Parse(const v1::StepPlan& plan) {
  return ParseStepPlan(plan, Limits()).status();
}

TEST(StepProto, APlanIsTakenOver) {
  const auto plan = ParseStepPlan(GoodPlan(), Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->step_id, 1);
  EXPECT_EQ(plan->released_sequence_ids, std::vector<int64_t>{4});
  ASSERT_EQ(plan->new_sequences.size(), 1u);
  EXPECT_EQ(plan->new_sequences[0].sequence_id, 5);
  const SamplerParams& sampler = plan->new_sequences[0].sampler;
  EXPECT_EQ(sampler.temperature, 0.5f);
  EXPECT_EQ(sampler.top_k, 40);
  EXPECT_EQ(sampler.top_p, 0.9f);
  EXPECT_EQ(sampler.min_p, 0.1f);
  EXPECT_EQ(sampler.seed, ~uint64_t{0});
  EXPECT_EQ(sampler.sample_index, 2);
  EXPECT_EQ(sampler.repetition_penalty, 1.5f);
  EXPECT_EQ(sampler.frequency_penalty, -0.5f);
  EXPECT_EQ(sampler.presence_penalty, 0.25f);
  ASSERT_EQ(sampler.logit_bias.size(), 1u);
  EXPECT_EQ(sampler.logit_bias[0].token_id, 99);
  EXPECT_EQ(sampler.logit_bias[0].bias, -3);
  EXPECT_EQ(sampler.min_output_tokens, 6);
  EXPECT_EQ(sampler.stop_token_ids, std::vector<int32_t>{98});
  EXPECT_EQ(sampler.logprobs, 4);
  EXPECT_EQ(sampler.prompt_token_count, 2);
  ASSERT_EQ(plan->rows.size(), 1u);
  EXPECT_EQ(plan->rows[0].tokens, (std::vector<int32_t>{0, 99}));
  EXPECT_EQ(plan->rows[0].new_block_ids, std::vector<int32_t>{7});
  EXPECT_TRUE(plan->rows[0].samples);
}

TEST(StepProto, ReadsTakenOverBlocks) {
  v1::StepPlan message = GoodPlan();
  v1::StepRow* row = message.mutable_rows(0);
  row->set_taken_over_block_count(1);
  auto plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows[0].taken_over_block_count, 1);
  EXPECT_TRUE(plan->rows[0].taken_over_tokens.empty());
  for (int i = 0; i < 16; ++i) row->add_taken_over_token_ids(i);
  plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows[0].taken_over_tokens.size(), 16u);
  EXPECT_EQ(plan->rows[0].taken_over_tokens[15], 15);
}

TEST(StepProto, ReadsGuesses) {
  v1::StepPlan message = GoodPlan();
  message.mutable_rows(0)->set_draft_count(1);
  const auto plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows[0].draft_count, 1);
}

TEST(StepProto, ReadsWhatIsToBeScored) {
  v1::StepPlan message = GoodPlan();
  EXPECT_TRUE(ParseStepPlan(message, Limits())->rows[0].scored_tokens.empty());
  message.mutable_new_sequences(0)->mutable_sampler()->set_prompt_logprobs(20);
  message.mutable_rows(0)->add_scored_token_ids(99);
  auto plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->new_sequences[0].sampler.prompt_logprobs, 20);
  EXPECT_EQ(plan->rows[0].scored_tokens, std::vector<int32_t>{99});
  message.mutable_rows(0)->set_samples(false);
  message.mutable_rows(0)->add_scored_token_ids(3);
  plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows[0].scored_tokens, (std::vector<int32_t>{99, 3}));
}

TEST(StepProto, ReadsWhoComputesARow) {
  v1::StepPlan plan = GoodPlan();
  v1::StepRow* const row = plan.mutable_rows(0);
  row->set_samples(false);
  for (int i = 2; i < 16; ++i) row->mutable_tokens()->add_ids(i);
  row->mutable_computing_stages()->set_begin(1);
  row->mutable_computing_stages()->set_end(2);
  const auto parsed = ParseStepPlan(plan, Limits());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FALSE(parsed->rows[0].IsComputedBy(0));
  EXPECT_TRUE(parsed->rows[0].IsComputedBy(1));
  EXPECT_FALSE(parsed->rows[0].IsComputedBy(2));

  const std::vector<std::function<void(v1::StepRow*)>> breakages = {
      [](v1::StepRow* r) { r->mutable_computing_stages()->set_begin(-1); },
      [](v1::StepRow* r) { r->mutable_computing_stages()->set_begin(2); },
      [](v1::StepRow* r) { r->mutable_computing_stages()->set_end(4); },
      [](v1::StepRow* r) { r->set_samples(true); },
      [](v1::StepRow* r) { r->add_scored_token_ids(1); },
      [](v1::StepRow* r) { r->set_position(8); },
      [](v1::StepRow* r) { r->add_new_block_ids(6); },
      [](v1::StepRow* r) { r->set_taken_over_block_count(1); },
      [](v1::StepRow* r) { r->mutable_tokens()->mutable_ids()->RemoveLast(); },
      [](v1::StepRow* r) { r->set_sampled_in_step_id(1); },
  };
  for (size_t i = 0; i < breakages.size(); ++i) {
    v1::StepPlan broken = plan;
    breakages[i](broken.mutable_rows(0));
    EXPECT_TRUE(absl::IsInvalidArgument(Parse(broken))) << i;
  }
}

TEST(StepProto, WhatAnOlderCoordinatorLeavesOutIsNeutral) {
  v1::StepPlan message = GoodPlan();
  v1::SamplerSetup* sampler =
      message.mutable_new_sequences(0)->mutable_sampler();
  sampler->clear_repetition_penalty();
  sampler->clear_logprobs();
  const auto plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->new_sequences[0].sampler.repetition_penalty, 1);
  EXPECT_EQ(plan->new_sequences[0].sampler.logprobs, -1);
}

TEST(StepProto, HostilePlansAreInvalid) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int32_t int_max = std::numeric_limits<int32_t>::max();
  const int32_t int_min = std::numeric_limits<int32_t>::min();
  using Change = std::function<void(v1::StepPlan*)>;
  const auto sampler = [](v1::StepPlan* p) {
    return p->mutable_new_sequences(0)->mutable_sampler();
  };
  const std::vector<Change> changes = {
      [](auto* p) { p->set_step_id(0); },
      [](auto* p) { p->set_step_id(std::numeric_limits<int64_t>::min()); },
      [](auto* p) { p->set_repeat_max(-1); },
      [](auto* p) { p->mutable_rows(0)->set_taken_over_block_count(-1); },
      [](auto* p) { p->mutable_rows(0)->set_taken_over_block_count(2); },
      [](auto* p) { p->mutable_rows(0)->set_draft_count(-1); },
      [](auto* p) { p->mutable_rows(0)->set_draft_count(2); },
      [&](auto* p) { p->mutable_rows(0)->set_draft_count(int_max); },
      [](auto* p) {
        p->mutable_rows(0)->set_draft_count(1);
        p->mutable_rows(0)->set_samples(false);
      },
      [&](auto* p) { p->mutable_rows(0)->set_taken_over_block_count(int_max); },
      [](auto* p) { p->mutable_rows(0)->add_taken_over_token_ids(1); },
      [](auto* p) {
        p->mutable_rows(0)->set_taken_over_block_count(1);
        for (int i = 0; i < 15; ++i) {
          p->mutable_rows(0)->add_taken_over_token_ids(1);
        }
      },
      [](auto* p) {
        p->mutable_rows(0)->set_taken_over_block_count(1);
        for (int i = 0; i < 16; ++i) {
          p->mutable_rows(0)->add_taken_over_token_ids(100);
        }
      },
      [&](auto* p) { sampler(p)->set_temperature(-1); },
      [&](auto* p) { sampler(p)->set_temperature(101); },
      [&](auto* p) { sampler(p)->set_temperature(nan); },
      [&](auto* p) { sampler(p)->set_top_k(int_min); },
      [&](auto* p) { sampler(p)->set_top_p(0); },
      [&](auto* p) { sampler(p)->set_top_p(1.01f); },
      [&](auto* p) { sampler(p)->set_top_p(nan); },
      [&](auto* p) { sampler(p)->set_min_p(-0.1f); },
      [&](auto* p) { sampler(p)->set_min_p(nan); },
      [&](auto* p) { sampler(p)->set_sample_index(-1); },
      [&](auto* p) { sampler(p)->set_repetition_penalty(-1); },
      [&](auto* p) { sampler(p)->set_repetition_penalty(10.5f); },
      [&](auto* p) { sampler(p)->set_repetition_penalty(nan); },
      [&](auto* p) { sampler(p)->set_frequency_penalty(2.5f); },
      [&](auto* p) { sampler(p)->set_frequency_penalty(nan); },
      [&](auto* p) { sampler(p)->set_presence_penalty(-2.5f); },
      [&](auto* p) { sampler(p)->set_presence_penalty(nan); },
      [&](auto* p) { (*sampler(p)->mutable_logit_bias())[100] = 1; },
      [&](auto* p) { (*sampler(p)->mutable_logit_bias())[-1] = 1; },
      [&](auto* p) { (*sampler(p)->mutable_logit_bias())[5] = 101; },
      [&](auto* p) { (*sampler(p)->mutable_logit_bias())[5] = nan; },
      [&](auto* p) {
        for (int i = 0; i <= kLogitBiasesMax; ++i) {
          (*sampler(p)->mutable_logit_bias())[i] = 1;
        }
      },
      [&](auto* p) { sampler(p)->set_min_output_tokens(-1); },
      [&](auto* p) { sampler(p)->add_stop_token_ids(100); },
      [&](auto* p) { sampler(p)->add_stop_token_ids(-1); },
      [&](auto* p) { sampler(p)->set_logprobs(21); },
      [&](auto* p) { sampler(p)->set_logprobs(-1); },
      [&](auto* p) { sampler(p)->set_prompt_logprobs(21); },
      [&](auto* p) { sampler(p)->set_prompt_logprobs(int_min); },
      [](auto* p) { p->mutable_rows(0)->add_scored_token_ids(-1); },
      [](auto* p) { p->mutable_rows(0)->add_scored_token_ids(100); },
      // One place comes after a token of the row and before what it samples.
      [](auto* p) {
        p->mutable_rows(0)->add_scored_token_ids(99);
        p->mutable_rows(0)->add_scored_token_ids(1);
      },
      [](auto* p) {
        p->mutable_rows(0)->set_samples(false);
        for (int i = 0; i < 3; ++i) p->mutable_rows(0)->add_scored_token_ids(1);
      },
      [](auto* p) {
        p->mutable_rows(0)->set_draft_count(1);
        p->mutable_rows(0)->add_scored_token_ids(99);
      },
      [](auto* p) { p->mutable_new_sequences(0)->set_prompt_token_count(-1); },
      [](auto* p) { p->mutable_new_sequences(0)->set_prompt_token_count(65); },
      [](auto* p) { p->mutable_new_sequences(0)->clear_sampler(); },
      [](auto* p) { p->mutable_rows(0)->clear_tokens(); },
      [](auto* p) { p->mutable_rows(0)->mutable_tokens()->clear_ids(); },
      [](auto* p) { p->mutable_rows(0)->mutable_tokens()->add_ids(-1); },
      [](auto* p) { p->mutable_rows(0)->mutable_tokens()->add_ids(100); },
      [&](auto* p) { p->mutable_rows(0)->mutable_tokens()->add_ids(int_max); },
      [](auto* p) { p->mutable_rows(0)->set_position(-1); },
      [](auto* p) { p->mutable_rows(0)->set_position(63); },
      [&](auto* p) { p->mutable_rows(0)->set_position(int_max); },
      [&](auto* p) { p->mutable_rows(0)->set_position(int_min); },
      [](auto* p) { p->mutable_rows(0)->add_new_block_ids(-1); },
      [](auto* p) { p->mutable_rows(0)->add_new_block_ids(8); },
      [](auto* p) { *p->add_rows() = p->rows(0); },
      [](auto* p) {
        for (int i = 0; i < 17; ++i) {
          p->mutable_rows(0)->mutable_tokens()->add_ids(1);
        }
      },
      [](auto* p) {
        for (int i = 0; i < 16; ++i) {
          v1::StepRow* row = p->add_rows();
          row->set_sequence_id(100 + i);
          row->mutable_tokens()->add_ids(1);
        }
      },
      [](auto* p) {
        for (int i = 0; i <= kStepSequencesMax; ++i) {
          p->add_released_sequence_ids(i);
        }
      },
      [](auto* p) {
        const v1::SequenceSetup setup = p->new_sequences(0);
        for (int i = 0; i <= kStepSequencesMax; ++i) {
          *p->add_new_sequences() = setup;
        }
      },
  };
  ASSERT_TRUE(Parse(GoodPlan()).ok());
  for (size_t i = 0; i < changes.size(); ++i) {
    v1::StepPlan plan = GoodPlan();
    changes[i](&plan);
    const absl::Status status = Parse(plan);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << i << ": " << status;
  }
}

TEST(StepProto, PlansForOthersAreRefused) {
  v1::StepPlan plan = GoodPlan();
  plan.set_epoch(4);
  EXPECT_TRUE(absl::IsAborted(Parse(plan)));
  plan = GoodPlan();
  plan.set_model("n");
  EXPECT_TRUE(absl::IsFailedPrecondition(Parse(plan)));
  plan = GoodPlan();
  plan.set_pipeline_id("q");
  EXPECT_TRUE(absl::IsFailedPrecondition(Parse(plan)));
  plan = GoodPlan();
  plan.set_numerics_id("cpu-1/stored");
  EXPECT_TRUE(absl::IsFailedPrecondition(Parse(plan)));
}

TEST(StepProto, WhatTheWorkerDoesNotAnnounceIsUnimplemented) {
  v1::StepPlan plan = GoodPlan();
  plan.set_repeat_max(1);
  EXPECT_TRUE(Parse(plan).ok());
  plan.set_repeat_max(2);
  EXPECT_TRUE(absl::IsUnimplemented(Parse(plan)));
}

TEST(StepProto, ARowMayTakeItsTokenFromAnEarlierStep) {
  v1::StepPlan message = GoodPlan();
  message.mutable_rows(0)->set_sampled_in_step_id(7);
  const auto plan = ParseStepPlan(message, Limits());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows[0].sampled_in_step_id, 7);
  EXPECT_EQ(plan->rows[0].tokens.size(), 1u);
  for (const int64_t wrong : {int64_t{0}, int64_t{-1}}) {
    message.mutable_rows(0)->set_sampled_in_step_id(wrong);
    EXPECT_TRUE(absl::IsInvalidArgument(Parse(message)));
  }
}

TEST(StepProto, StagesBeforeTheLastNeedNoSampler) {
  StepLimits limits = Limits();
  limits.is_last_stage = false;
  v1::StepPlan plan = GoodPlan();
  plan.mutable_new_sequences(0)->clear_sampler();
  EXPECT_TRUE(ParseStepPlan(plan, limits).ok());
}

// Bytes of a good plan, damaged at random: whatever still parses as a message
// is taken or refused, and what is taken keeps to the limits.
TEST(StepProto, DamagedPlansNeverGetThroughWithBadNumbers) {
  const std::string good = GoodPlan().SerializeAsString();
  std::mt19937 random(7);
  int n_taken = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    for (unsigned j = 0; j <= random() % 3; ++j) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    v1::StepPlan message;
    if (!message.ParseFromString(bytes)) continue;
    const auto plan = ParseStepPlan(message, Limits());
    if (!plan.ok()) continue;
    ++n_taken;
    for (const StepRow& row : plan->rows) {
      ASSERT_FALSE(row.tokens.empty());
      ASSERT_GE(row.position, 0);
      ASSERT_LE(row.position + row.tokens.size(), 64u);
      for (const int32_t token : row.tokens) ASSERT_LT(uint32_t(token), 100u);
      for (const int32_t id : row.new_block_ids) ASSERT_LT(uint32_t(id), 8u);
    }
  }
  EXPECT_GT(n_taken, 0);
}

TEST(StepProto, ResultsCarryTokensAndErrors) {
  StepResult result{9, {}, {}, 11, 12, 13};
  result.sampled.push_back({5, 2, 77, absl::OkStatus()});
  result.sampled.push_back({6, 3, -1, absl::DataLossError("bad row")});
  result.sampled[0].logprobs = TokenLogprobs{-1.5f, {{77, -1.5f}, {3, -2}}};
  const v1::StepResult message = MakeStepResult(result, Limits());
  EXPECT_EQ(message.model(), "m");
  EXPECT_EQ(message.pipeline_id(), "p");
  EXPECT_EQ(message.epoch(), 3);
  EXPECT_EQ(message.step_id(), 9);
  EXPECT_EQ(message.compute_ns(), 11);
  EXPECT_EQ(message.wait_ns(), 12);
  EXPECT_EQ(message.kv_block_in_use_count(), 13);
  ASSERT_EQ(message.sampled_size(), 2);
  EXPECT_EQ(message.sampled(0).sequence_id(), 5);
  EXPECT_EQ(message.sampled(0).position(), 2);
  EXPECT_EQ(message.sampled(0).token_id(), 77);
  EXPECT_EQ(message.sampled(0).error_code(), 0);
  EXPECT_TRUE(message.sampled(0).has_logprob());
  EXPECT_EQ(message.sampled(0).logprob(), -1.5f);
  ASSERT_EQ(message.sampled(0).alternatives_size(), 2);
  EXPECT_EQ(message.sampled(0).alternatives(1).token_id(), 3);
  EXPECT_EQ(message.sampled(0).alternatives(1).logprob(), -2);
  EXPECT_FALSE(message.sampled(1).has_logprob());
  EXPECT_EQ(message.sampled(1).token_id(), -1);
  EXPECT_EQ(message.sampled(1).error_code(), 15);
  EXPECT_EQ(message.sampled(1).error_message(), "bad row");
}

TEST(StepProto, ResultsCarryScores) {
  StepResult result{9, {}, {}, 11, 12, 13};
  result.scored.push_back({5, 2, {{-1.5f, {{77, -1.5f}, {3, -2}}}, {-4}}, {}});
  result.scored.push_back({6, 3, {}, absl::DataLossError("bad row")});
  const v1::StepResult message = MakeStepResult(result, Limits());
  ASSERT_EQ(message.scored_size(), 2);
  EXPECT_EQ(message.scored(0).sequence_id(), 5);
  EXPECT_EQ(message.scored(0).position(), 2);
  EXPECT_EQ(message.scored(0).error_code(), 0);
  ASSERT_EQ(message.scored(0).tokens_size(), 2);
  EXPECT_EQ(message.scored(0).tokens(0).logprob(), -1.5f);
  ASSERT_EQ(message.scored(0).tokens(0).alternatives_size(), 2);
  EXPECT_EQ(message.scored(0).tokens(0).alternatives(1).token_id(), 3);
  EXPECT_EQ(message.scored(0).tokens(0).alternatives(1).logprob(), -2);
  EXPECT_EQ(message.scored(0).tokens(1).logprob(), -4);
  EXPECT_EQ(message.scored(1).tokens_size(), 0);
  EXPECT_EQ(message.scored(1).error_code(), 15);
  EXPECT_EQ(message.scored(1).error_message(), "bad row");
}

}  // namespace
}  // namespace tern
