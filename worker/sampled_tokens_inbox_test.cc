#include "worker/sampled_tokens_inbox.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr int kVocab = 100;

class SampledTokensInboxTest : public testing::Test {
 protected:
  SampledTokensInboxTest() : inbox_(MakeOptions()) {}

  static SampledTokensInbox::Options MakeOptions() {
    SampledTokensInbox::Options options;
    options.vocab_size = kVocab;
    options.max_step_tokens = 2;
    options.waiting_steps_max = 2;
    return options;
  }

  absl::Status Offer(int64_t step_id, std::vector<SequenceToken> tokens) {
    const auto taken = inbox_.Offer({step_id, std::move(tokens)}, [] {});
    EXPECT_TRUE(!taken.ok() || *taken);
    return taken.status();
  }
  // The steps that it gives.
  std::vector<int64_t> Take(int64_t step_id) {
    std::vector<StepTokens> steps;
    const absl::Status status = inbox_.Take(step_id, kLong, &steps);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<int64_t> ids;
    for (const StepTokens& step : steps) ids.push_back(step.step_id);
    return ids;
  }
  absl::Status TakeError(int64_t step_id, absl::Duration timeout = kLong) {
    std::vector<StepTokens> steps;
    return inbox_.Take(step_id, timeout, &steps);
  }

  SampledTokensInbox inbox_;
};

TEST_F(SampledTokensInboxTest, GivesWhatIsThereInOrder) {
  EXPECT_EQ(Take(0), std::vector<int64_t>());
  ASSERT_TRUE(Offer(2, {{7, 50}, {8, -1}}).ok());
  ASSERT_TRUE(Offer(5, {{7, 51}}).ok());
  std::vector<StepTokens> steps;
  ASSERT_TRUE(inbox_.Take(2, kLong, &steps).ok());
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].step_id, 2);
  ASSERT_EQ(steps[0].tokens.size(), 2u);
  EXPECT_EQ(steps[0].tokens[1].sequence_id, 8);
  EXPECT_EQ(steps[0].tokens[1].token_id, -1);
  EXPECT_EQ(steps[1].step_id, 5);
  // A step once given is not waited for again.
  EXPECT_EQ(Take(5), std::vector<int64_t>());
  EXPECT_EQ(inbox_.step_count(), 2);
}

TEST_F(SampledTokensInboxTest, TakeWaitsForTheStep) {
  ASSERT_TRUE(Offer(1, {{7, 1}}).ok());
  std::vector<int64_t> taken;
  std::thread runner([&] { taken = Take(2); });
  ASSERT_TRUE(Offer(2, {{7, 2}}).ok());
  runner.join();
  EXPECT_EQ(taken, (std::vector<int64_t>{1, 2}));
}

TEST_F(SampledTokensInboxTest, WhatDoesNotFitIsDataLoss) {
  ASSERT_TRUE(Offer(3, {{7, kVocab - 1}}).ok());
  EXPECT_TRUE(absl::IsDataLoss(Offer(3, {{7, 1}})));
  EXPECT_TRUE(absl::IsDataLoss(Offer(2, {{7, 1}})));
  EXPECT_TRUE(absl::IsDataLoss(Offer(4, {{7, kVocab}})));
  EXPECT_TRUE(absl::IsDataLoss(Offer(4, {{7, -2}})));
  EXPECT_TRUE(absl::IsDataLoss(Offer(4, {{7, 1}, {8, 1}, {9, 1}})));
  EXPECT_EQ(Take(3), std::vector<int64_t>{3});
}

TEST_F(SampledTokensInboxTest, HoldsBackWhatDoesNotFitUntilThereIsRoom) {
  ASSERT_TRUE(Offer(1, {}).ok());
  ASSERT_TRUE(Offer(2, {}).ok());
  std::atomic<int> calls{0};
  const auto taken = inbox_.Offer({3, {}}, [&] {
    ++calls;
    ASSERT_TRUE(Offer(3, {}).ok());
  });
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(*taken);
  EXPECT_EQ(calls, 0);
  // It is what is waited for.
  EXPECT_EQ(Take(3), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(calls, 1);
}

TEST_F(SampledTokensInboxTest, WaitingHasAnEnd) {
  ASSERT_TRUE(Offer(1, {}).ok());
  EXPECT_TRUE(absl::IsUnavailable(TakeError(2, absl::Milliseconds(1))));
}

TEST_F(SampledTokensInboxTest, ASenderThatLeavesEndsTheWaiting) {
  ASSERT_TRUE(Offer(1, {}).ok());
  inbox_.EndOfStream();
  EXPECT_EQ(Take(1), std::vector<int64_t>{1});
  EXPECT_TRUE(absl::IsUnavailable(TakeError(2)));
  // Steps that need nothing of it go on.
  EXPECT_EQ(Take(0), std::vector<int64_t>());
}

TEST_F(SampledTokensInboxTest, CloseEndsEverythingWithItsStatus) {
  std::thread runner(
      [&] { EXPECT_EQ(TakeError(1), absl::AbortedError("over")); });
  inbox_.Close(absl::AbortedError("over"));
  runner.join();
  inbox_.Close(absl::InternalError("too late"));
  EXPECT_EQ(Offer(1, {}), absl::AbortedError("over"));
  EXPECT_EQ(TakeError(0), absl::AbortedError("over"));
}

TEST_F(SampledTokensInboxTest, HasOneSender) {
  EXPECT_TRUE(inbox_.AttachSender().ok());
  EXPECT_TRUE(absl::IsAlreadyExists(inbox_.AttachSender()));
}

}  // namespace
}  // namespace tern
