#include "tools/convert_model.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::GgufBuilder;
using testing::TinyModel;
using testing::TinyModelOptions;

bool GoOn(int64_t, int64_t) { return true; }

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

constexpr char kTensor[] = "blk.1.ffn_gate.weight";
constexpr int kWidth = 256;

// Code i of the worked examples of docs/model_tools.md.
uint8_t ExampleCode(int i) { return (i * i + i / 7) % 3; }

class ConvertModelTest : public ::testing::Test {
 protected:
  ConvertModelTest() : pool_(2) {
    std::string directory = ::testing::TempDir() + "/convert_XXXXXX";
    directory_ = mkdtemp(&directory[0]);
    TinyModelOptions options;
    options.hidden_size = kWidth;
    options.ffn_size = kWidth;
    options.head_dim = 64;
    builder_ = TinyModel(options);
    // Scales that float16 has.
    for (int layer = 0; layer < 2; ++layer) {
      for (const char* stem : {"attn_q", "attn_k", "attn_v", "attn_output",
                               "ffn_gate", "ffn_up", "ffn_down"}) {
        SetScale(absl::StrCat("blk.", layer, ".", stem, ".weight"), 0.0625f);
      }
    }
    // The example's first 256 codes, again and again.
    Bytes codes(kWidth * kWidth);
    for (int i = 0; i < kWidth * kWidth; ++i) codes[i] = ExampleCode(i % 256);
    builder_.MutableTensor(kTensor)->data = testing::PackI2S(codes, 0.75f);
  }

  void SetScale(const std::string& name, float scale) {
    Bytes& data = builder_.MutableTensor(name)->data;
    std::memcpy(data.data() + data.size() - 32, &scale, sizeof(scale));
  }

  std::string Path(const std::string& name) const {
    return absl::StrCat(directory_, "/", name);
  }

  std::string WriteModel() {
    const Bytes bytes = builder_.Build();
    std::ofstream(Path("in.gguf"), std::ios::binary)
        << std::string(bytes.begin(), bytes.end());
    return Path("in.gguf");
  }

  absl::StatusOr<ConvertResult> Convert(const std::string& in,
                                        const std::string& out,
                                        TernaryFormat type) {
    options_.type = type;
    return ConvertModel(in, out, options_, &pool_, &GoOn);
  }

  // The first bytes of kTensor.
  static std::string HexOf(const std::string& path, size_t n) {
    const auto reader = GgufReader::Open(path);
    EXPECT_TRUE(reader.ok()) << reader.status();
    const GgufTensor* tensor = (*reader)->FindTensor(kTensor);
    return absl::BytesToHexString(absl::string_view(
        reinterpret_cast<const char*>(tensor->data.data()), n));
  }

  std::string directory_;
  GgufBuilder builder_;
  ConvertOptions options_;
  ThreadPool pool_;
};

// The blocks of the formats' worked examples, as other programs write them.
constexpr char kI2S[] =
    "2556600664400aa88448899558811990022aa1122225566006"
    "64400aa8844889";
constexpr char kTQ2[] =
    "589509901901a02a122162562542640680a84a8488589509901901a02a122162"
    "09901901a02a122162562542640680a84a8488589509901901a02a1221625625"
    "003a";
constexpr char kTQ1[] =
    "4782901198581cf8b76bc2d685b033c80953e723414782901198581cf8b76bc2"
    "e429ee3d35f70d501567a805705c22e38fc1e756003a";

TEST_F(ConvertModelTest, WorkedExamples) {
  const std::string in = WriteModel();
  EXPECT_EQ(HexOf(in, 32), kI2S);
  ASSERT_TRUE(Convert(in, Path("tq2"), TernaryFormat::kTQ2_0).ok());
  EXPECT_EQ(HexOf(Path("tq2"), 66), kTQ2);
  ASSERT_TRUE(Convert(in, Path("tq1"), TernaryFormat::kTQ1_0).ok());
  EXPECT_EQ(HexOf(Path("tq1"), 54), kTQ1);
  ASSERT_TRUE(Convert(Path("tq1"), Path("tq2b"), TernaryFormat::kTQ2_0).ok());
  EXPECT_EQ(HexOf(Path("tq2b"), 66), kTQ2);
  ASSERT_TRUE(Convert(Path("tq1"), Path("i2s"), TernaryFormat::kI2S).ok());
  EXPECT_EQ(HexOf(Path("i2s"), 32), kI2S);
}

