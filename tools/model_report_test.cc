#include "tools/model_report.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/ternary_layout.h"
#include "model/stage_plan.h"
#include "nlohmann/json.hpp"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::GgufBuilder;
using testing::TinyModel;
using testing::TinyModelOptions;
using testing::WriteTempFile;

ModelReport ReportOf(const GgufBuilder& builder, int n_stages = 1) {
  auto report = MakeModelReport(WriteTempFile(builder.Build()), n_stages);
  EXPECT_TRUE(report.ok()) << report.status();
  return std::move(*report);
}

bool Warns(const ModelReport& report, absl::string_view text) {
  for (const std::string& warning : report.warnings) {
    if (absl::StrContains(warning, text)) return true;
  }
  return false;
}

TEST(ModelReport, TellsShapeTokenizerAndTensors) {
  const ModelReport report = ReportOf(TinyModel(TinyModelOptions()));
  EXPECT_EQ(report.format, "GGUF");
  EXPECT_EQ(report.config.hidden_size, 64);
  EXPECT_EQ(report.tokenizer.kind, "gpt2 (llama-bpe)");
  EXPECT_EQ(report.tokenizer.size, 320);
  EXPECT_EQ(report.tokenizer.bos_id, 318);
  EXPECT_EQ(report.tokenizer.end_ids, std::vector<int>{319});
  EXPECT_FALSE(report.has_chat_template);
  EXPECT_TRUE(report.warnings.empty());
  ASSERT_EQ(report.types.size(), 3u);
  EXPECT_EQ(report.types[0].type, "F16");  // the embedding is the largest
  EXPECT_EQ(report.types[0].bytes, 320 * 64 * 2);
  EXPECT_EQ(report.types[1].type, "I2_S");
  EXPECT_EQ(report.types[1].count, 14);
  EXPECT_EQ(report.types[1].elements,
            2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128));
  EXPECT_EQ(report.tensors.size(), 24u);
}

TEST(ModelReport, TellsMemoryOfEachStage) {
  const ModelReport report = ReportOf(TinyModel(TinyModelOptions()), 2);
  // Keys and values of 2 layers with 2 heads of 16 float16 each.
  EXPECT_EQ(report.kv_token_bytes, 2 * 2 * 2 * 16 * 2);
  EXPECT_EQ(report.kv_context_bytes, 256 * report.kv_token_bytes);
  EXPECT_EQ(report.embedding_bytes, 320 * 64 * 2);
  ASSERT_EQ(report.plans.size(), 2u);
  EXPECT_EQ(report.plans[0].head_mode, "stored");
  EXPECT_EQ(report.plans[0].head_bytes, 320 * 64 * 2);
  EXPECT_EQ(report.plans[1].head_mode, "int8");
  for (const ModelReport::Plan& plan : report.plans) {
    ASSERT_EQ(plan.stages.size(), 2u);
    EXPECT_EQ(plan.stages[0].range.layer_end, 1);
    EXPECT_TRUE(plan.stages[1].range.has_head);
    EXPECT_EQ(plan.stages[0].kv_token_bytes, report.kv_token_bytes / 2);
    EXPECT_GE(plan.stages[0].weight_bytes, LayerBytes(report.config));
    EXPECT_GE(plan.stages[1].weight_bytes,
              LayerBytes(report.config) + plan.head_bytes);
  }
}

TEST(ModelReport, CountsWeightsAsTheyArePacked) {
  const std::string path = WriteTempFile(TinyModel(TinyModelOptions()).Build());
  const auto plain = MakeModelReport(path, 1);
  const auto dense = MakeModelReport(path, 1, TernaryPacking::kBase3);
  ASSERT_TRUE(plain.ok() && dense.ok());
  EXPECT_EQ(plain->weights_packing, "2bit");
  EXPECT_EQ(dense->weights_packing, "base3");
  // Of both layers; columns are filled up from 64 to 96 and from 128 to 144.
  const int64_t plain_layer = (2 * 2 + 2 * 1 + 2 * 4) * 4 * 128 + 2 * 8 * 128;
  const int64_t dense_layer = (2 * 2 + 2 * 1 + 2 * 4) * 2 * 320 + 2 * 3 * 320;
  EXPECT_EQ(dense->plans[0].stages[0].weight_bytes -
                plain->plans[0].stages[0].weight_bytes,
            2 * (dense_layer - plain_layer));
}

