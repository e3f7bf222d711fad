#include "model/gguf_config.h"

#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/model_config.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TinyModel;
using testing::TinyModelOptions;

absl::StatusOr<ModelConfig> Read(const GgufBuilder& builder,
                                 std::vector<std::string>* warnings = nullptr) {
  const Bytes bytes = builder.Build();
  auto file = GgufReader::FromBytes(bytes);
  if (!file.ok()) return file.status();
  return ReadModelConfig(**file, warnings);
}

TEST(ModelConfig, ReadsEveryField) {
  TinyModelOptions options;
  options.n_layers = 3;
  options.hidden_size = 64;
  options.ffn_size = 96;
  options.n_heads = 4;
  options.n_kv_heads = 2;
  options.head_dim = 24;
  options.context_length = 77;
  options.tied_head = false;
  auto config = Read(
      TinyModel(options)
          .SetFloat("bitnet-b1.58.rope.freq_base", 500000.0f)
          .SetFloat("bitnet-b1.58.attention.layer_norm_rms_epsilon", 1e-6f));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "bitnet-b1.58");
  EXPECT_EQ(config->name, "tiny-1");
  EXPECT_EQ(config->n_layers, 3);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->ffn_size, 96);
  EXPECT_EQ(config->n_heads, 4);
  EXPECT_EQ(config->n_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 24);
  EXPECT_EQ(config->q_size(), 96);
  EXPECT_EQ(config->kv_size(), 48);
  EXPECT_EQ(config->vocab_size, 320);
  EXPECT_EQ(config->context_length, 77);
  EXPECT_EQ(config->rope_theta, 500000.0);
  EXPECT_EQ(config->rope_kind, RopeKind::kNeox);
  EXPECT_EQ(config->norm_eps, 1e-6f);
  EXPECT_EQ(config->activation, Activation::kRelu2);
  EXPECT_TRUE(config->has_sub_norms);
  EXPECT_FALSE(config->tied_head);
}

TEST(ModelConfig, ServesBitnet25) {
  TinyModelOptions options;
  options.architecture = "bitnet-25";
  auto config = Read(TinyModel(options));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->tied_head);
}

TEST(ModelConfig, ServesBitnetWhoseHeadIsAlwaysItsEmbedding) {
  for (const bool tied : {true, false}) {
    TinyModelOptions options;
    options.architecture = "bitnet";
    options.tied_head = tied;
    std::vector<std::string> warnings;
    auto config = Read(TinyModel(options), &warnings);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->activation, Activation::kSilu);
    EXPECT_EQ(config->rope_kind, RopeKind::kNeox);
    EXPECT_TRUE(config->has_sub_norms);
    EXPECT_TRUE(config->tied_head);
    ASSERT_EQ(warnings.size(), tied ? 0u : 1u);
    for (const std::string& warning : warnings) {
      EXPECT_THAT(warning, HasSubstr("output.weight"));
    }
  }
}

TEST(ModelConfig, ServesLlama) {
  TinyModelOptions options;
  options.architecture = "llama";
  options.tied_head = false;
  options.head_dim = 32;  // other than hidden_size / n_heads
  auto config = Read(TinyModel(options));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->activation, Activation::kSilu);
  EXPECT_EQ(config->rope_kind, RopeKind::kNorm);
  EXPECT_FALSE(config->has_sub_norms);
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(config->head_dim, 32);
  // A sub-norm has no place in its graph.
  const Bytes norm = testing::PackF32(std::vector<float>(128, 1.0f));
  const absl::Status status =
      Read(TinyModel(options).AddTensor("blk.0.ffn_sub_norm.weight", {128},
                                        GgufBuilder::kF32, norm))
          .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("refuses to guess"));
}

TEST(ModelConfig, TakesScalesOfMatrices) {
  EXPECT_TRUE(
      Read(TinyModel({}).AddTensor("blk.0.attn_q.scale", {1}, GgufBuilder::kF32,
                                   testing::PackF32({0.5f})))
          .ok());
}

TEST(ModelConfig, FillsInWhatConvertersLeaveOut) {
  TinyModelOptions options;
  options.n_kv_heads = options.n_heads;
  auto config = Read(TinyModel(options)
                         .Remove("general.name")
                         .Remove("bitnet-b1.58.vocab_size")
                         .Remove("bitnet-b1.58.attention.head_count_kv")
                         .Remove("bitnet-b1.58.rope.dimension_count")
                         .Remove("bitnet-b1.58.rope.freq_base"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "");
  EXPECT_EQ(config->vocab_size, 320);
  EXPECT_EQ(config->n_kv_heads, config->n_heads);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->rope_theta, 10000.0);
}

