#include "coordinator/recut.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/placement.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "model/stage_plan.h"

namespace tern {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 12;
  config.hidden_size = 256;
  config.ffn_size = 512;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = 1000;
  config.context_length = 160;
  return config;
}

// Two stages of six layers on workers that take 10 ms a layer and token.
class RecutTest : public ::testing::Test {
 protected:
  RecutTest() {
    options_.n_stages = 0;
    for (int i = 0; i < 2; ++i) Add(&own_, 1);
    // Neither holds the model alone.
    ranges_ = {{0, 6, true, false}, {6, 12, false, true}};
  }

  void Add(std::vector<Worker>* workers, double slowdown) {
    Worker worker;
    worker.registration.memory_bytes = 20 << 20;
    worker.registration.step_times.layer_token_s = 0.01;
    worker.registration.step_times.layer_step_s = 1e-6;
    worker.slowdown = slowdown;
    workers->push_back(worker);
  }

  std::vector<PlacementCandidate> Candidates(
      const std::vector<Worker>& workers) const {
    std::vector<PlacementCandidate> candidates;
    for (const Worker& worker : workers) candidates.push_back({&worker, {}});
    return candidates;
  }

  RecutForecast Forecast() {
    std::vector<PlacementCandidate> own = Candidates(own_);
    for (size_t i = 0; i < own.size(); ++i) own[i].holds = ranges_[i];
    RunningPipeline pipeline = {own, ranges_, 640, n_tokens_};
    EXPECT_EQ(ForecastPipeline(Config(), options_, pipeline).tokens_per_second,
              ForecastRecut(Config(), options_, pipeline, {}).rate_now);
    return ForecastRecut(Config(), options_, pipeline, Candidates(spares_));
  }

  PlacementOptions options_;
  RecutOptions recut_;
  std::vector<Worker> own_, spares_;
  std::vector<StageRange> ranges_;
  int64_t n_tokens_ = 0;
};

TEST_F(RecutTest, AnEvenPipelineStaysAsItIs) {
  const RecutForecast forecast = Forecast();
  EXPECT_GT(forecast.rate_now, 0);
  EXPECT_LT(forecast.gain(), 0.01);
  EXPECT_FALSE(RecutPays(recut_, forecast));
}

// Six layers at three times the time, or three of them: 4/3 as long for nine.
TEST_F(RecutTest, ASlowWorkerGivesLayersAway) {
  own_[1].slowdown = 3;
  const RecutForecast forecast = Forecast();
  EXPECT_NEAR(forecast.gain(), 1, 0.02);
  EXPECT_TRUE(RecutPays(recut_, forecast));
  recut_.min_gain = 1.5;
  EXPECT_FALSE(RecutPays(recut_, forecast));
}

// Who would have to take them has refused them: letting the pipeline go would
// form the same one again.
TEST_F(RecutTest, LayersThatNobodyElseCanLoadStayWithASlowWorker) {
  own_[1].slowdown = 3;
  own_[0].refused = {{{6, 12, false, true}, absl::DataLossError("damaged")}};
  const RecutForecast forecast = Forecast();
  EXPECT_LT(forecast.gain(), 0.01);
  EXPECT_FALSE(RecutPays(recut_, forecast));
}

TEST_F(RecutTest, ASpareRelievesOrTakesOver) {
  Add(&spares_, 1);
  // Three stages of four layers instead of two of six.
  EXPECT_NEAR(Forecast().gain(), 0.5, 0.02);
  options_.n_stages = 2;
  EXPECT_LT(Forecast().gain(), 0.01);
  own_[0].slowdown = 3;
  // The spare in place of the slow one.
  EXPECT_NEAR(Forecast().gain(), 2, 0.02);
}

TEST_F(RecutTest, ReplayingMuchForLittleDoesNotPay) {
  own_[1].slowdown = 3;
  n_tokens_ = 1000;
  EXPECT_TRUE(RecutPays(recut_, Forecast()));
  // Nine layers of 10 ms for each token: 25 hours.
  n_tokens_ = 1'000'000;
  EXPECT_GT(Forecast().outage, absl::Hours(24));
  EXPECT_FALSE(RecutPays(recut_, Forecast()));
}

TEST_F(RecutTest, CutsThatWereAskedForStay) {
  own_[1].slowdown = 3;
  options_.n_stages = 2;
  options_.layer_cuts = {6};
  EXPECT_EQ(Forecast().gain(), 0);
}

}  // namespace
}  // namespace tern
