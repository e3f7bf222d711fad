#include "model/gguf_weights.h"

#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_config.h"
#include "model/gguf_reader.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using ::testing::ElementsAreArray;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::PackF16;
using testing::PackF32;
using testing::PackI2S;
using testing::TinyModel;

// A file of one ternary matrix.
class Matrix {
 public:
  Matrix(int n_out, int n_in, const std::vector<uint8_t>& codes) {
    bytes_ = GgufBuilder()
                 .AddTensor("w",
                            {static_cast<uint64_t>(n_in),
                             static_cast<uint64_t>(n_out)},
                            GgufBuilder::kI2S, PackI2S(codes, 0.75f))
                 .Build();
    file_ = *GgufReader::FromBytes(bytes_);
    tensor_ = {
        "w",  TernaryEncoding::kI2S, file_->FindTensor("w")->data, n_out, n_in,
        0.75f};
  }

  absl::Status Decode(int row_begin, int row_end, std::vector<uint8_t>* codes) {
    codes->assign((row_end - row_begin) * tensor_.n_in, 99);
    return DecodeTernaryRows(tensor_, row_begin, row_end, codes->data());
  }

  const TernaryTensor& tensor() const { return tensor_; }

 private:
  Bytes bytes_;
  std::unique_ptr<GgufReader> file_;
  TernaryTensor tensor_;
};

std::vector<uint8_t> SomeCodes(int n) {
  std::vector<uint8_t> codes(n);
  for (int i = 0; i < n; ++i) codes[i] = (i * i + i / 7) % 3;
  return codes;
}

// Bytes that another project's quantiser wrote for SomeCodes(128).
TEST(Weights, DecodesAKnownBlock) {
  const uint8_t block[32] = {0x25, 0x56, 0x60, 0x06, 0x64, 0x40, 0x0a, 0xa8,
                             0x84, 0x48, 0x89, 0x95, 0x58, 0x81, 0x19, 0x90,
                             0x02, 0x2a, 0xa1, 0x12, 0x22, 0x25, 0x56, 0x60,
                             0x06, 0x64, 0x40, 0x0a, 0xa8, 0x84, 0x48, 0x89};
  Bytes data(block, block + 32);
  data.resize(64);
  const Bytes bytes =
      GgufBuilder().AddTensor("w", {128}, GgufBuilder::kI2S, data).Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<uint8_t> codes(128);
  const TernaryTensor tensor = {
      "w", TernaryEncoding::kI2S, (*file)->FindTensor("w")->data, 1, 128, 1.0f};
  ASSERT_TRUE(DecodeTernaryRows(tensor, 0, 1, codes.data()).ok());
  EXPECT_EQ(codes, SomeCodes(128));
}

// Rows of whole blocks, of half blocks, of less than a block: every range.
TEST(Weights, DecodesAnyRangeOfRows) {
  const int shapes[][2] = {{4, 128}, {6, 192}, {8, 16},  {16, 40},
                           {4, 160}, {3, 384}, {128, 1}, {8, 432}};
  for (const auto& shape : shapes) {
    const int n_out = shape[0], n_in = shape[1];
    const std::vector<uint8_t> expected = SomeCodes(n_out * n_in);
    Matrix matrix(n_out, n_in, expected);
    for (int begin = 0; begin <= n_out; ++begin) {
      for (int end = begin; end <= n_out; ++end) {
        std::vector<uint8_t> codes;
        ASSERT_TRUE(matrix.Decode(begin, end, &codes).ok());
        ASSERT_THAT(codes, ElementsAreArray(expected.begin() + begin * n_in,
                                            expected.begin() + end * n_in))
            << n_out << "x" << n_in << " rows " << begin << " to " << end;
      }
    }
  }
}

