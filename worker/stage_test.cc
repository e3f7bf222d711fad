#include "worker/stage.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "tests/testing/tiny_model.h"
#include "util/logging.h"
#include "worker/kv_cache.h"
#include "worker/machine.h"
#include "worker/stage_weights.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

constexpr int kLayers = 3;
constexpr int kBlocksOfASequence = 8;
constexpr int kSequences = 4;

struct Step {
  std::string name;
  std::vector<int> tokens;  // of each sequence, from position 0 on
  int per_layer;
  int beside;  // embedding, last residual, head
};

class StageBarriers : public ::testing::TestWithParam<Step> {};

// docs/architecture.md says of each what it is for.
TEST_P(StageBarriers, AreAsFewAsDocumented) {
  testing::TinyModelOptions options;
  options.n_layers = kLayers;
  const testing::Bytes bytes = testing::TinyModelBytes(options);
  auto opened = ModelSource::FromGguf(bytes);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const std::shared_ptr<const ModelSource> source = *std::move(opened);
  const ModelConfig& c = source->config();
  ThreadPool pool(2);
  const auto weights = LoadStageWeights(
      source, {{0, kLayers, true, true}, HeadMode::kInt8}, &pool,
      [](int64_t, int64_t) {}, [] { return false; });
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto kv =
      KvCache::Create({kLayers, c.n_kv_heads, c.head_dim,
                       kSequences * kBlocksOfASequence, c.context_length});
  ASSERT_TRUE(kv.ok()) << kv.status();

  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<int32_t>> tables;
  int n_tokens = 0;
  for (const int n : GetParam().tokens) {
    std::vector<int32_t>& table = tables.emplace_back();
    for (int i = 0; i < kBlocksOfASequence; ++i) {
      table.push_back(static_cast<int32_t>(tokens.size() * kBlocksOfASequence) +
                      i);
    }
    tokens.emplace_back(n, 1);
    n_tokens += n;
  }
  std::vector<MicroBatchRow> rows;
  for (size_t i = 0; i < tokens.size(); ++i) {
    rows.push_back({tokens[i], 0, tables[i], 1});
  }
  Stage stage(*weights, kv->get(), &pool, &BestKernels(), n_tokens);
  const int64_t before = pool.barrier_count();
  stage.Forward(rows, stage.hidden());
  stage.ComputeLogits(0, stage.logit_row_count(), stage.hidden());
  EXPECT_EQ(pool.barrier_count() - before,
            GetParam().per_layer * kLayers + GetParam().beside);
}

INSTANTIATE_TEST_SUITE_P(
    Steps, StageBarriers,
    ::testing::Values(Step{"OneToken", {1}, 5, 1},
                      Step{"OneOfEachSequence", {1, 1, 1, 1}, 10, 4},
                      Step{"APrompt", {40}, 10, 3},
                      Step{"APromptBesideOthers", {17, 1, 1}, 10, 4}),
    [](const ::testing::TestParamInfo<Step>& info) { return info.param.name; });

// Logits of one sequence of `n_tokens`, with weights packed and computed by the
// threads of a pool.
std::vector<float> LogitsOn(ThreadPool* pool, int n_tokens) {
  testing::TinyModelOptions options;
  options.n_layers = kLayers;
  const testing::Bytes bytes = testing::TinyModelBytes(options);
  auto opened = ModelSource::FromGguf(bytes);
  CHECK(opened.ok()) << opened.status().ToString();
  const std::shared_ptr<const ModelSource> source = *std::move(opened);
  const ModelConfig& c = source->config();
  const auto weights = LoadStageWeights(
      source, {{0, kLayers, true, true}, HeadMode::kInt8}, pool,
      [](int64_t, int64_t) {}, [] { return false; });
  CHECK(weights.ok()) << weights.status().ToString();
  const auto kv = KvCache::Create({kLayers, c.n_kv_heads, c.head_dim,
                                   kBlocksOfASequence, c.context_length});
  CHECK(kv.ok()) << kv.status().ToString();
  std::vector<int32_t> tokens;
  for (int i = 0; i < n_tokens; ++i) tokens.push_back(i * 7 % c.vocab_size);
  std::vector<int32_t> table;
  for (int i = 0; i < kBlocksOfASequence; ++i) table.push_back(i);
  Stage stage(*weights, kv->get(), pool, &BestKernels(), n_tokens);
  stage.Forward({{tokens, 0, table, 1}}, stage.hidden());
  stage.ComputeLogits(0, 1, stage.hidden());
  return {stage.logits(0).begin(), stage.logits(0).end()};
}

// Matrices that are cut between nodes give the bits of whole ones. The nodes
// are a tale: the threads share a processor.
TEST(Stage, WeightsOfSeveralNodesGiveTheSameBits) {
  ThreadPlacement placement;
  placement.n_threads = 5;
  placement.processors.assign(5, AllowedProcessors()[0]);
  placement.nodes = {0, 0, 1, 1, 2};
  ThreadPool pool(placement);
  ThreadPool alone(1);
  for (const int n_tokens : {1, 40}) {
    EXPECT_EQ(LogitsOn(&pool, n_tokens), LogitsOn(&alone, n_tokens))
        << n_tokens << " tokens";
  }
}

}  // namespace
}  // namespace tern
