// What a stage's KV blocks hold from one epoch to the next.

#include "worker/stage_host.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "model/model_source.h"
#include "tests/testing/tiny_model.h"
#include "util/clock.h"
#include "util/logging.h"
#include "worker/stage_backend.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"

namespace tern {
namespace {

class Observer : public LoadObserver {
 public:
  void OnProgress(int64_t, int64_t) override {}
  void OnLoaded(absl::StatusOr<LoadedStage> loaded) override {
    loaded_ = std::move(loaded);
    done_.Notify();
  }
  bool IsCancelled() override { return false; }

  absl::StatusOr<LoadedStage> Await() {
    done_.WaitForNotification();
    return loaded_;
  }

 private:
  absl::Notification done_;
  absl::StatusOr<LoadedStage> loaded_;
};

// Waits for a number of results, or for the end.
class Sink : public StepSink {
 public:
  explicit Sink(int n_results) : n_left_(n_results) {}
  void OnResult(StepResult result) override {
    last_ = std::move(result);
    if (--n_left_ == 0) done_.Notify();
  }
  void OnEnd(absl::Status status) override {
    if (n_left_ <= 0) return;
    end_ = std::move(status);
    done_.Notify();
  }

  // The last result.
  absl::StatusOr<StepResult> Await() {
    done_.WaitForNotification();
    if (!end_.ok()) return end_;
    return last_;
  }

 private:
  int n_left_;
  StepResult last_{};
  absl::Status end_;
  absl::Notification done_;
};

class StageHostTest : public ::testing::Test {
 protected:
  StageHostTest() : bytes_(testing::TinyModelBytes({})) {
    auto source = ModelSource::FromGguf(bytes_);
    CHECK(source.ok()) << source.status().ToString();
    source_ = *std::move(source);
    StageHost::Options options;
    options.model_name = "tiny";
    options.memory_bytes = int64_t{1} << 30;
    host_ = std::make_unique<StageHost>(
        options, source_,
        [](const StageRequest&, int) -> absl::StatusOr<OutgoingLinks> {
          return OutgoingLinks();
        },
        Clock::System());
  }

  // Loads the whole model for the epoch.
  LoadedStage Load(int64_t epoch, int64_t kept_epoch, int n_blocks = 8) {
    StageRequest request = {};
    request.model = "tiny";
    request.pipeline_id = "p";
    request.epoch = epoch;
    request.model_fingerprint = source_->fingerprint();
    request.layer_end = source_->config().n_layers;
    request.stage_count = 1;
    request.numerics_id = "cpu-1/int8";
    request.kv_block_count = n_blocks;
    request.max_step_tokens = 32;
    request.kept_epoch = kept_epoch;
    auto observer = std::make_shared<Observer>();
    const absl::Status status = host_->Load(request, observer);
    CHECK(status.ok()) << status.ToString();
    const absl::StatusOr<LoadedStage> loaded = observer->Await();
    CHECK(loaded.ok()) << loaded.status().ToString();
    return *loaded;
  }

  // Runs plans in the epoch that was loaded last. The last result.
  absl::StatusOr<StepResult> Run(std::vector<StepPlan> plans) {
    const auto to = host_->plans();
    CHECK(to.ok()) << to.status().ToString();
    auto sink = std::make_shared<Sink>(static_cast<int>(plans.size()));
    CHECK(to->mailbox->Attach(sink).ok());
    for (StepPlan& plan : plans) {
      const absl::Status status = to->mailbox->Push(std::move(plan));
      if (!status.ok()) return status;
    }
    return sink->Await();
  }

  static std::vector<int32_t> Text() {
    std::vector<int32_t> tokens;
    for (int i = 1; i <= 17; ++i) tokens.push_back(i);
    return tokens;
  }
  // A text that fills block 3, and one token more.
  static StepPlan Whole() {
    return {1, {}, {{1, {}}}, {{1, 0, Text(), {3, 5}, true}}};
  }
  // The same from block 3 on, which is full.
  static StepPlan Rest() {
    StepRow row = {1, 16, {Text().back()}, {3, 6}, true};
    row.taken_over_block_count = 1;
    return {1, {}, {{1, {}}}, {row}};
  }

  testing::Bytes bytes_;
  std::shared_ptr<const ModelSource> source_;
  std::unique_ptr<StageHost> host_;
};

TEST_F(StageHostTest, ALaterEpochGoesOnWithTheBlocksOfAnEarlierOne) {
  EXPECT_FALSE(Load(1, 0).kept_kv);
  const auto undisturbed = Run({Whole()});
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  EXPECT_TRUE(Load(2, 1).kept_kv);
  const auto again = Run({Rest()});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->sampled[0].token_id, undisturbed->sampled[0].token_id);
}

TEST_F(StageHostTest, UnaskedTheBlocksAreEmpty) {
  Load(1, 0);
  ASSERT_TRUE(Run({Whole()}).ok());
  EXPECT_FALSE(Load(2, 0).kept_kv);
  EXPECT_TRUE(absl::IsInvalidArgument(Run({Rest()}).status()));
  // And then they are not what the first epoch left, either.
  EXPECT_FALSE(Load(3, 1).kept_kv);
  EXPECT_TRUE(absl::IsInvalidArgument(Run({Rest()}).status()));
}

TEST_F(StageHostTest, EpochsWithoutAStepChangeNothing) {
  Load(1, 0);
  ASSERT_TRUE(Run({Whole()}).ok());
  EXPECT_TRUE(Load(2, 1).kept_kv);
  EXPECT_TRUE(Load(3, 1).kept_kv);  // nobody heard that epoch 2 was loaded
  EXPECT_TRUE(Load(4, 3).kept_kv);
  EXPECT_TRUE(Run({Rest()}).ok());
}

// Whoever missed an epoch knows other texts than who ran it.
TEST_F(StageHostTest, WhatALaterEpochWroteIsNotWhatAnEarlierOneLeft) {
  Load(1, 0);
  ASSERT_TRUE(Run({Whole()}).ok());
  EXPECT_TRUE(Load(2, 1).kept_kv);
  ASSERT_TRUE(Run({Rest()}).ok());
  EXPECT_FALSE(Load(3, 1).kept_kv);
  ASSERT_TRUE(Run({Whole()}).ok());
  EXPECT_TRUE(Load(4, 3).kept_kv);
}

TEST_F(StageHostTest, APoolOfAnotherShapeIsEmpty) {
  Load(1, 0);
  ASSERT_TRUE(Run({Whole()}).ok());
  EXPECT_FALSE(Load(2, 1, /*n_blocks=*/9).kept_kv);
  EXPECT_TRUE(absl::IsInvalidArgument(Run({Rest()}).status()));
}

}  // namespace
}  // namespace tern
