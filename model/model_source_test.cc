#include "model/model_source.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::PackBF16;
using testing::PackF16;
using testing::PackF32;
using testing::SafetensorsBuilder;
using testing::TinyModelOptions;
using testing::TinyPacking;
using testing::TinySafetensors;
using testing::TinySafetensorsModel;
using testing::TinyScales;

using SourceOr = absl::StatusOr<std::unique_ptr<ModelSource>>;

// Decodes everything; the first error of all.
absl::Status ReadAll(const ModelSource& source) {
  for (int i = 0; i < source.config().n_layers; ++i) {
    absl::StatusOr<LayerTensors> layer = source.FindLayer(i);
    if (!layer.ok()) return layer.status();
    for (TernaryTensor* t : {&layer->q, &layer->k, &layer->v, &layer->o,
                             &layer->gate, &layer->up, &layer->down}) {
      absl::Status status = MeasureTernary(t);
      if (!status.ok()) return status;
      std::vector<uint8_t> codes(static_cast<size_t>(t->n_out) * t->n_in);
      status = DecodeTernaryRows(*t, 0, t->n_out, codes.data());
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

TEST(ModelSource, NamesModelsAfterTheirPaths) {
  EXPECT_EQ(ModelNameOf("/models/bitnet-2b.gguf"), "bitnet-2b");
  EXPECT_EQ(ModelNameOf("bitnet-b1.58-2B-4T"), "bitnet-b1.58-2B-4T");
  EXPECT_EQ(ModelNameOf("/models/Falcon3-1B-1.58bit//"), "Falcon3-1B-1.58bit");
  EXPECT_EQ(ModelNameOf("/m/big-00001-of-00003.gguf"), "big");
  EXPECT_EQ(ModelNameOf("-00001-of-00003.gguf"), "-00001-of-00003");
}

TEST(ModelSource, OpensGguf) {
  TinyModelOptions options;
  options.architecture = "bitnet";
  options.tied_head = false;
  const std::string path = testing::WriteTinyModel(options);
  const SourceOr source = ModelSource::Open(path);
  unlink(path.c_str());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->format(), "GGUF");
  EXPECT_EQ((*source)->config().architecture, "bitnet");
  EXPECT_EQ((*source)->warnings().size(), 1u);
  EXPECT_TRUE(ReadAll(**source).ok());
  EXPECT_EQ((*source)->FindHead()->name, "token_embd.weight");
  EXPECT_TRUE((*source)->LoadTokenizer().ok());
  EXPECT_FALSE((*source)->chat_template().has_value());
  EXPECT_EQ((*source)->metadata()[0].first, "general.architecture");
  EXPECT_EQ((*source)->metadata()[0].second, "bitnet");
  const ModelSource::TensorInfo embedding = (*source)->tensors()[0];
  EXPECT_EQ(embedding.name, "token_embd.weight");
  EXPECT_EQ(embedding.type, "F16");
  EXPECT_THAT(embedding.shape, ElementsAre(320, 64));
  EXPECT_EQ(embedding.bytes, 320 * 64 * 2);
}

TEST(ModelSource, SaysWhatIsMissing) {
  EXPECT_EQ(ModelSource::Open("/nonexistent/m.gguf").status().code(),
            absl::StatusCode::kNotFound);
  const std::string path =
      testing::WriteTinySafetensors({"{}", "{}", SafetensorsBuilder()}, 1);
  std::filesystem::remove(path + "/config.json");
  const absl::Status status = ModelSource::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  std::filesystem::remove_all(path);
}

// ---------------------------------------------------------------------------
// Split GGUF files.

// Writes the model's tensors over `n_parts` files; returns the paths.
std::vector<std::string> WriteParts(
    int n_parts, const std::function<void(int, GgufBuilder*)>& spoil) {
  const GgufBuilder whole = testing::TinyModel({});
  std::string directory = absl::StrCat(::testing::TempDir(), "/parts_XXXXXX");
  EXPECT_NE(mkdtemp(&directory[0]), nullptr);
  std::vector<std::string> paths;
  for (int part = 0; part < n_parts; ++part) {
    GgufBuilder builder = part == 0 ? testing::TinyModel({}) : GgufBuilder();
    builder.SetUint16("split.no", part).SetUint16("split.count", n_parts);
    builder.SetInt32("split.tensors.count",
                     static_cast<int32_t>(whole.tensors().size()));
    for (size_t i = 0; i < whole.tensors().size(); ++i) {
      const GgufBuilder::Tensor& tensor = whole.tensors()[i];
      const bool is_here = static_cast<int>(i) % n_parts == part;
      if (part == 0 && !is_here) builder.RemoveTensor(tensor.name);
      if (part != 0 && is_here) {
        builder.AddTensor(tensor.name, tensor.dims, tensor.type, tensor.data);
      }
    }
    spoil(part, &builder);
    paths.push_back(absl::StrFormat("%s/m-%05d-of-%05d.gguf", directory,
                                    part + 1, n_parts));
    const Bytes bytes = builder.Build();
    std::ofstream out(paths.back(), std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return paths;
}

void Remove(const std::vector<std::string>& paths) {
  std::filesystem::remove_all(
      std::filesystem::path(paths.front()).parent_path());
}

TEST(ModelSourceSplit, ReadsAllParts) {
  const std::vector<std::string> paths =
      WriteParts(3, [](int, GgufBuilder*) {});
  const SourceOr source = ModelSource::Open(paths[0]);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE(ReadAll(**source).ok());
  const Bytes bytes = testing::TinyModelBytes({});
  const SourceOr whole = ModelSource::FromGguf(bytes);
  ASSERT_TRUE(whole.ok());
  for (int i = 0; i < 2; ++i) {
    const LayerTensors a = *(*source)->FindLayer(i);
    const LayerTensors b = *(*whole)->FindLayer(i);
    EXPECT_EQ(a.down.data, b.down.data);
    EXPECT_EQ(a.ffn_norm, b.ffn_norm);
  }
  int64_t size = 0;
  for (const std::string& path : paths) {
    size += static_cast<int64_t>(std::filesystem::file_size(path));
  }
  EXPECT_EQ((*source)->file_bytes(), size);
  EXPECT_NE((*source)->fingerprint(), (*whole)->fingerprint());
  Remove(paths);
}

struct BadSplit {
  const char* name;
  std::function<void(int part, GgufBuilder*)> spoil;
  int open;  // the part that is opened
  const char* message;
};

void PrintTo(const BadSplit& bad, std::ostream* os) { *os << bad.name; }

class ModelSourceBadSplit : public ::testing::TestWithParam<BadSplit> {};

TEST_P(ModelSourceBadSplit, IsRefused) {
  const std::vector<std::string> paths = WriteParts(2, GetParam().spoil);
  const absl::Status status =
      ModelSource::Open(paths[GetParam().open]).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  Remove(paths);
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelSourceBadSplit,
    ::testing::Values(
        BadSplit{"NotTheFirst", [](int, GgufBuilder*) {}, 1,
                 "open the first one, whose name ends in -00001-of-00002.gguf"},
        BadSplit{"NamedOtherwise",
                 [](int part, GgufBuilder* b) {
                   if (part == 0) b->SetUint16("split.count", 3);
                 },
                 0, "-00001-of-00003.gguf"},
        BadSplit{"PartsManyMore",
                 [](int part, GgufBuilder* b) {
                   if (part == 0) b->SetInt64("split.count", 1 << 30);
                 },
                 0, "at most 99999"},
        BadSplit{"PartOfAnother",
                 [](int part, GgufBuilder* b) {
                   if (part == 1) b->SetUint16("split.count", 5);
                 },
                 0, "is not part 2 of 2"},
        BadSplit{"PartOutOfOrder",
                 [](int part, GgufBuilder* b) {
                   if (part == 1) b->SetUint16("split.no", 0);
                 },
                 0, "is not part 2 of 2"},
        BadSplit{"TensorTwice",
                 [](int part, GgufBuilder* b) {
                   if (part == 1) {
                     b->AddTensor("token_embd.weight", {1}, GgufBuilder::kF32,
                                  Bytes(4));
                   }
                 },
                 0, "is in an earlier part, too"},
        BadSplit{"TensorMissing",
                 [](int part, GgufBuilder* b) {
                   if (part == 1) b->RemoveTensor("output_norm.weight");
                 },
                 0, "split.tensors.count says"}),
    [](const ::testing::TestParamInfo<BadSplit>& info) {
      return std::string(info.param.name);
    });

TEST(ModelSourceSplit, APartThatIsNotThereIsNamed) {
  const std::vector<std::string> paths =
      WriteParts(2, [](int, GgufBuilder*) {});
  std::filesystem::remove(paths[1]);
  const absl::Status status = ModelSource::Open(paths[0]).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(paths[1]));
  Remove(paths);
}

// ---------------------------------------------------------------------------
// Blocks with scales of their own.

TEST(ModelSource, RefusesTernaryBlocksOfDifferentScales) {
  for (const uint32_t type : {GgufBuilder::kTQ1_0, GgufBuilder::kTQ2_0}) {
    TinyModelOptions options;
    options.hidden_size = 256;
    options.ffn_size = 512;
    options.head_dim = 64;
    options.matrix_type = type;
    options.scales = TinyScales::kHalf;
    GgufBuilder builder = testing::TinyModel(options);
    Bytes& data = builder.MutableTensor("blk.1.ffn_down.weight")->data;
    data[data.size() - 1] ^= 1;
    const Bytes bytes = builder.Build();
    const SourceOr source = ModelSource::FromGguf(bytes);
    ASSERT_TRUE(source.ok()) << source.status();
    absl::Status status = ReadAll(**source);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::AllOf(HasSubstr("blk.1.ffn_down.weight"),
                                 HasSubstr("row 255, column 256")));
    // Unless the scale is 0, which makes its weights 0.
    data[data.size() - 1] = data[data.size() - 2] = 0;
    const Bytes with_zeros = builder.Build();
    const SourceOr sound = ModelSource::FromGguf(with_zeros);
    ASSERT_TRUE(sound.ok());
    EXPECT_TRUE(ReadAll(**sound).ok());
    const TernaryTensor down = (*sound)->FindLayer(1)->down;
    std::vector<uint8_t> codes(512);
    ASSERT_TRUE(DecodeTernaryRows(down, 255, 256, codes.data()).ok());
    EXPECT_EQ(std::vector<uint8_t>(codes.begin() + 256, codes.end()),
              std::vector<uint8_t>(256, 1));
  }
}

// ---------------------------------------------------------------------------
// Safetensors.

TinyModelOptions Options(TinyPacking packing = TinyPacking::kPacked) {
  TinyModelOptions options;
  options.architecture = "llama";
  options.tied_head = false;
  options.scales = packing == TinyPacking::kMasters ? TinyScales::kMaster
                                                    : TinyScales::kHalf;
  return options;
}

TEST(ModelSourceSafetensors, OpensADirectory) {
  const TinySafetensors model =
      TinySafetensorsModel(Options(), TinyPacking::kPacked);
  for (const int n_files : {1, 3}) {
    const std::string path = testing::WriteTinySafetensors(model, n_files);
    const SourceOr source = ModelSource::Open(path);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->format(), "safetensors");
    EXPECT_EQ((*source)->config().architecture, "llama");
    EXPECT_TRUE(ReadAll(**source).ok());
    EXPECT_EQ((*source)->FindHead()->name, "lm_head.weight");
    EXPECT_EQ((*source)->tensors().size(), model.tensors.tensors().size());
    EXPECT_EQ((*source)->metadata()[0].first, "architectures");
    EXPECT_FALSE((*source)->chat_template().has_value());
    // Mapped files may outlive their names.
    std::filesystem::remove_all(path);
    (*source)->Release((*source)->FindHead()->data);
    EXPECT_TRUE(ReadAll(**source).ok());
  }
}

TEST(ModelSourceSafetensors, LoadsTheSameTokenizerAsFromGguf) {
  const std::string path = testing::WriteTinySafetensors(
      TinySafetensorsModel(Options(), TinyPacking::kPacked), 1);
  const SourceOr source = ModelSource::Open(path);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto tokenizer = (*source)->LoadTokenizer();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Bytes bytes = testing::TinyModelBytes(Options());
  const auto expected = (*ModelSource::FromGguf(bytes))->LoadTokenizer();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::string text =
      "What the king's men saw\n\n was 1234 \xf0\x9f\x98\x80";
  const auto ids = (*tokenizer)->Encode(text, {});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, *(*expected)->Encode(text, {}));
  EXPECT_EQ((*tokenizer)->end_ids(), (*expected)->end_ids());
  EXPECT_EQ((*tokenizer)->bos_id(), (*expected)->bos_id());

  std::filesystem::remove(path + "/tokenizer_config.json");
  EXPECT_TRUE((*source)->LoadTokenizer().ok());
  std::filesystem::remove(path + "/tokenizer.json");
  const absl::Status status = (*source)->LoadTokenizer().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
  std::filesystem::remove_all(path);
}

