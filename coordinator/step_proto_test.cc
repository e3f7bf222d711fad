#include "coordinator/step_proto.h"

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/pipeline.h"
#include "coordinator/step_plan.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/worker.pb.h"

namespace tern {
namespace {

Pipeline::Spec Spec() {
  Pipeline::Spec spec;
  spec.model = "m";
  spec.pipeline_id = "p";
  spec.epoch = 3;
  spec.vocab_size = 100;
  return spec;
}

v1::StepResult GoodResult() {
  v1::StepResult result;
  result.set_model("m");
  result.set_pipeline_id("p");
  result.set_epoch(3);
  result.set_step_id(9);
  v1::SampledToken* sampled = result.add_sampled();
  sampled->set_sequence_id(5);
  sampled->set_position(2);
  sampled->set_token_id(99);
  sampled->set_logprob(-1);
  sampled->add_alternatives()->set_token_id(99);
  v1::ScoredRow* scored = result.add_scored();
  scored->set_sequence_id(6);
  scored->set_position(4);
  v1::ScoredToken* token = scored->add_tokens();
  token->set_logprob(-2);
  v1::SampledAlternative* other = token->add_alternatives();
  other->set_token_id(98);
  other->set_logprob(-3);
  scored->add_tokens()->set_logprob(-4);
  return result;
}

TEST(StepProto, TellsWhatIsToBeScored) {
  StepPlan plan;
  plan.new_sequences.resize(2);
  plan.new_sequences[1].sampler.prompt_logprobs = 20;
  plan.rows.resize(2);
  plan.rows[0].tokens = {1, 2};
  plan.rows[0].scored_tokens = {2, 3};
  const v1::StepPlan message = ToProto(plan, Spec());
  EXPECT_EQ(message.new_sequences(0).sampler().prompt_logprobs(), 0);
  EXPECT_EQ(message.new_sequences(1).sampler().prompt_logprobs(), 20);
  ASSERT_EQ(message.rows(0).scored_token_ids_size(), 2);
  EXPECT_EQ(message.rows(0).scored_token_ids(1), 3);
  EXPECT_EQ(message.rows(1).scored_token_ids_size(), 0);
}

TEST(StepProto, ReadsTokensAndScores) {
  v1::StepResult message = GoodResult();
  v1::ScoredRow* failed = message.add_scored();
  failed->set_sequence_id(7);
  failed->set_error_code(15);
  failed->set_error_message("bad row");
  const absl::StatusOr<StepResult> result = FromProto(message, Spec());
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sampled.size(), 1u);
  EXPECT_EQ(result->sampled[0].token_id, 99);
  EXPECT_EQ(result->sampled[0].logprobs->logprob, -1);
  ASSERT_EQ(result->scored.size(), 2u);
  const ScoredRow& scored = result->scored[0];
  EXPECT_EQ(scored.run_id, 6);
  EXPECT_EQ(scored.position, 4);
  ASSERT_EQ(scored.tokens.size(), 2u);
  EXPECT_EQ(scored.tokens[0].logprob, -2);
  ASSERT_EQ(scored.tokens[0].alternatives.size(), 1u);
  EXPECT_EQ(scored.tokens[0].alternatives[0].first, 98);
  EXPECT_EQ(scored.tokens[0].alternatives[0].second, -3);
  EXPECT_EQ(scored.tokens[1].logprob, -4);
  EXPECT_EQ(result->scored[1].status, absl::DataLossError("bad row"));
}

TEST(StepProto, HostileResultsAreInternalErrors) {
  using Change = std::function<void(v1::StepResult*)>;
  const std::vector<Change> changes = {
      [](auto* r) { r->set_model("other"); },
      [](auto* r) { r->set_pipeline_id("other"); },
      [](auto* r) { r->set_epoch(2); },
      [](auto* r) { r->mutable_sampled(0)->set_token_id(100); },
      [](auto* r) { r->mutable_sampled(0)->set_token_id(-1); },
      [](auto* r) {
        r->mutable_sampled(0)->mutable_alternatives(0)->set_token_id(100);
      },
      [](auto* r) {
        r->mutable_scored(0)
            ->mutable_tokens(0)
            ->mutable_alternatives(0)
            ->set_token_id(100);
      },
      [](auto* r) {
        r->mutable_scored(0)
            ->mutable_tokens(1)
            ->add_alternatives()
            ->set_token_id(-1);
      },
  };
  ASSERT_TRUE(FromProto(GoodResult(), Spec()).ok());
  for (size_t i = 0; i < changes.size(); ++i) {
    v1::StepResult message = GoodResult();
    changes[i](&message);
    EXPECT_TRUE(absl::IsInternal(FromProto(message, Spec()).status())) << i;
  }
}

}  // namespace
}  // namespace tern