// At every place: head, whole blocks and tail of the decoder.
TEST(Weights, NamesTheRowOfACodeThatIsNoWeight) {
  constexpr int kRows = 4, kColumns = 160;
  for (int place = 0; place < kRows * kColumns; ++place) {
    std::vector<uint8_t> codes = SomeCodes(kRows * kColumns);
    codes[place] = 3;
    Matrix matrix(kRows, kColumns, codes);
    const int row = place / kColumns;
    std::vector<uint8_t> out;
    const absl::Status status = matrix.Decode(0, kRows, &out);
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(
        std::string(status.message()),
        ::testing::AllOf(HasSubstr("tensor w "),
                         HasSubstr("row " + std::to_string(row) + ", column " +
                                   std::to_string(place % kColumns))));
    // Rows without it are fine.
    EXPECT_TRUE(matrix.Decode(0, row, &out).ok());
    EXPECT_FALSE(matrix.Decode(row, row + 1, &out).ok());
    EXPECT_TRUE(matrix.Decode(row + 1, kRows, &out).ok());
  }
}

TEST(Weights, FindsTheTensorsOfALayer) {
  testing::TinyModelOptions options;
  options.head_dim = 24;  // q_size 96, kv_size 48
  const Bytes bytes = testing::TinyModelBytes(options);
  auto file = *GgufReader::FromBytes(bytes);
  auto config = ReadModelConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  auto layer = FindLayer(*file, *config, 1);
  ASSERT_TRUE(layer.ok()) << layer.status();
  const auto is = [&](const TernaryTensor& t, const char* name, int n_out,
                      int n_in) {
    EXPECT_EQ(t.name, name);
    EXPECT_EQ(t.encoding, TernaryEncoding::kI2S) << name;
    EXPECT_EQ(t.data.data(), file->FindTensor(name)->data.data()) << name;
    EXPECT_EQ(t.n_out, n_out) << name;
    EXPECT_EQ(t.n_in, n_in) << name;
    EXPECT_GT(t.scale, 0.0f) << name;
  };
  is(layer->q, "blk.1.attn_q.weight", 96, 64);
  is(layer->k, "blk.1.attn_k.weight", 48, 64);
  is(layer->v, "blk.1.attn_v.weight", 48, 64);
  is(layer->o, "blk.1.attn_output.weight", 64, 96);
  is(layer->gate, "blk.1.ffn_gate.weight", 128, 64);
  is(layer->up, "blk.1.ffn_up.weight", 128, 64);
  is(layer->down, "blk.1.ffn_down.weight", 64, 128);
  EXPECT_EQ(layer->attn_norm.size(), 64u);
  EXPECT_EQ(layer->attn_sub_norm.size(), 96u);
  EXPECT_EQ(layer->ffn_norm.size(), 64u);
  EXPECT_EQ(layer->ffn_sub_norm.size(), 128u);
}

TEST(Weights, ReadsTheScaleBehindTheCodes) {
  GgufBuilder builder = TinyModel({});
  const std::vector<uint8_t> codes(64 * 64, 1);
  builder.MutableTensor("blk.0.attn_q.weight")->data = PackI2S(codes, 0.375f);
  const Bytes bytes = builder.Build();
  auto file = *GgufReader::FromBytes(bytes);
  auto layer = FindLayer(*file, *ReadModelConfig(*file), 0);
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ(layer->q.scale, 0.375f);
}

// The product is rounded once, and exact where one of the scales is 1.
TEST(Weights, MultipliesTheScaleOfAMatrixWithThatBesideIt) {
  for (const auto& [own, beside, product] : std::vector<std::array<float, 3>>{
           {1.0f, 0.3f, 0.3f}, {0.3f, 1.0f, 0.3f}, {0.1f, 0.7f, 0.1f * 0.7f}}) {
    GgufBuilder builder = TinyModel({});
    const std::vector<uint8_t> codes(64 * 64, 1);
    builder.MutableTensor("blk.0.attn_q.weight")->data = PackI2S(codes, own);
    builder.AddTensor("blk.0.attn_q.scale", {1}, GgufBuilder::kF32,
                      PackF32({beside}));
    const Bytes bytes = builder.Build();
    auto file = *GgufReader::FromBytes(bytes);
    auto layer = FindLayer(*file, *ReadModelConfig(*file), 0);
    ASSERT_TRUE(layer.ok()) << layer.status();
    EXPECT_EQ(layer->q.scale, product);
  }
}