TEST(ModelSourceSafetensors, FingerprintsCoverConfigurationAndHeaders) {
  const TinySafetensors model =
      TinySafetensorsModel(Options(), TinyPacking::kPacked);
  const auto fingerprint = [](const std::string& config,
                              const Bytes& bytes) -> uint64_t {
    const SourceOr source = ModelSource::FromSafetensors(config, bytes);
    EXPECT_TRUE(source.ok()) << source.status();
    return source.ok() ? (*source)->fingerprint() : 0;
  };
  const Bytes bytes = model.tensors.Build();
  const uint64_t expected = fingerprint(model.config_json, bytes);
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_NE(fingerprint(model.config_json, longer), expected);
  EXPECT_NE(fingerprint(model.config_json + " ", bytes), expected);
  Bytes other_weights = bytes;
  other_weights.back() ^= 1;
  EXPECT_EQ(fingerprint(model.config_json, other_weights), expected);
}

TEST(ModelSourceSafetensors, FindsTheChatTemplate) {
  const std::string path = testing::WriteTinySafetensors(
      TinySafetensorsModel(Options(), TinyPacking::kPacked), 1);
  const SourceOr source = ModelSource::Open(path);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto write = [&](const char* name, const char* text) {
    std::ofstream(path + "/" + name) << text;
  };
  write("tokenizer_config.json", R"({"chat_template": "{{ one }}"})");
  EXPECT_EQ((*source)->chat_template().value_or(""), "{{ one }}");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "x"},
                              {"name": "default", "template": "{{ two }}"}]})");
  EXPECT_EQ((*source)->chat_template().value_or(""), "{{ two }}");
  write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_FALSE((*source)->chat_template().has_value());
  write("chat_template.jinja", "{{ three }}");
  EXPECT_EQ((*source)->chat_template().value_or(""), "{{ three }}");
  std::filesystem::remove_all(path);
}

