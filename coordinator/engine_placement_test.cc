// Which pipelines workers become, and when that changes.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/engine_fixture.h"
#include "gtest/gtest.h"
#include "model/stage_plan.h"

namespace tern {
namespace {

class EnginePlacementTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    options_.placement.n_stages = 0;
    options_.cluster.lease_duration = absl::Hours(1);
    options_.recut.interval = absl::Seconds(60);
    // Arithmetic alone: what more workers share is faster.
    step_times_ = {1e-6, 0.01, 0, 0, 0};
  }

  // Memory for so many of the four layers, the head and the KV cache.
  void GiveMemoryFor(int n_layers) {
    const StageCost cost =
        CostOf(Config(), {0, n_layers, false, true}, true, 0, 16);
    memory_bytes_ =
        (cost.weight_bytes + 2048 / 16 * cost.kv_block_bytes + 1000) * 10 / 9;
  }

  // "w0:0-2 w1:2-4" for each pipeline.
  static std::vector<std::string> Placed(const Engine::Snapshot& snapshot) {
    std::vector<std::string> all;
    for (const auto& pipeline : snapshot.pipelines) {
      std::string& text = all.emplace_back();
      for (const auto& stage : pipeline.stages) {
        absl::StrAppend(&text, text.empty() ? "" : " ", stage.placed.worker_id,
                        ":", stage.placed.range.layer_begin, "-",
                        stage.placed.range.layer_end);
      }
    }
    return all;
  }
  // So many looks for a better cut, with a second before each; five in a row
  // are enough.
  void Look(int n_times) {
    for (int i = 0; i < n_times; ++i) {
      clock_.Advance(absl::Seconds(1));
      // The first is answered before the turn that looks, the second after.
      Inspect();
      Inspect();
    }
  }
  void AwaitPlaced(const std::vector<std::string>& expected) {
    Engine::Snapshot snapshot = Await([&](const auto& s) {
      return s.phase == Phase::kReady && Placed(s) == expected;
    });
    EXPECT_EQ(Placed(snapshot), expected);
  }
};

TEST_F(EnginePlacementTest, WorkersThatFitTheModelServeAlone) {
  StartEngine(3);
  AwaitPlaced({"w0:0-4", "w1:0-4", "w2:0-4"});
}

TEST_F(EnginePlacementTest, WaitsForAsManyAsTheModelNeeds) {
  GiveMemoryFor(2);
  StartEngine(1);
  Engine::Snapshot snapshot = Inspect();
  EXPECT_EQ(snapshot.phase, Phase::kWaiting);
  EXPECT_NE(snapshot.phase_text.find("worker w0 offers"), std::string::npos)
      << snapshot.phase_text;
  EXPECT_NE(snapshot.workers[0].why_idle.find("do not fit"), std::string::npos);
  ASSERT_TRUE(Register("w1", 1).ok());
  AwaitPlaced({"w0:0-2 w1:2-4"});
  snapshot = Inspect();
  EXPECT_EQ(snapshot.workers[0].why_idle, "");
  // 2,048 tokens hold 16 sequences of 128, eight to a micro-batch.
  EXPECT_EQ(snapshot.pipelines[0].forecast.n_running, 16);
  EXPECT_NEAR(snapshot.pipelines[0].forecast.cycle_s, 2 * 2 * 8 * 0.01, 1e-3);
}

TEST_F(EnginePlacementTest, ASpareRelievesAPipelineWithoutChangingAnswers) {
  GiveMemoryFor(2);
  StartEngine(2);
  AwaitPlaced({"w0:0-2 w1:2-4"});
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 40, 60));
  for (int i = 0; i < 20; ++i) {
    AwaitHeldResult();
    ReleaseResults(/*hold_next=*/true);
  }
  AwaitHeldResult();
  // Alone it does not hold the model; two layers for each of two are the
  // slowest stage, and so are they with three, unless one is slow.
  ASSERT_TRUE(Register("w2", 1).ok());
  EXPECT_NE(Inspect().workers[2].why_idle, "");
  SlowDown("w0", 4);
  EXPECT_GT(Inspect().pipelines[0].recut_gain, 0.5);
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.held.clear();
    cluster_.hold_results = false;
  }
  clock_.Advance(absl::Seconds(61));
  Look(5);
  // Who has layers keeps them.
  AwaitPlaced({"w2:0-2 w1:2-4"});
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(40, 60));
}

