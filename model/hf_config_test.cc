#include "model/hf_config.h"

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Falcon() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false,
    "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "max_position_embeddings": 8192,
    "mlp_bias": false, "num_attention_heads": 8, "num_hidden_layers": 18,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null,
    "rope_theta": 1000042, "tie_word_embeddings": false, "vocab_size": 131072,
    "quantization_config": {"modules_to_not_convert": null,
                            "quant_method": "bitnet"}})");
}

Json Bitnet() {
  return Json::parse(R"({
    "architectures": ["BitNetForCausalLM"], "hidden_act": "relu2",
    "hidden_size": 2560, "intermediate_size": 6912,
    "max_position_embeddings": 4096, "num_attention_heads": 20,
    "num_hidden_layers": 30, "num_key_value_heads": 5, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": true, "vocab_size": 128256,
    "quantization_config": {"quant_method": "bitnet",
                            "linear_class": "autobitlinear",
                            "quantization_mode": "offline"}})");
}

TEST(HfConfig, ReadsALlama) {
  const auto config = ReadHfConfig(Falcon().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelConfig& model = config->model;
  EXPECT_EQ(model.architecture, "llama");
  EXPECT_EQ(model.n_layers, 18);
  EXPECT_EQ(model.hidden_size, 2048);
  EXPECT_EQ(model.ffn_size, 8192);
  EXPECT_EQ(model.n_heads, 8);
  EXPECT_EQ(model.n_kv_heads, 4);
  EXPECT_EQ(model.head_dim, 256);
  EXPECT_EQ(model.vocab_size, 131072);
  EXPECT_EQ(model.context_length, 8192);
  EXPECT_EQ(model.rope_theta, 1000042.0);
  EXPECT_EQ(model.norm_eps, 1e-6f);
  EXPECT_EQ(model.rope_kind, RopeKind::kNorm);
  EXPECT_EQ(model.activation, Activation::kSilu);
  EXPECT_FALSE(model.has_sub_norms);
  EXPECT_FALSE(model.tied_head);
  EXPECT_EQ(config->matrices, HfMatrices::kPackedReciprocal);
}

TEST(HfConfig, ReadsABitnetAndFillsInWhatItsClassDoes) {
  const auto config = ReadHfConfig(Bitnet().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelConfig& model = config->model;
  EXPECT_EQ(model.architecture, "bitnet-b1.58");
  EXPECT_EQ(model.head_dim, 128);
  EXPECT_EQ(model.rope_theta, 500000.0);
  EXPECT_EQ(model.rope_kind, RopeKind::kNeox);
  EXPECT_EQ(model.activation, Activation::kRelu2);
  EXPECT_TRUE(model.has_sub_norms);
  EXPECT_TRUE(model.tied_head);
  EXPECT_EQ(config->matrices, HfMatrices::kPacked);
}

TEST(HfConfig, ReadsMasters) {
  Json json = Bitnet();
  json["quantization_config"]["quantization_mode"] = "online";
  EXPECT_EQ(ReadHfConfig(json.dump())->matrices, HfMatrices::kMasters);
}

// The class rounds its weights itself and has no head of its own.
TEST(HfConfig, ReadsTheFirstBitnet) {
  Json json = Bitnet();
  json["architectures"] = {"BitnetForCausalLM"};
  json["hidden_act"] = "silu";
  json.erase("quantization_config");
  json.erase("tie_word_embeddings");
  json.erase("num_key_value_heads");
  const auto config = ReadHfConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->matrices, HfMatrices::kMasters);
  EXPECT_EQ(config->model.architecture, "bitnet");
  EXPECT_EQ(config->model.activation, Activation::kSilu);
  EXPECT_EQ(config->model.n_kv_heads, 20);
  EXPECT_EQ(config->model.rope_theta, 10000.0);
  EXPECT_TRUE(config->model.tied_head);
}

TEST(HfConfig, ReadsRopeOfNewerFiles) {
  Json json = Falcon();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(ReadHfConfig(json.dump())->model.rope_theta, 5e5);
  json["rope_parameters"] = {{"type", "linear"}, {"factor", 1.0}};
  EXPECT_EQ(ReadHfConfig(json.dump())->model.rope_theta, 10000.0);
}

// As a float32 of a GGUF file would.
TEST(HfConfig, RoundsTheta) {
  Json json = Falcon();
  json["rope_theta"] = 10000.1;
  EXPECT_EQ(ReadHfConfig(json.dump())->model.rope_theta,
            static_cast<double>(10000.1f));
}

struct BadConfig {
  const char* name;
  const char* patch;  // merged into that of the llama
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadConfig& bad, std::ostream* os) { *os << bad.name; }

class HfBadConfig : public ::testing::TestWithParam<BadConfig> {};

TEST_P(HfBadConfig, IsRefused) {
  Json json = Falcon();
  json.merge_patch(Json::parse(GetParam().patch));
  const absl::Status status = ReadHfConfig(json.dump()).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

constexpr absl::StatusCode kNotServed = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    All, HfBadConfig,
    ::testing::Values(
        BadConfig{"NoArchitectures", R"({"architectures": null})",
                  "no architectures"},
        BadConfig{"OtherArchitecture",
                  R"({"architectures": ["Qwen3ForCausalLM"]})",
                  "Qwen3ForCausalLM", kNotServed},
        BadConfig{"ArchitectureNumber", R"({"architectures": 7})",
                  "architectures is 7", kNotServed},
        BadConfig{"NoQuantization", R"({"quantization_config": null})",
                  "are dense", kNotServed},
        BadConfig{"QuantizationText", R"({"quantization_config": "bitnet"})",
                  "must be an object"},
        BadConfig{"OtherQuantization",
                  R"({"quantization_config": {"quant_method": "awq"}})",
                  "'awq'; Tern serves bitnet", kNotServed},
        BadConfig{"NormInEveryLinear",
                  R"({"quantization_config": {"use_rms_norm": true}})",
                  "use_rms_norm", kNotServed},
        BadConfig{"DenseLayer",
                  R"({"quantization_config":
                      {"modules_to_not_convert": ["lm_head", "down_proj"]}})",
                  "the head alone is dense", kNotServed},
        BadConfig{"OtherLinearClass",
                  R"({"quantization_config": {"linear_class": "x"}})",
                  "linear_class", kNotServed},
        BadConfig{"OtherMode",
                  R"({"quantization_config": {"quantization_mode": "x"}})",
                  "offline and online", kNotServed},
        BadConfig{"OnlineBitlinear",
                  R"({"quantization_config": {"quantization_mode": "online"}})",
                  "bitlinear offline", kNotServed},
        BadConfig{"NoLayers", R"({"num_hidden_layers": null})",
                  "no num_hidden_layers"},
        BadConfig{"LayersZero", R"({"num_hidden_layers": 0})",
                  "num_hidden_layers is 0"},
        BadConfig{"LayersNegative", R"({"num_hidden_layers": -1})", "is -1"},
        BadConfig{"LayersHuge",
                  R"({"num_hidden_layers": 18446744073709551615})",
                  "from 1 to 1024"},
        BadConfig{"LayersFraction", R"({"num_hidden_layers": 1.5})",
                  "from 1 to 1024"},
        BadConfig{"LayersText", R"({"num_hidden_layers": "18"})",
                  "from 1 to 1024"},
        BadConfig{"HiddenOdd", R"({"hidden_size": 2056})", "multiples of 16"},
        BadConfig{"FfnOdd", R"({"intermediate_size": 8200})",
                  "multiples of 16"},
        BadConfig{"HeadDimOdd", R"({"head_dim": 255})", "even"},
        BadConfig{"HeadDimHuge", R"({"head_dim": 512})", "from 2 to 256"},
        BadConfig{"HeadsDoNotDivide",
                  R"({"head_dim": null, "num_attention_heads": 12})",
                  "no head_dim"},
        BadConfig{"KvHeadsDoNotDivide", R"({"num_key_value_heads": 3})",
                  "a divisor"},
        BadConfig{"KvHeadsMany", R"({"num_key_value_heads": 16})", "1 to 8"},
        BadConfig{"NoEpsilon", R"({"rms_norm_eps": null})", "no rms_norm_eps"},
        BadConfig{"EpsilonZero", R"({"rms_norm_eps": 0})", "between 0 and 1"},
        BadConfig{"ThetaZero", R"({"rope_theta": 0})", "above 0"},
        BadConfig{"ThetaText", R"({"rope_theta": "1e4"})", "a number"},
        BadConfig{"RopeScaling",
                  R"({"rope_scaling": {"rope_type": "llama3", "factor": 8}})",
                  "llama3", kNotServed},
        BadConfig{"RopeFactor", R"({"rope_scaling": {"factor": 2}})",
                  "factor is 2", kNotServed},
        BadConfig{"RopeOfAPart",
                  R"({"rope_parameters": {"partial_rotary_factor": 0.5}})",
                  "partial_rotary_factor", kNotServed},
        BadConfig{"Gelu", R"({"hidden_act": "gelu"})", "relu2 and silu",
                  kNotServed},
        BadConfig{"NoActivation", R"({"hidden_act": null})", "no hidden_act"},
        BadConfig{"Biases", R"({"attention_bias": true})", "without biases",
                  kNotServed},
        BadConfig{"TiedText", R"({"tie_word_embeddings": "yes"})",
                  "true or false"}),
    [](const ::testing::TestParamInfo<BadConfig>& info) {
      return std::string(info.param.name);
    });

TEST(HfConfig, RefusesWhatIsNoObject) {
  for (const std::string& text :
       {std::string(), std::string("["), std::string("[]"), std::string("{"),
        std::string(100000, '['), std::string((1 << 20) + 1, ' ')}) {
    EXPECT_EQ(ReadHfConfig(text).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tern