TEST(ModelSourceSafetensors, AHeadThatIsTiedIsPassedOverWithAWarning) {
  TinyModelOptions options = Options();
  TinySafetensors model = TinySafetensorsModel(options, TinyPacking::kPacked);
  options.tied_head = true;
  const std::string tied =
      TinySafetensorsModel(options, TinyPacking::kPacked).config_json;
  const Bytes bytes = model.tensors.Build();
  const SourceOr source = ModelSource::FromSafetensors(tied, bytes);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->FindHead()->name, "model.embed_tokens.weight");
  ASSERT_EQ((*source)->warnings().size(), 1u);
  EXPECT_THAT((*source)->warnings()[0], HasSubstr("lm_head.weight"));
}

// Rows 0..3 of a head of 4 are stored as 0, 2, 1, 3.
TEST(ModelSourceSafetensors, PutsRowsOfQAndKInPairs) {
  TinySafetensors model = TinySafetensorsModel(Options(), TinyPacking::kPacked);
  std::vector<uint8_t> codes(64 * 64, 1);
  for (const int row : {16, 24, 17, 25}) codes[row * 64] = 2;
  model.tensors.MutableTensor("model.layers.0.self_attn.q_proj.weight")->data =
      testing::PackRows(codes, 64, 64);
  const Bytes bytes = model.tensors.Build();
  const SourceOr source =
      ModelSource::FromSafetensors(model.config_json, bytes);
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<uint8_t> decoded(64 * 64);
  ASSERT_TRUE(
      DecodeTernaryRows((*source)->FindLayer(0)->q, 0, 64, decoded.data())
          .ok());
  std::vector<int> rows;
  for (int row = 0; row < 64; ++row) {
    if (decoded[row * 64] == 2) rows.push_back(row);
  }
  EXPECT_THAT(rows, ElementsAre(16, 17, 18, 19));
}

