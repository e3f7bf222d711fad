// Guesses at the next tokens, as the scheduler plans and takes them. Random
// traces have them too (scheduler_property_test), and scenarios.

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/scheduler.h"
#include "coordinator/sequence.h"
#include "coordinator/step_plan.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using Tokens = std::vector<int32_t>;

// Answers are what the test says.
class SchedulerDraftsTest : public ::testing::Test {
 protected:
  void Start(Scheduler::Options options, int n_blocks) {
    scheduler_.emplace(options);
    EXPECT_TRUE(scheduler_->StartPipeline(0, {n_blocks, 4, 1, false}).empty());
  }

  absl::Status Add(int64_t id, Tokens prompt, int n_output,
                   Tokens stop_token_ids = {}) {
    SequenceParameters parameters;
    parameters.prompt = std::move(prompt);
    parameters.max_output_tokens = n_output;
    parameters.stop_token_ids = std::move(stop_token_ids);
    return scheduler_->Add(id, std::move(parameters));
  }

  StepPlan Plan() {
    std::optional<StepPlan> plan = scheduler_->Schedule(0);
    EXPECT_TRUE(plan.has_value());
    return plan.value_or(StepPlan());
  }

  // Tokens for the first row of a plan.
  absl::Status Answer(const StepPlan& plan, const Tokens& tokens,
                      absl::Duration busy = absl::Milliseconds(10)) {
    const StepRow& row = plan.rows.at(0);
    StepResult result;
    result.step_id = plan.step_id;
    result.busy = busy;
    int position = row.position + row.n_tokens() - row.n_drafts;
    for (const int32_t token : tokens) {
      SampledToken sampled;
      sampled.run_id = row.run_id;
      sampled.position = position++;
      sampled.token_id = token;
      result.sampled.push_back(sampled);
    }
    events_.clear();
    return scheduler_->Complete(0, result, &events_);
  }

  // The guesses of the plan's first row.
  static Tokens Guesses(const StepPlan& plan) {
    const StepRow& row = plan.rows.at(0);
    return Tokens(row.tokens.end() - row.n_drafts, row.tokens.end());
  }

  static Scheduler::Options Always(int max_draft_tokens) {
    Scheduler::Options options;
    options.max_draft_tokens = max_draft_tokens;
    options.always_drafts = true;
    return options;
  }

  std::optional<Scheduler> scheduler_;
  std::vector<SequenceEvent> events_;
};

TEST_F(SchedulerDraftsTest, TheNextRowBeginsBehindWhatCameTrue) {
  Start(Always(3), 20);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4, 5, 1, 2}, 20).ok());
  ASSERT_TRUE(Answer(Plan(), {3}).ok());
  StepPlan plan = Plan();
  EXPECT_EQ(plan.rows[0].position, 7);
  EXPECT_EQ(Guesses(plan), (Tokens{4, 5, 1}));
  ASSERT_TRUE(Answer(plan, {4, 5, 8}).ok());
  ASSERT_EQ(events_.size(), 3u);
  EXPECT_EQ(events_[2].token, 8);
  plan = Plan();
  EXPECT_EQ(plan.rows[0].position, 10);
  EXPECT_EQ(plan.rows[0].tokens, Tokens{8});
  EXPECT_EQ(scheduler_->counters().drafted_tokens, 3);
  EXPECT_EQ(scheduler_->counters().accepted_draft_tokens, 2);
}

TEST_F(SchedulerDraftsTest, WhatComesBehindTheEndIsOvershoot) {
  Start(Always(3), 20);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4, 5, 1, 2}, 20, {5}).ok());
  ASSERT_TRUE(Answer(Plan(), {3}).ok());
  ASSERT_TRUE(Answer(Plan(), {4, 5, 1, 2}).ok());
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[1].token, 5);
  EXPECT_TRUE(events_[1].ended);
  EXPECT_EQ(scheduler_->n_sequences(), 0);
  EXPECT_EQ(scheduler_->lane(0)->blocks().n_in_use(), 0);
}

