#include "worker/step_times_measurement.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/step_times.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 3;
  config.hidden_size = 512;
  config.ffn_size = 1024;
  config.n_heads = 8;
  config.n_kv_heads = 4;
  config.head_dim = 64;
  config.vocab_size = 3000;
  config.context_length = 4096;
  return config;
}

// How long is the machine's business; that a wide layer takes longer than a
// narrow one, and a head of many rows longer than one of few, is not.
TEST(MeasureStepTimes, FollowsTheShapeOfTheModel) {
  ThreadPool pool(1);
  const auto measure = [&](const ModelConfig& config) {
    const auto times = MeasureStepTimes(config, TernaryPacking::k2Bit,
                                        BestKernels(), &pool, absl::Seconds(1));
    EXPECT_TRUE(times.ok()) << times.status();
    return *times;
  };
  const StepLoad load = {16, 16 * 256, 16};
  const StepTimes small = measure(Config());
  ASSERT_TRUE(small.is_known());
  EXPECT_GT(HeadSeconds(small, load), 0);
  ModelConfig config = Config();
  config.ffn_size *= 16;
  config.vocab_size *= 16;
  const StepTimes large = measure(config);
  EXPECT_GT(LayerSeconds(large, load), 2 * LayerSeconds(small, load));
  EXPECT_GT(HeadSeconds(large, load), 2 * HeadSeconds(small, load));
}

TEST(MeasureStepTimes, TakesModelsWithoutSubNormsAndEveryPacking) {
  ThreadPool pool(2);
  ModelConfig config = Config();
  config.has_sub_norms = false;
  config.activation = Activation::kSilu;
  for (const TernaryPacking packing : kAllTernaryPackings) {
    if (!BestKernels().has_packing(packing)) continue;
    const auto times = MeasureStepTimes(config, packing, BestKernels(), &pool,
                                        absl::ZeroDuration());
    ASSERT_TRUE(times.ok()) << times.status();
    EXPECT_TRUE(times->is_known());
  }
}

}  // namespace
}  // namespace tern
