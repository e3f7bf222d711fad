#include "tools/scorer.h"

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"
#include "worker/kv_cache.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"

namespace tern {
namespace {

using testing::TinyModel;
using testing::TinyModelOptions;

bool GoOn(int64_t, int64_t) { return true; }

constexpr char kText[] =
    "It is a truth universally acknowledged, that a single man in possession "
    "of a good fortune, must be in want of a wife.";

// The sum of -ln(p) in the plainest way: for each token the whole prefix anew,
// as one prompt.
double PlainNll(const std::string& path, HeadMode mode, int window) {
  std::shared_ptr<const ModelSource> source =
      std::move(*ModelSource::Open(path));
  const ModelConfig config = source->config();
  const auto tokenizer = source->LoadTokenizer();
  const auto tokens = (*tokenizer)->Encode(kText, {false, false});
  ThreadPool pool(1);
  const StageSpec spec = {{0, config.n_layers, true, true}, mode};
  auto weights = LoadStageWeights(
      source, spec, &pool, [](int64_t, int64_t) {}, [] { return false; });
  const int n_blocks = window / kKvBlockSize + 1;
  auto kv = KvCache::Create(
      {config.n_layers, config.n_kv_heads, config.head_dim, n_blocks, window});
  Stage stage(*weights, kv->get(), &pool, &BestKernels(), window);
  double total = 0;
  for (size_t i = 0; i < tokens->size(); ++i) {
    std::vector<int32_t> prefix = {(*tokenizer)->bos_id()};
    for (size_t j = i / window * window; j < i; ++j) {
      prefix.push_back((*tokens)[j]);
    }
    std::vector<int32_t> blocks;
    for (size_t b = 0; b * kKvBlockSize < prefix.size(); ++b) {
      blocks.push_back(static_cast<int32_t>(b));
    }
    (*kv)->Clear();
    EXPECT_TRUE((*kv)->Open(1).ok());
    EXPECT_TRUE(
        (*kv)->Extend(1, blocks, 0, static_cast<int>(prefix.size())).ok());
    stage.Forward({{prefix, 0, (*kv)->BlockTable(1), true}}, stage.hidden());
    stage.ComputeLogits(0, 1, stage.hidden());
    total += NegativeLogLikelihood(stage.logits(0), (*tokens)[i]);
  }
  return total;
}

class ScorerTest : public ::testing::Test {
 protected:
  ScorerTest() : path_(testing::WriteTinyModel(TinyModelOptions())) {
    options_.window_tokens = 20;
    options_.isa = BestKernels().isa;
  }

  absl::StatusOr<TextScore> Score(const std::string& text = kText) {
    auto scorer = Scorer::Load(path_, options_, &GoOn);
    if (!scorer.ok()) return scorer.status();
    return (*scorer)->Score(text, &GoOn);
  }

