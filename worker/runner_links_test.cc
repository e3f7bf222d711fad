// What a runner has to do with the stages before and behind it.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/runner_fixture.h"
#include "worker/sampler.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"

namespace tern {
namespace {

class RunnerLinksTest : public RunnerFixture {};

TEST_F(RunnerLinksTest, AStageBeforeTheLastSendsAndDoesNotSample) {
  Start(true, false);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2, 3}, {0})}});
  Push({2, {}, {}, {}});
  Push({3, {}, {}, {Row(1, 3, {4}, {})}});
  EXPECT_TRUE(sink_->WaitForResult(0).sampled.empty());
  mailbox_->End();
  EXPECT_TRUE(sink_->WaitForEnd().ok());
  EXPECT_EQ(link_->step_ids, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(link_->sent[0].size(), 3u * kHidden);
  EXPECT_EQ(link_->sent[1].size(), 1u * kHidden);
  EXPECT_TRUE(link_->finished);
  EXPECT_FALSE(link_->closed);
}

TEST_F(RunnerLinksTest, ABrokenLinkEndsTheStreamWithItsStatus) {
  Start(true, false);
  link_->fail_with = absl::UnavailableError("gone");
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1}, {0})}});
  EXPECT_EQ(sink_->WaitForEnd(), absl::UnavailableError("gone"));
  EXPECT_TRUE(link_->closed);
}

TEST_F(RunnerLinksTest, AStageAfterTheFirstTakesHiddenStates) {
  Start(false, true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  std::vector<float> hidden(2 * kHidden);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = 0.01f * (i % 17);
  Receive(1, hidden);
  EXPECT_EQ(sink_->WaitForResult(0).sampled.size(), 1u);
}

TEST_F(RunnerLinksTest, HiddenStatesThatDoNotComeAreUnavailable) {
  Start(false, true, absl::Milliseconds(1));
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  EXPECT_TRUE(absl::IsUnavailable(sink_->WaitForEnd()));
}

TEST_F(RunnerLinksTest, AbortInterruptsTheWaitForHiddenStates) {
  Start(false, true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  mailbox_->Abort(absl::AbortedError("newer epoch"));
  EXPECT_EQ(sink_->WaitForEnd(), absl::AbortedError("newer epoch"));
}

// What a first stage sends for a token of the last one is what it sends for the
// token told by the coordinator; a failed row's is any.
TEST_F(RunnerLinksTest, AFirstStageTakesTheTokensOfTheLast) {
  Start(true, false);
  Push({1,
        {},
        {{1, {}}, {2, {}}, {3, {}}},
        {Row(1, 0, {5, 6}, {0}), Row(2, 0, {5, 6}, {1}),
         Row(3, 0, {5, 6}, {2})}});
  Push({2, {}, {}, {RowAfter(1, 1, 2), RowAfter(1, 3, 2)}});
  Push({3, {}, {}, {Row(2, 2, {42}, {})}});
  sink_->WaitForResult(0);
  ReceiveTokens(1, {{1, 42}, {2, 7}, {3, -1}});
  sink_->WaitForResult(2);
  mailbox_->End();
  EXPECT_TRUE(sink_->WaitForEnd().ok());
  ASSERT_EQ(link_->sent.size(), 3u);
  link_->sent[1].resize(kHidden);
  EXPECT_EQ(link_->sent[1], link_->sent[2]);
}

TEST_F(RunnerLinksTest, TokensThatDoNotComeAreUnavailable) {
  Start(true, false, absl::Milliseconds(1));
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  Push({2, {}, {}, {RowAfter(1, 1, 2)}});
  const absl::Status status = sink_->WaitForEnd();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(sink_->result_count(), 1u);
  EXPECT_TRUE(link_->closed);
}

TEST_F(RunnerLinksTest, AbortInterruptsTheWaitForTokens) {
  Start(true, false);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  Push({2, {}, {}, {RowAfter(1, 1, 2)}});
  sink_->WaitForResult(0);
  mailbox_->Abort(absl::AbortedError("newer epoch"));
  EXPECT_EQ(sink_->WaitForEnd(), absl::AbortedError("newer epoch"));
}

TEST_F(RunnerLinksTest, AStepWithoutTheTokenThatARowTakesIsDataLoss) {
  Start(true, false);
  Push({1,
        {},
        {{1, {}}, {2, {}}},
        {Row(1, 0, {1, 2}, {0}), Row(2, 0, {1, 2}, {1})}});
  Push({2, {}, {}, {RowAfter(1, 1, 2)}});
  sink_->WaitForResult(0);
  ReceiveTokens(1, {{2, 7}});
  EXPECT_TRUE(absl::IsDataLoss(sink_->WaitForEnd()));
}

// Before any waiting, and on stages that have no use for the token, too.
TEST_F(RunnerLinksTest, EveryStageRefusesATokenOfAnotherStepThanTheLatest) {
  for (const bool is_first : {true, false}) {
    for (const int64_t step_id : {1, 3, 4}) {
      Start(is_first, false);
      Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
      Push({2, {}, {}, {Row(1, 2, {3}, {})}});
      Push({3, {}, {}, {Row(1, 3, {3}, {}, false)}});
      Push({4, {}, {}, {RowAfter(step_id, 1, 4)}});
      if (!is_first) {
        Receive(1, std::vector<float>(2 * kHidden, 0.5f));
        Receive(2, std::vector<float>(kHidden, 0.5f));
        Receive(3, std::vector<float>(kHidden, 0.5f));
      }
      const absl::Status status = sink_->WaitForEnd();
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << step_id << status;
      runner_.reset();
      inbox_ = nullptr;
    }
  }
}

TEST_F(RunnerLinksTest, AStageInTheMiddleNeedsNoTokens) {
  Start(false, false);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2}, {0})}});
  Push({2, {}, {}, {RowAfter(1, 1, 2)}});
  Receive(1, std::vector<float>(2 * kHidden, 0.5f));
  Receive(2, std::vector<float>(kHidden, 0.5f));
  sink_->WaitForResult(1);
  mailbox_->End();
  EXPECT_TRUE(sink_->WaitForEnd().ok());
  EXPECT_EQ(link_->step_ids, (std::vector<int64_t>{1, 2}));
}