TEST_F(EnginePlacementTest, ASlowWorkerGivesLayersAwayAtMostOnceAnInterval) {
  options_.placement.n_stages = 2;
  StartEngine(2);
  AwaitPlaced({"w0:0-2 w1:2-4"});
  SlowDown("w1", 3);
  EXPECT_TRUE(Inspect().workers[1].worker.slow);
  clock_.Advance(absl::Seconds(53));
  Look(5);
  EXPECT_EQ(Placed(Inspect()), (std::vector<std::string>{"w0:0-2 w1:2-4"}));
  clock_.Advance(absl::Seconds(2));
  Look(5);
  AwaitPlaced({"w0:0-3 w1:3-4"});
  // It is as fast as before: back again, after a while.
  SlowDown("w1", 1);
  clock_.Advance(absl::Seconds(50));
  Look(5);
  EXPECT_EQ(Placed(Inspect()), (std::vector<std::string>{"w0:0-3 w1:3-4"}));
  clock_.Advance(absl::Seconds(11));
  // A moment's relief is nothing.
  Look(4);
  SlowDown("w1", 3);
  Look(1);
  SlowDown("w1", 1);
  Look(4);
  EXPECT_EQ(Placed(Inspect()), (std::vector<std::string>{"w0:0-3 w1:3-4"}));
  Look(1);
  AwaitPlaced({"w0:0-2 w1:2-4"});
}

TEST_F(EnginePlacementTest, NoIntervalIsNever) {
  options_.placement.n_stages = 2;
  options_.recut.interval = absl::ZeroDuration();
  StartEngine(2);
  AwaitPlaced({"w0:0-2 w1:2-4"});
  SlowDown("w1", 10);
  clock_.Advance(absl::Minutes(50));
  Look(5);
  EXPECT_GT(Inspect().pipelines[0].recut_gain, 0.5);
  EXPECT_EQ(Placed(Inspect()), (std::vector<std::string>{"w0:0-2 w1:2-4"}));
}

TEST_F(EnginePlacementTest, ADrainingWorkerLeavesWhenTheOthersHoldTheModel) {
  GiveMemoryFor(2);
  StartEngine(3);
  Await([](const auto& s) { return s.phase == Phase::kReady; });
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.held.clear();
    cluster_.hold_results = false;
  }
  Heartbeat("w0", 0, /*is_draining=*/true);
  Await([](const auto& s) { return s.workers[0].stage < 0; });
  // Who has layers keeps them.
  AwaitPlaced({"w2:0-2 w1:2-4"});
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
}

TEST_F(EnginePlacementTest, AWorkerThatCannotLoadItsStageGetsAnother) {
  options_.placement.n_stages = 2;
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  StartEngine(2);
  Await([](const auto& s) {
    return Placed(s) == std::vector<std::string>{"w0:0-2 w1:2-4"};
  });
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.listeners.back().on_lost(1, absl::DataLossError("blk.3 is bad"));
  }
  const std::string why =
      Await([](const auto& s) { return s.pipelines.empty(); })
          .workers[1]
          .why_idle;
  EXPECT_NE(why.find("it could not load layers 2-3: blk.3 is bad"),
            std::string::npos)
      << why;
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = false;
  }
  clock_.Advance(absl::Seconds(1));
  AwaitPlaced({"w1:0-2 w0:2-4"});
  EXPECT_EQ(Inspect().workers[1].worker.refused.size(), 1u);
  ASSERT_TRUE(Register("w1", 1).ok());
  EXPECT_TRUE(Inspect().workers[1].worker.refused.empty());
}

}  // namespace
}  // namespace tern