// The published example of this packing.
TEST(ModelSourceSafetensors, DecodesAKnownMatrix) {
  const uint8_t packed[] = {0x61, 0x18, 0x86, 0x61};
  TernaryTensor tensor;
  tensor.name = "w";
  tensor.encoding = TernaryEncoding::kPackedRows;
  tensor.data = packed;
  tensor.n_out = 8;
  tensor.n_in = 2;
  std::vector<uint8_t> codes(16);
  ASSERT_TRUE(DecodeTernaryRows(tensor, 0, 8, codes.data()).ok());
  EXPECT_THAT(codes,
              ElementsAre(1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1));
}

TEST(ModelSourceSafetensors, RoundsMastersHalfToEven) {
  // The mean is 1, so that weights round as they are.
  const std::vector<float> masters = {0.5f, -0.5f, 0.75f, -0.75f,
                                      2.5f, -2.5f, 0.25f, -0.25f};
  for (const TernaryEncoding encoding :
       {TernaryEncoding::kF32, TernaryEncoding::kF16, TernaryEncoding::kBF16}) {
    const Bytes data = encoding == TernaryEncoding::kF32   ? PackF32(masters)
                       : encoding == TernaryEncoding::kF16 ? PackF16(masters)
                                                           : PackBF16(masters);
    TernaryTensor tensor;
    tensor.name = "w";
    tensor.encoding = encoding;
    tensor.data = data;
    tensor.n_out = 2;
    tensor.n_in = 4;
    ASSERT_TRUE(MeasureTernary(&tensor).ok());
    EXPECT_EQ(tensor.quantizer, 1.0f);
    EXPECT_EQ(tensor.scale, 1.0f);
    std::vector<uint8_t> codes(8);
    ASSERT_TRUE(DecodeTernaryRows(tensor, 0, 2, codes.data()).ok());
    EXPECT_THAT(codes, ElementsAre(1, 1, 2, 0, 2, 0, 1, 1));
  }
}

