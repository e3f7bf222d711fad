// What of a directory of safetensors becomes a GGUF file. That the file
// computes the same is shown by //tests/parity:format_parity_test.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/model_source.h"
#include "model/ternary_codec.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"
#include "tools/chunked_write.h"
#include "tools/convert_model.h"
#include "tools/convert_options.h"
#include "tools/model_report.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

using testing::TinyModelOptions;
using testing::TinyPacking;
using testing::TinySafetensors;

class ConvertSafetensorsTest : public ::testing::Test {
 protected:
  ConvertSafetensorsTest() { options_.scales = testing::TinyScales::kHalf; }

  ~ConvertSafetensorsTest() override {
    for (const std::string& directory : directories_) {
      std::filesystem::remove_all(directory);
    }
  }

  // Writes the model and converts it to Out().
  absl::StatusOr<ConvertResult> Convert() {
    directories_.push_back(testing::WriteTinySafetensors(model_, 1));
    if (!tokenizer_config_.empty()) {
      std::ofstream(Directory() + "/tokenizer_config.json")
          << tokenizer_config_;
    }
    return ConvertAgain();
  }

  absl::StatusOr<ConvertResult> ConvertAgain() {
    ThreadPool pool(2);
    return ConvertModel(Directory(), Out(), convert_, &pool,
                        [](int64_t, int64_t) { return true; });
  }

  const std::string& Directory() const { return directories_.back(); }
  std::string Out() const { return Directory() + "/out.gguf"; }
  bool HasOutput() const { return access(Out().c_str(), F_OK) == 0; }

  TinyModelOptions options_;
  TinySafetensors model_ =
      testing::TinySafetensorsModel(options_, TinyPacking::kPacked);
  std::string tokenizer_config_;
  ConvertOptions convert_;
  std::vector<std::string> directories_;
};

TEST_F(ConvertSafetensorsTest, ShapeTokensAndTemplateComeAlong) {
  tokenizer_config_ =
      R"({"eos_token":"<|end_of_text|>","chat_template":"{{ messages }}"})";
  for (const char* architecture : {"bitnet-b1.58", "bitnet", "llama"}) {
    options_.architecture = architecture;
    options_.tied_head = options_.architecture != "llama";
    model_ = testing::TinySafetensorsModel(options_, TinyPacking::kPacked);
    const auto result = Convert();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->rounded, 0);

    const auto before = ModelSource::Open(Directory());
    const auto after = ModelSource::Open(Out());
    ASSERT_TRUE(before.ok() && after.ok()) << after.status();
    const ModelConfig& a = (*after)->config();
    const ModelConfig& b = (*before)->config();
    EXPECT_EQ(a.architecture, architecture);
    EXPECT_EQ(a.n_layers, b.n_layers);
    EXPECT_EQ(a.hidden_size, b.hidden_size);
    EXPECT_EQ(a.ffn_size, b.ffn_size);
    EXPECT_EQ(a.n_heads, b.n_heads);
    EXPECT_EQ(a.n_kv_heads, b.n_kv_heads);
    EXPECT_EQ(a.head_dim, b.head_dim);
    EXPECT_EQ(a.vocab_size, b.vocab_size);
    EXPECT_EQ(a.context_length, b.context_length);
    EXPECT_EQ(a.rope_theta, b.rope_theta);
    EXPECT_EQ(a.rope_kind, b.rope_kind);
    EXPECT_EQ(a.norm_eps, b.norm_eps);
    EXPECT_EQ(a.activation, b.activation);
    EXPECT_EQ(a.has_sub_norms, b.has_sub_norms);
    EXPECT_EQ(a.tied_head, b.tied_head);
    EXPECT_EQ((*after)->chat_template(), (*before)->chat_template());

    const auto tokens_a = (*after)->LoadTokenizer();
    const auto tokens_b = (*before)->LoadTokenizer();
    ASSERT_TRUE(tokens_a.ok() && tokens_b.ok()) << tokens_a.status();
    EXPECT_EQ((*tokens_a)->bos_id(), (*tokens_b)->bos_id());
    EXPECT_EQ((*tokens_a)->end_ids(), (*tokens_b)->end_ids());
    for (const char* text :
         {"Hello, world!", "  two  spaces\n\n", "12345 67", "naïve 日本 😀",
          "a<|end_of_text|>b<|begin_of_text|>", "e\u0301"}) {
      for (const bool parse_special : {false, true}) {
        EXPECT_EQ(*(*tokens_a)->Encode(text, {true, parse_special}),
                  *(*tokens_b)->Encode(text, {true, parse_special}))
            << text;
      }
    }

    const auto report = MakeModelReport(Out(), 1);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->warnings.empty()) << report->warnings.front();
    // The directory's name, as config.json has none.
    EXPECT_EQ(a.name, ModelNameOf(Directory()));
  }
}