TEST(ModelReport, WarnsOfWhatIsOdd) {
  GgufBuilder no_end = TinyModel(TinyModelOptions());
  no_end.Remove("tokenizer.ggml.eos_token_id");
  EXPECT_TRUE(Warns(ReportOf(no_end), "ends a text"));

  GgufBuilder wrong_template = TinyModel(TinyModelOptions());
  wrong_template.SetString("tokenizer.chat_template",
                           "{{ 'Human: ' + x + '\n\nBITNETAssistant: ' }}");
  EXPECT_TRUE(Warns(ReportOf(wrong_template), "chat template"));
  wrong_template.SetString("tokenizer.chat_template", "{{ x }}");
  const ModelReport other = ReportOf(wrong_template);
  EXPECT_TRUE(other.has_chat_template);
  EXPECT_TRUE(other.warnings.empty());

  GgufBuilder bad_tokenizer = TinyModel(TinyModelOptions());
  bad_tokenizer.Remove("tokenizer.ggml.tokens");
  const ModelReport broken = ReportOf(bad_tokenizer);
  EXPECT_TRUE(Warns(broken, "tokenizer.ggml.tokens"));
  EXPECT_EQ(broken.tokenizer.size, 0);
  EXPECT_TRUE(absl::StrContains(ReportText(broken, false), "warning: "));
}

TEST(ModelReport, TextHasEveryTensorOnRequest) {
  const ModelReport report = ReportOf(TinyModel(TinyModelOptions()), 2);
  const std::string summary = ReportText(report, false);
  EXPECT_TRUE(absl::StrContains(summary, "bitnet-b1.58"));
  EXPECT_TRUE(absl::StrContains(summary, "Head int8"));
  EXPECT_TRUE(absl::StrContains(summary, "0 to 0, embedding")) << summary;
  EXPECT_FALSE(absl::StrContains(summary, "blk.0.attn_q.weight"));
  const std::string all = ReportText(report, true);
  EXPECT_TRUE(absl::StrContains(all, "blk.0.attn_q.weight"));
  EXPECT_TRUE(absl::StrContains(all, "128 x 64"));
}

TEST(ModelReport, JsonSaysTheSame) {
  TinyModelOptions options;
  const ModelReport report = ReportOf(TinyModel(options), 2);
  const auto json = nlohmann::json::parse(ReportJson(report, true));
  EXPECT_EQ(json["config"]["n_layers"], 2);
  EXPECT_EQ(json["tokenizer"]["bos_id"], 318);
  EXPECT_EQ(json["tensors"].size(), report.tensors.size());
  EXPECT_EQ(json["plans"][1]["head_mode"], "int8");
  EXPECT_EQ(json["plans"][1]["stages"][1]["layer_end"], 2);
  EXPECT_EQ(json["kv_token_bytes"], report.kv_token_bytes);
  EXPECT_FALSE(
      nlohmann::json::parse(ReportJson(report, false)).contains("tensors"));
  // Names that are not UTF-8 do not make it fail.
  EXPECT_FALSE(
      ReportJson(ReportOf(TinyModel(options).SetString("general.name", "\xff")),
                 false)
          .empty());
}

TEST(ModelReport, WhatCannotBeIsRefused) {
  EXPECT_TRUE(absl::IsNotFound(MakeModelReport("/none/at/all", 1).status()));
  const std::string path = testing::WriteTinyModel(TinyModelOptions());
  for (int n_stages : {0, 3}) {
    EXPECT_TRUE(
        absl::IsInvalidArgument(MakeModelReport(path, n_stages).status()));
  }
}

}  // namespace
}  // namespace tern