// The inbox holds two steps.
TEST_F(RunnerLinksTest, TokensThatNoRowTakesDoNotPileUp) {
  Start(true, false);
  Push({1, {}, {{1, {}}, {2, {}}}, {Row(1, 0, {5}, {0}), Row(2, 0, {5}, {1})}});
  for (int step = 1; step <= 10; ++step) {
    sink_->WaitForResult(step - 1);
    ReceiveTokens(step, {{1, step}, {2, 99}});
    Push({step + 1, {}, {}, {Row(1, step, {8}, {})}});
  }
  sink_->WaitForResult(10);
  // Sequence 2's token is the first step's still, which has not got lost.
  Push({12, {1}, {}, {RowAfter(1, 2, 1)}});
  sink_->WaitForResult(11);
}

TEST_F(RunnerLinksTest, ALastStageSendsWhatItSamples) {
  Start(false, true);
  Push({1,
        {},
        {{1, {}}, {2, {}}},
        {Row(1, 0, {1, 2}, {0}), Row(2, 0, {1}, {1}, false)}});
  Push({2, {}, {}, {Row(2, 1, {1}, {}, false)}});
  Push({3, {}, {}, {RowAfter(1, 1, 2), Row(2, 2, {1}, {})}});
  Receive(1, std::vector<float>(3 * kHidden, 0.5f));
  Receive(2, std::vector<float>(kHidden, 0.5f));
  Receive(3, std::vector<float>(2 * kHidden, 0.25f));
  const StepResult first = sink_->WaitForResult(0);
  const StepResult third = sink_->WaitForResult(2);
  mailbox_->End();
  EXPECT_TRUE(sink_->WaitForEnd().ok());
  // Nothing of the second, which samples nothing.
  EXPECT_EQ(token_link_->step_ids, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(token_link_->sent[0].size(), 1u);
  EXPECT_EQ(token_link_->sent[0][0].sequence_id, 1);
  EXPECT_EQ(token_link_->sent[0][0].token_id, first.sampled[0].token_id);
  ASSERT_EQ(token_link_->sent[1].size(), 2u);
  EXPECT_EQ(token_link_->sent[1][1].token_id, third.sampled[1].token_id);
  EXPECT_TRUE(token_link_->finished);
  EXPECT_FALSE(token_link_->closed);
}

TEST_F(RunnerLinksTest, ABrokenTokenLinkEndsTheStreamWithItsStatus) {
  Start(false, true);
  token_link_->fail_with = absl::UnavailableError("gone");
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1}, {0})}});
  Receive(1, std::vector<float>(kHidden, 0.5f));
  EXPECT_EQ(sink_->WaitForEnd(), absl::UnavailableError("gone"));
  EXPECT_TRUE(token_link_->closed);
}