TEST_F(ConvertSafetensorsTest, KeysOfTheFileAreThoseOfOtherPrograms) {
  const auto result = Convert();
  ASSERT_TRUE(result.ok()) << result.status();
  const auto file = GgufReader::Open(Out());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->GetInt("general.file_type"), 40);
  EXPECT_EQ(*(*file)->GetString("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(*(*file)->GetString("tokenizer.ggml.pre"), "llama-bpe");
  EXPECT_EQ(*(*file)->GetInt("bitnet-b1.58.attention.head_count_kv"), 2);
  const GgufTensor* const q = (*file)->FindTensor("blk.0.attn_q.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->type, 36u);
  EXPECT_EQ(q->dims, (std::vector<int64_t>{64, 64}));
  const GgufTensor* const norm = (*file)->FindTensor("output_norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(norm->type, 0u);
  const GgufTensor* const embedding = (*file)->FindTensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->type, 1u);
}

// Matrices of more than a chunk, and rows of q and k in another order.
TEST_F(ConvertSafetensorsTest, TensorsAreThoseOfTheGgufTwin) {
  options_.architecture = "llama";
  options_.tied_head = false;
  options_.n_layers = 1;
  options_.hidden_size = 512;
  options_.head_dim = 128;
  options_.ffn_size = 2560;
  static_assert(512 * 2560 > kTernaryChunkWeights, "one chunk is not enough");
  for (const TernaryFormat type :
       {TernaryFormat::kI2S, TernaryFormat::kTQ2_0}) {
    convert_.type = type;
    options_.matrix_type = type == TernaryFormat::kI2S ? 36 : 35;
    model_ = testing::TinySafetensorsModel(options_, TinyPacking::kPacked);
    const auto result = Convert();
    ASSERT_TRUE(result.ok()) << result.status();
    const testing::Bytes bytes = testing::TinyModelBytes(options_);
    const auto twin = GgufReader::FromBytes(bytes);
    const auto file = GgufReader::Open(Out());
    ASSERT_TRUE(twin.ok() && file.ok()) << file.status();
    ASSERT_EQ((*file)->tensors().size(), (*twin)->tensors().size());
    for (const GgufTensor& expected : (*twin)->tensors()) {
      const GgufTensor* const tensor = (*file)->FindTensor(expected.name);
      ASSERT_NE(tensor, nullptr) << expected.name;
      EXPECT_EQ(tensor->type, expected.type) << expected.name;
      EXPECT_EQ(tensor->dims, expected.dims) << expected.name;
      EXPECT_TRUE(tensor->data == expected.data) << expected.name;
    }
  }
}

TEST_F(ConvertSafetensorsTest, OutputAppearsWholeOrNotAtAll) {
  ASSERT_TRUE(Convert().ok());
  EXPECT_TRUE(absl::IsAlreadyExists(ConvertAgain().status()));
  convert_.overwrite = true;
  EXPECT_TRUE(ConvertAgain().ok());
  std::filesystem::remove(Out());
  ThreadPool pool(1);
  const auto stopped = ConvertModel(Directory(), Out(), convert_, &pool,
                                    [](int64_t, int64_t) { return false; });
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  EXPECT_FALSE(HasOutput());
  // A code that is no weight.
  model_.tensors.MutableTensor("model.layers.1.mlp.up_proj.weight")->data[9] =
      0xff;
  const auto damaged = Convert();
  EXPECT_TRUE(absl::IsDataLoss(damaged.status())) << damaged.status();
  EXPECT_TRUE(
      absl::StrContains(damaged.status().message(), "layers.1.mlp.up_proj"));
  EXPECT_FALSE(HasOutput());
}

TEST_F(ConvertSafetensorsTest, WhatTheTypeCannotHoldIsRefused) {
  convert_.type = TernaryFormat::kTQ2_0;
  const auto rows = Convert();
  EXPECT_TRUE(absl::IsInvalidArgument(rows.status())) << rows.status();
  EXPECT_TRUE(absl::StrContains(rows.status().message(), "rows of 64"));
  options_.hidden_size = options_.ffn_size = 256;
  options_.head_dim = 64;
  options_.scales = testing::TinyScales::kAny;
  model_ = testing::TinySafetensorsModel(options_, TinyPacking::kPacked);
  const auto rounded = Convert();
  EXPECT_TRUE(absl::IsFailedPrecondition(rounded.status())) << rounded.status();
  EXPECT_FALSE(HasOutput());
  convert_.allow_rounding = true;
  const auto allowed = ConvertAgain();
  ASSERT_TRUE(allowed.ok()) << allowed.status();
  EXPECT_EQ(allowed->rounded, 14);
}

TEST_F(ConvertSafetensorsTest, WhatGgufCannotSayIsRefusedWithTheWayOut) {
  absl::StrReplaceAll({{R"("hidden_act":"relu2")", R"("hidden_act":"silu")"}},
                      &model_.config_json);
  const auto activation = Convert();
  EXPECT_TRUE(absl::IsUnimplemented(activation.status()))
      << activation.status();
  EXPECT_TRUE(absl::StrContains(activation.status().message(), "hidden_act"));
  EXPECT_TRUE(absl::StrContains(activation.status().message(),
                                "serve the directory as it is"));
  EXPECT_FALSE(HasOutput());

  model_ = testing::TinySafetensorsModel(options_, TinyPacking::kPacked);
  absl::StrReplaceAll({{R"({1,3})", R"({1,2})"}}, &model_.tokenizer_json);
  const auto split = Convert();
  EXPECT_TRUE(absl::IsUnimplemented(split.status())) << split.status();
  EXPECT_TRUE(absl::StrContains(split.status().message(), "tokenizer.ggml.pre"))
      << split.status();

  std::filesystem::remove(Directory() + "/tokenizer.json");
  const auto missing = ConvertAgain();
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  EXPECT_TRUE(absl::StrContains(missing.status().message(), "tokenizer.json"));
}

}  // namespace
}  // namespace tern
