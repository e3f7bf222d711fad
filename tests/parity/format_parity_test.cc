// One model in every format that is read: the same tokens, and the same logits
// bit for bit.

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "model/ternary_codec.h"
#include "tests/parity/whole_model.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"
#include "tools/convert_model.h"
#include "tools/convert_options.h"
#include "util/logging.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

using testing::GgufBuilder;
using testing::TinyModelOptions;
using testing::TinyPacking;
using testing::TinyScales;

constexpr int kPromptTokens = 20;
constexpr int kTokens = 30;

// Rows of 256, which TQ1_0 and TQ2_0 need; heads that do not make up the hidden
// size.
TinyModelOptions Options(const std::string& architecture) {
  TinyModelOptions options;
  options.architecture = architecture;
  options.hidden_size = 256;
  options.ffn_size = 512;
  options.n_heads = 4;
  options.n_kv_heads = 2;
  options.head_dim = 128;
  options.context_length = 64;
  options.tied_head = architecture != "llama";
  options.scales = TinyScales::kHalf;
  options.seed = 5;
  return options;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;

  friend bool operator==(const Answer& a, const Answer& b) {
    if (a.tokens != b.tokens || a.logits.size() != b.logits.size()) {
      return false;
    }
    for (size_t i = 0; i < a.logits.size(); ++i) {
      if (a.logits[i].size() != b.logits[i].size() ||
          std::memcmp(a.logits[i].data(), b.logits[i].data(),
                      a.logits[i].size() * sizeof(float)) != 0) {
        return false;
      }
    }
    return true;
  }
};

// Greedy, after a prompt of some tokens.
Answer RunModel(const std::string& path, HeadMode head_mode) {
  auto model = WholeModel::Load(path, head_mode, SupportedIsas().back(), 2);
  CHECK(model.ok()) << model.status().ToString();
  Answer answer;
  std::vector<int32_t> tokens;
  for (int i = 0; i < kPromptTokens; ++i) tokens.push_back(i * 37 % 320);
  for (int i = 0; i < kTokens; ++i) {
    answer.logits.push_back((*model)->Append(tokens));
    const std::vector<float>& logits = answer.logits.back();
    const int32_t best = static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin());
    answer.tokens.push_back(best);
    tokens = {best};
  }
  return answer;
}

Answer RunGguf(const TinyModelOptions& options,
               HeadMode head_mode = HeadMode::kInt8) {
  const std::string path = testing::WriteTinyModel(options);
  Answer answer = RunModel(path, head_mode);
  unlink(path.c_str());
  return answer;
}

Answer RunSafetensors(const TinyModelOptions& options, TinyPacking packing,
                      int n_files, HeadMode head_mode = HeadMode::kInt8) {
  const std::string path = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(options, packing), n_files);
  Answer answer = RunModel(path, head_mode);
  std::filesystem::remove_all(path);
  return answer;
}

class FormatParityTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FormatParityTest, GgufTypesChangeNothing) {
  TinyModelOptions options = Options(GetParam());
  const Answer expected = RunGguf(options);
  for (const uint32_t type : {GgufBuilder::kTQ1_0, GgufBuilder::kTQ2_0}) {
    options.matrix_type = type;
    EXPECT_EQ(RunGguf(options), expected) << "type " << type;
  }
}

TEST_P(FormatParityTest, ScalesBesideTheMatricesChangeNothing) {
  TinyModelOptions options = Options(GetParam());
  options.scales = TinyScales::kAny;
  const Answer expected = RunGguf(options);
  options.scale_tensors = true;
  for (const uint32_t type :
       {GgufBuilder::kI2S, GgufBuilder::kTQ1_0, GgufBuilder::kTQ2_0}) {
    options.matrix_type = type;
    EXPECT_EQ(RunGguf(options), expected) << "type " << type;
  }
}

TEST_P(FormatParityTest, OtherWeightsChangeSomething) {
  TinyModelOptions options = Options(GetParam());
  const Answer expected = RunGguf(options);
  options.seed = 6;
  EXPECT_NE(RunGguf(options).tokens, expected.tokens);
}

TEST_P(FormatParityTest, PackedSafetensorsAreTheSameModel) {
  const TinyModelOptions options = Options(GetParam());
  const Answer expected = RunGguf(options);
  EXPECT_EQ(RunSafetensors(options, TinyPacking::kPacked, 1), expected);
  EXPECT_EQ(RunSafetensors(options, TinyPacking::kPackedReciprocal, 3),
            expected);
}

TEST_P(FormatParityTest, MastersRoundToTheSameModel) {
  TinyModelOptions options = Options(GetParam());
  options.scales = TinyScales::kMaster;
  EXPECT_EQ(RunSafetensors(options, TinyPacking::kMasters, 2),
            RunGguf(options));
}

TEST_P(FormatParityTest, HeadsOfEitherModeAreTheSame) {
  TinyModelOptions options = Options(GetParam());
  options.bf16_embedding = true;
  for (const HeadMode mode : {HeadMode::kInt8, HeadMode::kStored}) {
    EXPECT_EQ(RunSafetensors(options, TinyPacking::kPacked, 1, mode),
              RunGguf(options, mode))
        << HeadModeName(mode);
  }
}

TEST_P(FormatParityTest, ConvertedSafetensorsAreTheSameModel) {
  for (const TinyPacking packing :
       {TinyPacking::kPacked, TinyPacking::kPackedReciprocal,
        TinyPacking::kMasters}) {
    TinyModelOptions options = Options(GetParam());
    options.bf16_embedding = packing == TinyPacking::kMasters;
    // TQ types keep scales in float16, which masters need not have.
    if (packing == TinyPacking::kMasters) options.scales = TinyScales::kMaster;
    const std::string directory = testing::WriteTinySafetensors(
        testing::TinySafetensorsModel(options, packing), 2);
    const std::string out = directory + "/out.gguf";
    const Answer expected = RunModel(directory, HeadMode::kStored);
    for (const TernaryFormat type :
         {TernaryFormat::kI2S, TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
      if (packing == TinyPacking::kMasters && type != TernaryFormat::kI2S) {
        continue;
      }
      ConvertOptions convert;
      convert.type = type;
      convert.overwrite = true;
      ThreadPool pool(2);
      const auto result = ConvertModel(directory, out, convert, &pool,
                                       [](int64_t, int64_t) { return true; });
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->converted, 14);
      EXPECT_EQ(RunModel(out, HeadMode::kStored), expected)
          << TernaryFormatName(type) << " packing "
          << static_cast<int>(packing);
    }
    std::filesystem::remove_all(directory);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, FormatParityTest,
                         ::testing::Values("bitnet-b1.58", "bitnet", "llama"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (!std::isalnum(c)) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace tern