std::vector<int32_t> Tokens(int n) {
  std::vector<int32_t> tokens(n);
  for (int i = 0; i < n; ++i) tokens[i] = 1 + i;
  return tokens;
}

// Stage 1 has lost the blocks: stage 0 computes nothing and sends what it sent,
// beside what it computes for others.
TEST_F(RunnerLinksTest, AKeptBoundaryIsSentAgain) {
  Start(true, false, absl::Seconds(60), /*keeps_boundary=*/true);
  Push({1,
        {},
        {{1, {}}, {2, {}}},
        {Row(1, 0, Tokens(40), {3, 5, 1}), Row(2, 0, {7, 8}, {2})}});
  Push({2,
        {1},
        {{3, {}}},
        {Refill(3, 0, Tokens(32), {3, 5}, 1, 2), Row(2, 2, {9}, {})}});
  // Alone, with nothing to compute.
  Push({3, {3}, {{4, {}}}, {Refill(4, 0, Tokens(16), {3}, 1, 2)}});
  Push({4, {}, {}, {Row(4, 16, Tokens(1), {4})}});
  mailbox_->End();
  const absl::Status status = sink_->WaitForEnd();
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(link_->step_ids, (std::vector<int64_t>{1, 2, 3, 4}));
  const std::vector<float>& first = link_->sent[0];
  ASSERT_EQ(link_->sent[1].size(), 33u * kHidden);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 32 * kHidden,
                         link_->sent[1].begin()));
  EXPECT_EQ(link_->sent[2],
            std::vector<float>(first.begin(), first.begin() + 16 * kHidden));
}

// Stage 0 has lost them: stage 1 gets no hidden states, and goes on behind the
// blocks with the token that it would have sampled, penalties included.
TEST_F(RunnerLinksTest, AStageThatKeptItsBlocksDoesNotComputeThem) {
  Start(false, true);
  SamplerParams sampler;
  sampler.temperature = 0;
  sampler.presence_penalty = 2;
  sampler.prompt_token_count = 1;
  std::vector<float> hidden(17 * kHidden);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = 0.01f * (i % 19);
  const std::vector<float> last(hidden.end() - kHidden, hidden.end());
  Push({1, {}, {{1, sampler}}, {Row(1, 0, Tokens(16), {6}, false)}});
  Push({2, {}, {}, {Row(1, 16, {17}, {2})}});
  Push({3, {1}, {{2, sampler}}, {Refill(2, 0, Tokens(16), {6}, 0, 1)}});
  Push({4, {}, {}, {Row(2, 16, {17}, {2})}});
  Receive(1, {hidden.begin(), hidden.end() - kHidden});
  Receive(2, last);
  Receive(4, last);
  const StepResult undisturbed = sink_->WaitForResult(1);
  EXPECT_TRUE(sink_->WaitForResult(2).sampled.empty());
  const StepResult again = sink_->WaitForResult(3);
  ASSERT_EQ(undisturbed.sampled.size(), 1u);
  ASSERT_EQ(again.sampled.size(), 1u);
  EXPECT_EQ(again.sampled[0].token_id, undisturbed.sampled[0].token_id);
}

TEST_F(RunnerLinksTest, WhatWasNotKeptIsNotTakenForKept) {
  // Nothing is kept of what is to be sent again.
  Start(true, false);
  Push({1, {}, {{1, {}}}, {Row(1, 0, Tokens(16), {3}, false)}});
  Push({2, {1}, {{2, {}}}, {Refill(2, 0, Tokens(16), {3}, 1, 2)}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
  // The block is not full.
  Start(true, false, absl::Seconds(60), /*keeps_boundary=*/true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, Tokens(15), {3}, false)}});
  Push({2, {1}, {{2, {}}}, {Refill(2, 0, Tokens(16), {3}, 1, 2)}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
  // The row is of more tokens than its blocks hold.
  Start(true, false, absl::Seconds(60), /*keeps_boundary=*/true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, Tokens(16), {3}, false)}});
  Push({2, {1}, {{2, {}}}, {Refill(2, 0, Tokens(32), {3}, 1, 2)}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
}

}  // namespace
}  // namespace tern