  const std::string path_;
  Scorer::Options options_;
};

TEST_F(ScorerTest, EqualsOnePromptForEachToken) {
  for (HeadMode mode : {HeadMode::kStored, HeadMode::kInt8}) {
    for (int window : {2, 20, 256}) {
      options_.head_mode = mode;
      options_.window_tokens = window;
      const auto score = Score();
      ASSERT_TRUE(score.ok()) << score.status();
      // Equal logits; sums in another order.
      EXPECT_NEAR(score->nll, PlainNll(path_, mode, window), 1e-12 * score->nll)
          << HeadModeName(mode) << " " << window;
      EXPECT_EQ(score->n_bytes, static_cast<int64_t>(sizeof(kText) - 1));
      EXPECT_EQ(score->n_windows, (score->n_tokens + window - 1) / window);
    }
  }
}

TEST_F(ScorerTest, NothingButTheModelAndTheTextChangesTheResult) {
  const double expected = Score()->nll;
  options_.n_threads = 3;
  EXPECT_EQ(Score()->nll, expected);
  for (Isa isa : SupportedIsas()) {
    options_.isa = isa;
    EXPECT_EQ(Score()->nll, expected) << IsaName(isa);
  }
  // One window at a time.
  options_.kv_bytes_max = 0;
  const auto scorer = Scorer::Load(path_, options_, &GoOn);
  ASSERT_TRUE(scorer.ok());
  EXPECT_EQ((*scorer)->together(), 1);
  EXPECT_EQ((*scorer)->Score(kText, &GoOn)->nll, expected);
  // And again: nothing is left of the text before.
  EXPECT_EQ((*scorer)->Score(kText, &GoOn)->nll, expected);
}

TEST_F(ScorerTest, MeasuresFollowFromTheSum) {
  TextScore score;
  score.n_tokens = 4;
  score.n_bytes = 16;
  score.nll = 8 * std::log(2.0);
  EXPECT_DOUBLE_EQ(score.mean_nll(), 2 * std::log(2.0));
  EXPECT_DOUBLE_EQ(score.perplexity(), 4);
  EXPECT_DOUBLE_EQ(score.bits_per_byte(), 0.5);
}

TEST_F(ScorerTest, WindowsMaxScoresTheFirstOnes) {
  options_.windows_max = 2;
  const auto score = Score();
  ASSERT_TRUE(score.ok());
  EXPECT_EQ(score->n_windows, 2);
  EXPECT_EQ(score->n_tokens, 40);
}

TEST_F(ScorerTest, WithoutABosTheFirstTokenIsAnInputOnly) {
  const std::string path =
      testing::WriteTempFile(TinyModel(TinyModelOptions())
                                 .SetBool("tokenizer.ggml.add_bos_token", false)
                                 .Build());
  options_.window_tokens = 10;
  const auto scorer = Scorer::Load(path, options_, &GoOn);
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  const auto score = (*scorer)->Score("01234567890123456789x", &GoOn);
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(score->n_windows, 2);  // nothing to predict in the third
  EXPECT_EQ(score->n_tokens, 18);
  EXPECT_EQ(score->n_bytes, 18);
}

TEST_F(ScorerTest, WhatCannotBeIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Score("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Score("\xff").status()));
  for (int window : {-1, 1, 257}) {
    options_.window_tokens = window;
    const auto score = Score();
    EXPECT_TRUE(absl::IsInvalidArgument(score.status())) << window;
  }
  options_.window_tokens = 0;
  EXPECT_EQ((*Scorer::Load(path_, options_, &GoOn))->window_tokens(), 256);
}

TEST_F(ScorerTest, InterruptionIsCancelled) {
  const auto stop = [](int64_t, int64_t) { return false; };
  EXPECT_TRUE(absl::IsCancelled(Scorer::Load(path_, options_, stop).status()));
  const auto scorer = Scorer::Load(path_, options_, &GoOn);
  ASSERT_TRUE(scorer.ok());
  EXPECT_TRUE(absl::IsCancelled((*scorer)->Score(kText, stop).status()));
}

TEST_F(ScorerTest, HeadsAreCompared) {
  const auto alone = Score();
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->divergence, 0);
  options_.compare_heads = true;
  const auto score = Score();
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(score->nll, alone->nll);
  // The int8 head is near the stored one, and not the same.
  EXPECT_GT(score->divergence, 0);
  EXPECT_LT(score->divergence / score->n_tokens, 0.01);
  EXPECT_GT(score->n_same_choice, score->n_tokens / 2);
  EXPECT_LE(score->n_same_choice, score->n_tokens);
}

TEST(Divergence, IsThatOfSoftmax) {
  const std::vector<float> even = {2.0f, 2.0f};
  // Probabilities 3/4 and 1/4.
  const std::vector<float> odd = {std::log(3.0f), 0.0f};
  EXPECT_NEAR(Divergence(odd, even),
              0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(Divergence(even, odd),
              0.5 * std::log(0.5 / 0.75) + 0.5 * std::log(0.5 / 0.25), 1e-7);
  EXPECT_EQ(Divergence(odd, odd), 0);
}

TEST(NegativeLogLikelihood, IsThatOfSoftmax) {
  const std::vector<float> even(8, 3.0f);
  EXPECT_NEAR(NegativeLogLikelihood(even, 5), std::log(8.0), 1e-15);
  // Far apart: no overflow, no zero.
  const std::vector<float> far = {1000.0f, -1000.0f};
  EXPECT_EQ(NegativeLogLikelihood(far, 0), 0);
  EXPECT_EQ(NegativeLogLikelihood(far, 1), 2000);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(NegativeLogLikelihood({nan, 1.0f}, 1)));
  EXPECT_TRUE(std::isnan(NegativeLogLikelihood({1.0f, nan}, 0)));
}

}  // namespace
}  // namespace tern