TEST(ModelSourceSafetensors, MastersOfZerosDivideNothing) {
  const Bytes data(64);
  TernaryTensor tensor;
  tensor.name = "w";
  tensor.encoding = TernaryEncoding::kBF16;
  tensor.data = data;
  tensor.n_out = 2;
  tensor.n_in = 16;
  ASSERT_TRUE(MeasureTernary(&tensor).ok());
  EXPECT_EQ(tensor.quantizer, 1.0f / 1e-5f);
  EXPECT_EQ(tensor.scale, 1.0f / (1.0f / 1e-5f));
}

struct BadModel {
  const char* name;
  TinyPacking packing;
  std::function<void(SafetensorsBuilder*)> spoil;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadModel& bad, std::ostream* os) { *os << bad.name; }

class ModelSourceBadSafetensors : public ::testing::TestWithParam<BadModel> {};

TEST_P(ModelSourceBadSafetensors, IsRefused) {
  TinySafetensors model =
      TinySafetensorsModel(Options(GetParam().packing), GetParam().packing);
  GetParam().spoil(&model.tensors);
  const Bytes bytes = model.tensors.Build();
  const SourceOr source =
      ModelSource::FromSafetensors(model.config_json, bytes);
  const absl::Status status = source.ok() ? ReadAll(**source) : source.status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

constexpr char kQ[] = "model.layers.1.self_attn.q_proj.weight";
constexpr char kQScale[] = "model.layers.1.self_attn.q_proj.weight_scale";

INSTANTIATE_TEST_SUITE_P(
    All, ModelSourceBadSafetensors,
    ::testing::Values(
        BadModel{"MatrixMissing", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) { b->RemoveTensor(kQ); },
                 "no tensor model.layers.1.self_attn.q_proj.weight"},
        BadModel{"ScaleMissing", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) { b->RemoveTensor(kQScale); },
                 "q_proj.weight_scale"},
        BadModel{"ScaleOfEachRow", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQScale)->shape = {2};
                   b->MutableTensor(kQScale)->data = Bytes(8);
                 },
                 "q_proj.weight_scale has shape [2]"},
        BadModel{"ScaleNan", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQScale)->data = PackF32({NAN});
                 },
                 "q_proj.weight_scale is not finite"},
        BadModel{"ScaleZeroToDivideBy", TinyPacking::kPackedReciprocal,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQScale)->data = PackF32({0.0f});
                 },
                 "divides nothing"},
        BadModel{"ScaleOfIntegers", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQScale)->dtype = "I32";
                 },
                 "type I32"},
        BadModel{"MatrixUnpacked", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQ)->shape = {64, 64};
                   b->MutableTensor(kQ)->data = Bytes(64 * 64);
                 },
                 "should be [16, 64]"},
        BadModel{"MatrixOfFloats", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQ)->dtype = "F16";
                   b->MutableTensor(kQ)->data = Bytes(16 * 64 * 2);
                 },
                 "should be packed, U8"},
        BadModel{"CodeThree", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQ)->data[70] = 0xff;
                 },
                 "no weight in row 1, column 6", absl::StatusCode::kDataLoss},
        BadModel{"MastersWithScale", TinyPacking::kMasters,
                 [](SafetensorsBuilder* b) {
                   b->AddTensor(kQScale, "F32", {1}, PackF32({1.0f}));
                 },
                 "refuses to guess"},
        BadModel{"MastersNan", TinyPacking::kMasters,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor(kQ)->data[2 * 64 * 3 + 1] = 0x7f;
                   b->MutableTensor(kQ)->data[2 * 64 * 3] = 0xc0;
                 },
                 "is not finite in row 3", absl::StatusCode::kDataLoss},
        BadModel{"Bias", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->AddTensor("model.layers.0.self_attn.q_proj.bias", "F32",
                                {64}, Bytes(256));
                 },
                 "q_proj.bias"},
        BadModel{
            "NoHead", TinyPacking::kPacked,
            [](SafetensorsBuilder* b) { b->RemoveTensor("lm_head.weight"); },
            "no tensor lm_head.weight"},
        BadModel{"NormOfIntegers", TinyPacking::kPacked,
                 [](SafetensorsBuilder* b) {
                   b->MutableTensor("model.norm.weight")->dtype = "I32";
                 },
                 "type I32"},
        BadModel{
            "EmbeddingOfAnotherShape", TinyPacking::kPacked,
            [](SafetensorsBuilder* b) {
              b->MutableTensor("model.embed_tokens.weight")->shape = {64, 320};
            },
            "should be [320, 64]"}),
    [](const ::testing::TestParamInfo<BadModel>& info) {
      return std::string(info.param.name);
    });