TEST_F(SchedulerDraftsTest, GuessesKeepToTheLengthOfTheAnswer) {
  Start(Always(8), 20);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4, 5, 1, 2}, 4).ok());
  ASSERT_TRUE(Answer(Plan(), {3}).ok());
  // Three tokens are left: two guesses, and what follows them.
  const StepPlan plan = Plan();
  EXPECT_EQ(Guesses(plan), (Tokens{4, 5}));
  ASSERT_TRUE(Answer(plan, {4, 5, 1}).ok());
  EXPECT_TRUE(events_.back().ended);
}

TEST_F(SchedulerDraftsTest, GuessesTakeFreeBlocksAlone) {
  // Steps take the same time whatever is in them.
  Scheduler::Options options;
  options.max_draft_tokens = 8;
  Start(options, 4);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4, 5, 1, 2}, 9).ok());
  ASSERT_TRUE(Answer(Plan(), {3}).ok());
  // Another sequence has one of the four blocks.
  ASSERT_TRUE(Add(2, {9, 8}, 3).ok());
  StepPlan plan = Plan();
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(Guesses(plan), Tokens{}) << "prompts go first";
  StepResult result;
  result.step_id = plan.step_id;
  result.busy = absl::Milliseconds(10);
  result.sampled.push_back({plan.rows[0].run_id, 8, 4, absl::OkStatus(), {}});
  result.sampled.push_back({plan.rows[1].run_id, 2, 9, absl::OkStatus(), {}});
  const absl::Status status = scheduler_->Complete(0, result, &events_);
  ASSERT_TRUE(status.ok()) << status;
  // Of 8 positions that could be guessed three blocks hold two.
  plan = Plan();
  EXPECT_EQ(plan.rows[0].position, 8);
  EXPECT_EQ(Guesses(plan), (Tokens{5, 1, 2}));
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
}

TEST_F(SchedulerDraftsTest, AnswersThatDoNotFitTheGuessesAreABrokenWorkers) {
  Start(Always(3), 20);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4, 5, 1, 2}, 20).ok());
  ASSERT_TRUE(Answer(Plan(), {3}).ok());
  const StepPlan plan = Plan();
  ASSERT_EQ(Guesses(plan), (Tokens{4, 5, 1}));
  EXPECT_TRUE(absl::IsInternal(Answer(plan, {})));
  EXPECT_TRUE(absl::IsInternal(Answer(plan, {4}))) << "5 or another is due";
  EXPECT_TRUE(absl::IsInternal(Answer(plan, {7, 5}))) << "7 ends it";
  EXPECT_TRUE(absl::IsInternal(Answer(plan, {4, 5, 1, 2, 3})));
  EXPECT_TRUE(Answer(plan, {4, 5, 1, 2}).ok());
}

// A step of four tokens seemed to take long, once.
TEST_F(SchedulerDraftsTest, WhatDidNotPayIsTriedAgain) {
  Scheduler::Options options;
  options.max_draft_tokens = 3;
  Start(options, 400);
  ASSERT_TRUE(Add(1, {1, 2, 3, 4}, 1000).ok());
  ASSERT_TRUE(Answer(Plan(), {5}, absl::Seconds(2)).ok());
  for (int token = 6; token < 10; ++token) {
    ASSERT_TRUE(Answer(Plan(), {token}).ok());
  }
  int n_steps = 0, n_with_guesses = 0;
  for (; n_steps < 400; ++n_steps) {
    const StepPlan plan = Plan();
    const int n_guesses = plan.rows[0].n_drafts;
    n_with_guesses += n_guesses > 0;
    ASSERT_TRUE(Answer(plan, Tokens(1 + n_guesses, 1)).ok());
    if (n_with_guesses == 20) break;
  }
  EXPECT_GT(n_steps, 64);
  EXPECT_LT(n_steps, 400);
}

}  // namespace
}  // namespace tern