TEST(Weights, WidensNormsOfEitherType) {
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i) values[i] = std::ldexp(i - 30.0f, i - 40);
  values[0] = std::ldexp(1.0f, -24);     // smallest float16
  values[1] = std::ldexp(1023.0f, -24);  // largest subnormal one
  values[2] = 65504.0f;
  values[3] = -0.0f;
  GgufBuilder builder = TinyModel({});
  builder.MutableTensor("output_norm.weight")->type = GgufBuilder::kF16;
  for (int i = 40; i < 64; ++i) values[i] = 1.0f / 1024 * i;
  for (int i = 4; i < 40; ++i) values[i] = (i % 2 ? -1.0f : 1.0f) * (1 + i);
  builder.MutableTensor("output_norm.weight")->data = PackF16(values);
  builder.MutableTensor("blk.0.attn_norm.weight")->data = PackF32(values);
  const Bytes bytes = builder.Build();
  auto file = *GgufReader::FromBytes(bytes);
  auto config = ReadModelConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*FindOutputNorm(*file, *config), values);
  EXPECT_EQ(FindLayer(*file, *config, 0)->attn_norm, values);
}

TEST(Weights, HeadIsTheEmbeddingOnlyWithoutOneOfItsOwn) {
  for (bool tied : {true, false}) {
    testing::TinyModelOptions options;
    options.tied_head = tied;
    options.f32_embedding = tied;
    const Bytes bytes = testing::TinyModelBytes(options);
    auto file = *GgufReader::FromBytes(bytes);
    auto config = ReadModelConfig(*file);
    ASSERT_TRUE(config.ok()) << config.status();
    auto embedding = FindEmbedding(*file, *config);
    auto head = FindHead(*file, *config);
    ASSERT_TRUE(embedding.ok() && head.ok());
    EXPECT_EQ(embedding->name, "token_embd.weight");
    EXPECT_EQ(embedding->data.data(),
              file->FindTensor("token_embd.weight")->data.data());
    EXPECT_EQ(head->name, tied ? "token_embd.weight" : "output.weight");
    EXPECT_EQ(head->encoding, tied ? DenseEncoding::kF32 : DenseEncoding::kF16);
    EXPECT_EQ(head->row_bytes(), tied ? 256 : 128);
    EXPECT_EQ(head->n_rows, 320);
    EXPECT_EQ(head->n_columns, 64);
  }
}

struct BadTensor {
  const char* name;
  std::function<void(GgufBuilder*)> spoil;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadTensor& bad, std::ostream* os) { *os << bad.name; }

class WeightsBadTensor : public ::testing::TestWithParam<BadTensor> {};