TEST(ModelConfig, AcceptsScalingThatScalesNothing) {
  EXPECT_TRUE(Read(TinyModel({})
                       .SetString("bitnet-b1.58.rope.scaling.type", "linear")
                       .SetFloat("bitnet-b1.58.rope.scaling.factor", 1.0f))
                  .ok());
  EXPECT_TRUE(
      Read(TinyModel({}).SetString("bitnet-b1.58.rope.scaling.type", "none"))
          .ok());
}

struct BadModel {
  const char* name;
  std::function<void(GgufBuilder*)> spoil;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadModel& bad, std::ostream* os) { *os << bad.name; }

class ModelConfigBadModel : public ::testing::TestWithParam<BadModel> {};

TEST_P(ModelConfigBadModel, IsRefused) {
  GgufBuilder builder = TinyModel({});
  GetParam().spoil(&builder);
  const absl::Status status = Read(builder).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

BadModel BadInt(const char* name, const std::string& key, int64_t value,
                const char* message) {
  return {name,
          [key, value](GgufBuilder* b) {
            b->SetInt64("bitnet-b1.58." + key, value);
          },
          message};
}

BadModel BadFloat(const char* name, const std::string& key, float value,
                  const char* message) {
  return {name,
          [key, value](GgufBuilder* b) {
            b->SetFloat("bitnet-b1.58." + key, value);
          },
          message};
}

BadModel Missing(const char* name, const std::string& key) {
  return {name, [key](GgufBuilder* b) { b->Remove("bitnet-b1.58." + key); },
          "no metadata key"};
}

void AddVector(GgufBuilder* b, const char* name) {
  b->AddTensor(name, {1}, GgufBuilder::kF32, testing::PackF32({1.0f}));
}

// With heads that follow from it.
void SetHiddenSize(GgufBuilder* b, uint32_t size) {
  b->SetUint32("bitnet-b1.58.embedding_length", size)
      .Remove("bitnet-b1.58.rope.dimension_count");
}

std::vector<BadModel> BadModels() {
  const char* const kEps = "attention.layer_norm_rms_epsilon";
  return {
      {"NoArchitecture",
       [](GgufBuilder* b) { b->Remove("general.architecture"); },
       "general.architecture"},
      {"OtherArchitecture",
       [](GgufBuilder* b) { b->SetString("general.architecture", "qwen3"); },
       "Tern serves bitnet-b1.58, bitnet-25, bitnet, llama",
       absl::StatusCode::kUnimplemented},
      Missing("NoLayerCount", "block_count"),
      Missing("NoHiddenSize", "embedding_length"),
      Missing("NoFfnSize", "feed_forward_length"),
      Missing("NoContextLength", "context_length"),
      Missing("NoHeadCount", "attention.head_count"),
      Missing("NoEpsilon", kEps),
      BadInt("LayersNone", "block_count", 0, "block_count is 0"),
      BadInt("LayersNegative", "block_count", -1, "block_count is -1"),
      BadInt("LayersTooMany", "block_count", 1025, "1 to 1024"),
      BadInt("LayersWithoutTensors", "block_count", 3, "blk.2."),
      BadInt("LayersThatStayUnused", "block_count", 1, "refuses to guess"),
      BadInt("ContextNone", "context_length", 0, "context_length is 0"),
      BadInt("HiddenTooWide", "embedding_length", 1 << 17, "131072"),
      {"HiddenOtherThanTensors", [](GgufBuilder* b) { SetHiddenSize(b, 128); },
       "token_embd.weight has shape [64, 320]"},
      {"HiddenOdd", [](GgufBuilder* b) { SetHiddenSize(b, 72); },
       "multiples of 16"},
      BadInt("FfnOdd", "feed_forward_length", 100, "multiples of 16"),
      BadInt("FfnOtherThanTensors", "feed_forward_length", 256, "ffn_"),
      BadInt("HeadsNone", "attention.head_count", 0, "head_count is 0"),
      BadInt("HeadsDoNotDivide", "attention.head_count", 6, "do not divide"),
      BadInt("KvHeadsNone", "attention.head_count_kv", 0, "head_count_kv is 0"),
      BadInt("KvHeadsDoNotDivide", "attention.head_count_kv", 3,
             "do not divide"),
      BadInt("KvHeadsMoreThanHeads", "attention.head_count_kv", 8,
             "head_count_kv is 8"),
      BadInt("KvHeadsOtherThanTensors", "attention.head_count_kv", 4, "attn_k"),
      BadInt("KeyLengthOtherThanTensors", "attention.key_length", 8,
             "must be 8"),
      BadInt("KeyLengthOdd", "attention.key_length", 15, "even"),
      BadInt("KeyLengthTooLong", "attention.key_length", 512, "2 to 256"),
      BadInt("ValueLengthOther", "attention.value_length", 8, "must be 16"),
      BadInt("RopeOfHalfAHead", "rope.dimension_count", 8, "must be 16"),
      BadInt("RopeBeyondAHead", "rope.dimension_count", 32, "must be 16"),
      BadInt("VocabOtherThanTensors", "vocab_size", 300, "token_embd.weight"),
      BadFloat("EpsilonZero", kEps, 0.0f, "between 0 and 1"),
      BadFloat("EpsilonOne", kEps, 1.0f, "between 0 and 1"),
      BadFloat("EpsilonNan", kEps, NAN, "not finite"),
      BadFloat("ThetaZero", "rope.freq_base", 0.0f, "must be positive"),
      BadFloat("ThetaInfinite", "rope.freq_base", INFINITY, "not finite"),
      {"RopeScalingType",
       [](GgufBuilder* b) {
         b->SetString("bitnet-b1.58.rope.scaling.type", "yarn");
       },
       "'yarn'", absl::StatusCode::kUnimplemented},
      {"RopeScalingFactor",
       [](GgufBuilder* b) {
         b->SetFloat("bitnet-b1.58.rope.scaling.factor", 2.0f);
       },
       "factor is 2", absl::StatusCode::kUnimplemented},
      {"NoEmbedding",
       [](GgufBuilder* b) { b->RemoveTensor("token_embd.weight"); },
       "no tensor token_embd.weight"},
      {"NoOutputNorm",
       [](GgufBuilder* b) { b->RemoveTensor("output_norm.weight"); },
       "no tensor output_norm.weight"},
      {"NoSubNorm",
       [](GgufBuilder* b) { b->RemoveTensor("blk.1.attn_sub_norm.weight"); },
       "no tensor blk.1.attn_sub_norm.weight"},
      {"Bias", [](GgufBuilder* b) { AddVector(b, "blk.0.attn_q.bias"); },
       "blk.0.attn_q.bias"},
      {"ScaleOfANorm",
       [](GgufBuilder* b) { AddVector(b, "blk.0.attn_norm.scale"); },
       "blk.0.attn_norm.scale"},
      {"ScaleOfEachRow",
       [](GgufBuilder* b) {
         b->AddTensor("blk.0.attn_q.scale", {2}, GgufBuilder::kF32, Bytes(8));
       },
       "blk.0.attn_q.scale has shape [2]"},
      {"MatricesOfFloats",
       [](GgufBuilder* b) {
         b->MutableTensor("blk.0.attn_q.weight")->type = GgufBuilder::kF16;
         b->MutableTensor("blk.0.attn_q.weight")->data = Bytes(64 * 64 * 2);
       },
       "the matrices of this model are dense",
       absl::StatusCode::kUnimplemented},
      {"MatricesOfAnotherTernaryType",
       [](GgufBuilder* b) {
         b->MutableTensor("blk.0.attn_q.weight")->type = 135;
         b->MutableTensor("blk.0.attn_q.weight")->data = Bytes(64 * (4 + 16));
       },
       "blk.0.attn_q.weight has type IQ2_BN", absl::StatusCode::kUnimplemented},
      {"RopeFactors", [](GgufBuilder* b) { AddVector(b, "rope_freqs.weight"); },
       "rope_freqs.weight"},
      {"HeadOfAnotherShape",
       [](GgufBuilder* b) { AddVector(b, "output.weight"); },
       "output.weight has shape [1]"},
  };
}

INSTANTIATE_TEST_SUITE_P(All, ModelConfigBadModel,
                         ::testing::ValuesIn(BadModels()),
                         [](const ::testing::TestParamInfo<BadModel>& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace tern