struct BadIndex {
  const char* name;
  const char* index;
  const char* message;
};

void PrintTo(const BadIndex& bad, std::ostream* os) { *os << bad.name; }

class ModelSourceBadIndex : public ::testing::TestWithParam<BadIndex> {};

TEST_P(ModelSourceBadIndex, IsRefused) {
  const std::string path = testing::WriteTinySafetensors(
      TinySafetensorsModel(Options(), TinyPacking::kPacked), 1);
  std::ofstream(path + "/model.safetensors.index.json") << GetParam().index;
  const absl::Status status = ModelSource::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  std::filesystem::remove_all(path);
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelSourceBadIndex,
    ::testing::Values(
        BadIndex{"NoJson", "{", "no object weight_map"},
        BadIndex{"List", "[]", "no object weight_map"},
        BadIndex{"NoMap", "{}", "no object weight_map"},
        BadIndex{"MapOfNumbers", R"({"weight_map": {"a": 1}})", "no name"},
        BadIndex{"Empty", R"({"weight_map": {}})", "0 safetensors files"},
        BadIndex{"PathUpwards", R"({"weight_map": {"a": "../x.safetensors"}})",
                 "no name"},
        BadIndex{"OtherFile", R"({"weight_map": {"a": "config.json"}})",
                 "no name"},
        BadIndex{"TensorNotThere",
                 R"({"weight_map": {"a": "model.safetensors"}})",
                 "has no tensor a"}),
    [](const ::testing::TestParamInfo<BadIndex>& info) {
      return std::string(info.param.name);
    });

}  // namespace
}  // namespace tern
