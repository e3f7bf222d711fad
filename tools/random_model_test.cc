#include "tools/random_model.h"

#include <unistd.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/float16.h"
#include "kernels/kernels.h"
#include "model/gguf_reader.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "tools/convert_model.h"
#include "tools/presets.h"
#include "tools/scorer.h"
#include "util/crc32c.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

bool GoOn(int64_t, int64_t) { return true; }

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class RandomModelTest : public ::testing::Test {
 protected:
  RandomModelTest() {
    options_.config = FindPreset("nano")->config;
    options_.config.vocab_size = 600;
    options_.config.name = "random";
  }
  ~RandomModelTest() override {
    for (const std::string& path : paths_) unlink(path.c_str());
  }

  std::string NewPath() {
    paths_.push_back(absl::StrCat(::testing::TempDir(), "/random-", getpid(),
                                  "-", paths_.size(), ".gguf"));
    return paths_.back();
  }

  std::string Write(const RandomModelOptions& options, int n_threads = 1) {
    const std::string path = NewPath();
    ThreadPool pool(n_threads);
    const auto bytes = WriteRandomModel(path, options, &pool, &GoOn);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return path;
  }

  absl::Status StatusOf(const RandomModelOptions& options) {
    ThreadPool pool(1);
    return WriteRandomModel(NewPath(), options, &pool, &GoOn).status();
  }

  RandomModelOptions options_;
  std::vector<std::string> paths_;
};

TEST_F(RandomModelTest, OneSeedIsOneFileForEver) {
  const std::string file = ReadAll(Write(options_));
  EXPECT_EQ(Crc32c(file.data(), file.size()), 1978398319u);
  EXPECT_EQ(ReadAll(Write(options_, 3)), file);
  options_.seed = 2;
  EXPECT_NE(ReadAll(Write(options_)), file);
}

TEST_F(RandomModelTest, TernaryTypesHoldTheSameMatrices) {
  const std::string i2s = Write(options_);
  ThreadPool pool(2);
  for (TernaryFormat type : {TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    options_.type = type;
    ConvertOptions to;
    to.type = type;
    const std::string converted = NewPath();
    ASSERT_TRUE(ConvertModel(i2s, converted, to, &pool, &GoOn).ok());
    EXPECT_TRUE(ReadAll(Write(options_)) == ReadAll(converted))
        << TernaryFormatName(type);
  }
}

TEST_F(RandomModelTest, EveryArchitectureAndDenseTypeIsServed) {
  for (const char* preset : {"nano", "700m", "8b"}) {
    for (DenseEncoding dense : {DenseEncoding::kF16, DenseEncoding::kF32,
                                DenseEncoding::kBF16, DenseEncoding::kQ8_0}) {
      const ModelConfig& named = FindPreset(preset)->config;
      options_.config.architecture = named.architecture;
      options_.config.activation = named.activation;
      options_.config.rope_kind = named.rope_kind;
      options_.config.has_sub_norms = named.has_sub_norms;
      options_.config.tied_head = named.tied_head;
      options_.dense = dense;
      const auto source = ModelSource::Open(Write(options_));
      ASSERT_TRUE(source.ok()) << source.status();
      const ModelConfig& config = (*source)->config();
      EXPECT_EQ(config.architecture, named.architecture);
      EXPECT_EQ(config.activation, named.activation);
      EXPECT_EQ(config.rope_kind, named.rope_kind);
      EXPECT_EQ(config.has_sub_norms, named.has_sub_norms);
      EXPECT_EQ(config.tied_head, named.tied_head);
      EXPECT_EQ(config.vocab_size, 600);
      EXPECT_EQ((*source)->FindHead()->encoding, dense);
      EXPECT_TRUE((*source)->LoadTokenizer().ok());
      EXPECT_TRUE((*source)->warnings().empty());
    }
  }
}

// Of logits with deviation s a token drawn at random has a mean -ln(p) of
// ln(vocabulary) + s^2 / 2, a little less for a vocabulary this small.
TEST_F(RandomModelTest, LogitsHaveADeviationOfAboutThree) {
  for (const char* preset : {"nano", "700m", "8b"}) {
    const ModelConfig& named = FindPreset(preset)->config;
    options_.config.architecture = named.architecture;
    options_.config.activation = named.activation;
    options_.config.has_sub_norms = named.has_sub_norms;
    options_.config.tied_head = named.tied_head;
    options_.config.n_layers = 8;
    Scorer::Options run;
    run.isa = BestKernels().isa;
    run.n_threads = 2;
    run.window_tokens = 64;
    auto scorer = Scorer::Load(Write(options_), run, &GoOn);
    ASSERT_TRUE(scorer.ok()) << scorer.status();
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('!' + i * i % 90);
    const auto score = (*scorer)->Score(text, &GoOn);
    ASSERT_TRUE(score.ok()) << score.status();
    const double excess = score->mean_nll() - std::log(600.0);
    EXPECT_GT(excess, 2.5) << preset;
    EXPECT_LT(excess, 7.0) << preset;
  }
}

TEST_F(RandomModelTest, ScalesAreFloat16) {
  const auto source = ModelSource::Open(Write(options_));
  ASSERT_TRUE(source.ok());
  const auto layer = (*source)->FindLayer(1);
  ASSERT_TRUE(layer.ok());
  for (const TernaryTensor* tensor : {&layer->q, &layer->down, &layer->gate}) {
    EXPECT_EQ(HalfToFloat(FloatToHalf(tensor->scale)), tensor->scale);
  }
  EXPECT_NE(layer->gate.scale, layer->up.scale);
}

TEST_F(RandomModelTest, WhatCannotBeIsRefused) {
  RandomModelOptions options = options_;
  options.config.n_layers = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(options)));
  options = options_;
  options.config.vocab_size = 100;
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(options)));
  options = options_;
  options.dense = DenseEncoding::kQ6K;
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(options)));
  // Rows of 3200 weights are no whole blocks of 256.
  options = options_;
  options.config = FindPreset("3b")->config;
  options.type = TernaryFormat::kTQ2_0;
  const absl::Status status = StatusOf(options);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_TRUE(absl::StrContains(status.message(), "3200")) << status;
}

TEST_F(RandomModelTest, InterruptionLeavesNothing) {
  ThreadPool pool(1);
  const std::string path = NewPath();
  const auto bytes = WriteRandomModel(path, options_, &pool,
                                      [](int64_t, int64_t) { return false; });
  EXPECT_TRUE(absl::IsCancelled(bytes.status())) << bytes.status();
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST(Presets, AllShapesAreConsistent) {
  for (const Preset& preset : Presets()) {
    const ModelConfig& c = preset.config;
    EXPECT_EQ(c.n_heads % c.n_kv_heads, 0) << preset.name;
    EXPECT_EQ(c.q_size(), c.hidden_size) << preset.name;
    EXPECT_TRUE(CheckWidth("ffn", c.ffn_size).ok()) << preset.name;
    EXPECT_EQ(FindPreset(preset.name), &preset);
  }
  EXPECT_EQ(FindPreset("9b"), nullptr);
}

}  // namespace
}  // namespace tern
