// A published shape at its full depth (bitnet_b1_58-large: 24 layers of 1536)
// against an independent implementation, layer by layer: each gets that
// implementation's hidden state, so that differences do not grow from layer to
// layer. What they would grow to, and why: README.md here.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "model/model_source.h"
#include "model/stage_plan.h"
#include "tests/parity/trace_file.h"
#include "tools/presets.h"
#include "tools/random_model.h"
#include "worker/kv_cache.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

constexpr char kTrace[] = "tests/parity/testdata/depth_trace.bin";
constexpr int64_t kSequence = 1;
constexpr int kLogitStep = 8;  // every how manieth logit the file has

// Of the largest of a row: sums of a few thousand float32 products, and one
// residual on top.
constexpr double kTolerance = 2e-6;

class DepthParityTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = new std::string(::testing::TempDir() + "/depth_XXXXXX");
    const int fd = mkstemp(&(*path_)[0]);
    ASSERT_GE(fd, 0);
    close(fd);
    RandomModelOptions options;
    options.config = FindPreset("700m")->config;
    options.overwrite = true;
    ThreadPool pool(2);
    auto written = WriteRandomModel(*path_, options, &pool,
                                    [](int64_t, int64_t) { return true; });
    ASSERT_TRUE(written.ok()) << written.status();
  }
  static void TearDownTestSuite() { unlink(path_->c_str()); }

  void SetUp() override {
    auto trace = TraceFile::Read(kTrace);
    ASSERT_TRUE(trace.ok()) << trace.status();
    trace_ = *std::move(trace);
    auto source = ModelSource::Open(*path_);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }

  // Runs a stage of some layers at position 0 on `hidden`, and returns what it
  // makes of it; `logits` is filled by a stage with the head.
  std::vector<float> Run(const StageRange& range,
                         const std::vector<float>& hidden,
                         std::vector<float>* logits = nullptr) {
    const ModelConfig& c = source_->config();
    ThreadPool pool(2);
    auto weights = LoadStageWeights(
        source_, {range, HeadMode::kStored}, &pool, [](int64_t, int64_t) {},
        [] { return false; });
    EXPECT_TRUE(weights.ok()) << weights.status();
    auto kv = KvCache::Create({std::max(1, range.layer_end - range.layer_begin),
                               c.n_kv_heads, c.head_dim, 1, kKvBlockSize});
    EXPECT_TRUE(kv.ok()) << kv.status();
    EXPECT_TRUE((*kv)->Open(kSequence).ok());
    EXPECT_TRUE((*kv)->Extend(kSequence, {0}, 0, 1).ok());
    Stage stage(*std::move(weights), kv->get(), &pool,
                &KernelsFor(SupportedIsas().back()), 1);
    std::copy(hidden.begin(), hidden.end(), stage.hidden());
    const std::vector<int32_t> tokens = trace_.Get<int32_t>("tokens");
    const MicroBatchRow row = {tokens, 0, (*kv)->BlockTable(kSequence), 1};
    stage.Forward({row}, stage.hidden());
    if (logits != nullptr) {
      stage.ComputeLogits(0, 1, stage.hidden());
      logits->assign(stage.logits(0).begin(), stage.logits(0).end());
    }
    return std::vector<float>(stage.hidden(), stage.hidden() + c.hidden_size);
  }

  // The largest difference, as a share of the largest expected value.
  static double Difference(const std::vector<float>& actual,
                           const std::vector<float>& expected) {
    EXPECT_EQ(actual.size(), expected.size());
    double largest = 0;
    double difference = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max<double>(largest, std::fabs(expected[i]));
      difference =
          std::max<double>(difference, std::fabs(actual[i] - expected[i]));
    }
    return difference / largest;
  }

  static std::string* path_;
  TraceFile trace_;
  std::shared_ptr<const ModelSource> source_;
};

std::string* DepthParityTest::path_ = nullptr;

TEST_F(DepthParityTest, EveryLayerIsTheSame) {
  std::vector<float> x = trace_.Get<float>("embedding");
  const int n_layers = source_->config().n_layers;
  ASSERT_EQ(n_layers, 24);
  for (int layer = 0; layer < n_layers; ++layer) {
    const std::vector<float> expected =
        trace_.Get<float>(absl::StrCat("blk.", layer));
    EXPECT_LT(Difference(Run({layer, layer + 1, false, false}, x), expected),
              kTolerance)
        << "layer " << layer;
    x = expected;
  }
}

TEST_F(DepthParityTest, EmbeddingAndHeadAreTheSame) {
  const int n_layers = source_->config().n_layers;
  // The last layer with the head behind it; its input is the one before's.
  std::vector<float> logits;
  Run({n_layers - 1, n_layers, false, true},
      trace_.Get<float>(absl::StrCat("blk.", n_layers - 2)), &logits);
  std::vector<float> some;
  for (size_t i = 0; i < logits.size(); i += kLogitStep) {
    some.push_back(logits[i]);
  }
  EXPECT_LT(Difference(some, trace_.Get<float>("logits_every_8th")),
            kTolerance);

  EXPECT_LT(Difference(Run({0, 1, true, false},
                           std::vector<float>(source_->config().hidden_size)),
                       trace_.Get<float>("blk.0")),
            kTolerance);
}

}  // namespace
}  // namespace tern