TEST_P(WeightsBadTensor, IsRefused) {
  GgufBuilder builder = TinyModel({});
  const Bytes sound = builder.Build();
  auto sound_file = *GgufReader::FromBytes(sound);
  auto config = ReadModelConfig(*sound_file);
  ASSERT_TRUE(config.ok()) << config.status();
  GetParam().spoil(&builder);
  const Bytes bytes = builder.Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();

  absl::Status status = FindLayer(**file, *config, 0).status();
  if (status.ok()) status = FindEmbedding(**file, *config).status();
  if (status.ok()) status = FindHead(**file, *config).status();
  if (status.ok()) status = FindOutputNorm(**file, *config).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

void SetScale(GgufBuilder* b, float scale) {
  b->MutableTensor("blk.0.ffn_up.weight")->data =
      PackI2S(std::vector<uint8_t>(128 * 64, 1), scale);
}

void SetType(GgufBuilder* b, const char* name, uint32_t type, size_t n_bytes) {
  GgufBuilder::Tensor* tensor = b->MutableTensor(name);
  tensor->type = type;
  tensor->data = Bytes(n_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    All, WeightsBadTensor,
    ::testing::Values(
        BadTensor{"ScaleNan", [](GgufBuilder* b) { SetScale(b, NAN); },
                  "scale of tensor blk.0.ffn_up.weight is not finite"},
        BadTensor{"ScaleInfinite",
                  [](GgufBuilder* b) { SetScale(b, -INFINITY); },
                  "scale of tensor blk.0.ffn_up.weight is not finite"},
        BadTensor{
            "MatrixMissing",
            [](GgufBuilder* b) { b->RemoveTensor("blk.0.attn_v.weight"); },
            "no tensor blk.0.attn_v.weight"},
        BadTensor{"MatrixTransposed",
                  [](GgufBuilder* b) {
                    b->MutableTensor("blk.0.ffn_up.weight")->dims = {128, 64};
                  },
                  "blk.0.ffn_up.weight has shape [128, 64]"},
        BadTensor{"MatrixOfAnotherTernaryType",
                  [](GgufBuilder* b) {
                    SetType(b, "blk.0.attn_q.weight", 135, 64 * (4 + 16));
                  },
                  "blk.0.attn_q.weight has type IQ2_BN",
                  absl::StatusCode::kUnimplemented},
        BadTensor{"MatrixOfFloats",
                  [](GgufBuilder* b) {
                    SetType(b, "blk.0.attn_q.weight", 1, 64 * 64 * 2);
                  },
                  "the matrices of this model are dense",
                  absl::StatusCode::kUnimplemented},
        BadTensor{"ScaleOfIntegers",
                  [](GgufBuilder* b) {
                    b->AddTensor("blk.0.attn_q.scale", {1}, 26, Bytes(4));
                  },
                  "scales as F32"},
        BadTensor{"SeparateScaleNan",
                  [](GgufBuilder* b) {
                    b->AddTensor("blk.0.attn_q.scale", {1}, GgufBuilder::kF32,
                                 PackF32({NAN}));
                  },
                  "blk.0.attn_q.scale is not finite"},
        BadTensor{"ProductOfScalesInfinite",
                  [](GgufBuilder* b) {
                    SetScale(b, 1e30f);
                    b->AddTensor("blk.0.ffn_up.scale", {1}, GgufBuilder::kF32,
                                 PackF32({1e30f}));
                  },
                  "scale of tensor blk.0.ffn_up.weight is not finite"},
        BadTensor{"NormOfIntegers",
                  [](GgufBuilder* b) {
                    SetType(b, "blk.0.ffn_norm.weight", 26, 64 * 4);
                  },
                  "norms as F32, F16 or BF16"},
        BadTensor{"NormNotFinite",
                  [](GgufBuilder* b) {
                    std::vector<float> norm(64, 1.0f);
                    norm[63] = NAN;
                    b->MutableTensor("output_norm.weight")->data =
                        PackF32(norm);
                  },
                  "output_norm.weight is not finite at element 63"},
        BadTensor{"HalfNormInfinite",
                  [](GgufBuilder* b) {
                    SetType(b, "output_norm.weight", 1, 128);
                    b->MutableTensor("output_norm.weight")->data[5] = 0x7c;
                  },
                  "output_norm.weight is not finite at element 2"},
        BadTensor{"NormQuantised",
                  [](GgufBuilder* b) {
                    SetType(b, "blk.0.ffn_norm.weight", 8, 64 / 32 * 34);
                  },
                  "norms as F32, F16 or BF16"},
        BadTensor{"EmbeddingOfAnotherType",
                  [](GgufBuilder* b) {
                    SetType(b, "token_embd.weight", 2, 320 * 64 / 32 * 18);
                  },
                  "token_embd.weight has type Q4_0"}),
    [](const ::testing::TestParamInfo<BadTensor>& info) {
      return std::string(info.param.name);
    });

}  // namespace
}  // namespace tern