TEST_F(ConvertModelTest, ThereAndBackIsTheSameFile) {
  const std::string in = WriteModel();
  for (TernaryFormat type : {TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    options_.overwrite = true;
    const auto there = Convert(in, Path("there"), type);
    ASSERT_TRUE(there.ok()) << there.status();
    EXPECT_EQ(there->converted, 14);
    EXPECT_EQ(there->rounded, 0);
    ASSERT_TRUE(Convert(Path("there"), Path("back"), TernaryFormat::kI2S).ok());
    EXPECT_TRUE(ReadAll(Path("back")) == ReadAll(in))
        << TernaryFormatName(type);
  }
}

TEST_F(ConvertModelTest, MetadataStayButForTheFilesType) {
  builder_.SetUint32("general.file_type", 40).SetInt8("odd.key", -5);
  const std::string in = WriteModel();
  ASSERT_TRUE(Convert(in, Path("out"), TernaryFormat::kTQ2_0).ok());
  const auto before = GgufReader::Open(in);
  const auto after = GgufReader::Open(Path("out"));
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ((*after)->keys(), (*before)->keys());
  EXPECT_EQ(*(*after)->GetInt("general.file_type"), 37);
  EXPECT_EQ(*(*after)->GetInt("odd.key"), -5);
  ASSERT_EQ((*after)->tensors().size(), (*before)->tensors().size());
  for (size_t i = 0; i < (*after)->tensors().size(); ++i) {
    const GgufTensor& a = (*after)->tensors()[i];
    const GgufTensor& b = (*before)->tensors()[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.dims, b.dims);
    if (b.type != GgufBuilder::kI2S) {
      EXPECT_EQ(a.data, b.data);
    }
  }
}

TEST_F(ConvertModelTest, RoundingIsRefusedUnlessAllowed) {
  SetScale(kTensor, 0.1f);
  const std::string in = WriteModel();
  const auto refused = Convert(in, Path("out"), TernaryFormat::kTQ2_0);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_TRUE(absl::StrContains(refused.status().message(), kTensor));
  EXPECT_TRUE(
      absl::StrContains(refused.status().message(), "--allow_rounding"));
  EXPECT_NE(access(Path("out").c_str(), F_OK), 0);
  options_.allow_rounding = true;
  const auto rounded = Convert(in, Path("out"), TernaryFormat::kTQ2_0);
  ASSERT_TRUE(rounded.ok()) << rounded.status();
  EXPECT_EQ(rounded->rounded, 1);
  EXPECT_GT(rounded->rounding_max, 0);
  EXPECT_LT(rounded->rounding_max, 0x1p-11);
}

TEST_F(ConvertModelTest, ScalesBeyondFloat16AreRefused) {
  options_.allow_rounding = true;
  for (float scale : {1e6f, -1e6f, 1e-9f}) {
    SetScale(kTensor, scale);
    const auto result =
        Convert(WriteModel(), Path("out"), TernaryFormat::kTQ1_0);
    EXPECT_TRUE(absl::IsOutOfRange(result.status())) << result.status();
  }
}

TEST_F(ConvertModelTest, RowsThatAreNoWholeBlocksAreRefused) {
  builder_ = TinyModel(TinyModelOptions());  // rows of 64 and 128
  const auto result = Convert(WriteModel(), Path("out"), TernaryFormat::kTQ2_0);
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  EXPECT_TRUE(absl::StrContains(result.status().message(), "rows of 128"))
      << result.status();
}

TEST_F(ConvertModelTest, DamagedWeightsLeaveNoOutput) {
  builder_.MutableTensor(kTensor)->data[100] = 0xff;
  const auto result = Convert(WriteModel(), Path("out"), TernaryFormat::kTQ2_0);
  EXPECT_TRUE(absl::IsDataLoss(result.status())) << result.status();
  EXPECT_TRUE(absl::StrContains(result.status().message(), kTensor));
  EXPECT_NE(access(Path("out").c_str(), F_OK), 0);
}

TEST_F(ConvertModelTest, AnOutputThatIsThereStaysWithoutOverwrite) {
  const std::string in = WriteModel();
  std::ofstream(Path("out")) << "precious";
  EXPECT_TRUE(absl::IsAlreadyExists(
      Convert(in, Path("out"), TernaryFormat::kTQ2_0).status()));
  EXPECT_EQ(ReadAll(Path("out")), "precious");
  // Onto itself: the mapped input outlives its name.
  options_.overwrite = true;
  const std::string before = ReadAll(in);
  ASSERT_TRUE(Convert(in, in, TernaryFormat::kTQ2_0).ok());
  ASSERT_TRUE(Convert(in, in, TernaryFormat::kI2S).ok());
  EXPECT_TRUE(ReadAll(in) == before);
}

TEST_F(ConvertModelTest, WhatIsNoModelIsRefused) {
  const auto directory = Convert(directory_, Path("out"), TernaryFormat::kI2S);
  EXPECT_TRUE(absl::IsNotFound(directory.status())) << directory.status();
  EXPECT_TRUE(absl::StrContains(directory.status().message(), "config.json"));
  const auto missing = Convert(Path("none"), Path("out"), TernaryFormat::kI2S);
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  builder_.RemoveTensor("output_norm.weight");
  const auto part = Convert(WriteModel(), Path("out"), TernaryFormat::kTQ2_0);
  EXPECT_TRUE(absl::IsInvalidArgument(part.status())) << part.status();
}

}  // namespace
}  // namespace tern
