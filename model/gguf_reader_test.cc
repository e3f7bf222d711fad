#include "model/gguf_reader.h"

#include <unistd.h>

#include <cmath>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_types.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"
#include "util/crc32c.h"

namespace tern {
namespace {

using testing::AppendString;
using testing::AppendUint32;
using testing::AppendUint64;
using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::WriteTempFile;

constexpr uint64_t kUint64Max = std::numeric_limits<uint64_t>::max();

// Two tensors, a few values: what the hostile files start from.
GgufBuilder Sound() {
  return GgufBuilder()
      .SetString("general.architecture", "none")
      .SetUint32("answer", 42)
      .SetStringArray("words", std::vector<std::string>{"to", "", "be"})
      .AddTensor("a", {8}, GgufBuilder::kF32, Bytes(32, 1))
      .AddTensor("b", {4, 3}, GgufBuilder::kF16, Bytes(24, 2));
}

Bytes ArrayValue(uint32_t element_type, uint64_t count, size_t n_bytes) {
  Bytes value;
  AppendUint32(element_type, &value);
  AppendUint64(count, &value);
  value.resize(value.size() + n_bytes);
  return value;
}

Bytes StringValue(uint64_t announced, absl::string_view text) {
  Bytes value;
  AppendUint64(announced, &value);
  value.insert(value.end(), text.begin(), text.end());
  return value;
}

Bytes Truncated(Bytes bytes, size_t size) {
  bytes.resize(size);
  return bytes;
}

GgufBuilder WithTensor(uint32_t type, std::vector<uint64_t> dims,
                       size_t n_bytes) {
  return GgufBuilder().AddTensor("t", std::move(dims), type, Bytes(n_bytes));
}

TEST(GgufReader, ReadsMetadataOfEveryType) {
  const Bytes bytes = GgufBuilder()
                          .SetUint8("u8", 200)
                          .SetInt8("i8", -3)
                          .SetUint16("u16", 65535)
                          .SetInt16("i16", -300)
                          .SetUint32("u32", 4000000000u)
                          .SetInt32("i32", -70000)
                          .SetUint64("u64", uint64_t{1} << 40)
                          .SetInt64("i64", -(int64_t{1} << 40))
                          .SetFloat("f32", 0.5f)
                          .SetDouble("f64", -0.25)
                          .SetBool("yes", true)
                          .SetBool("no", false)
                          .SetString("text", "Grüße")
                          .SetStringArray("words", {"a", "", "bc"})
                          .SetInt32Array("ints", {-1, 2})
                          .SetUint32Array("uints", {7})
                          .SetFloatArray("floats", {1.5f, -2.0f})
                          .Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufReader& r = **file;
  EXPECT_EQ(*r.GetInt("u8"), 200);
  EXPECT_EQ(*r.GetInt("i8"), -3);
  EXPECT_EQ(*r.GetInt("u16"), 65535);
  EXPECT_EQ(*r.GetInt("i16"), -300);
  EXPECT_EQ(*r.GetInt("u32"), 4000000000);
  EXPECT_EQ(*r.GetInt("i32"), -70000);
  EXPECT_EQ(*r.GetInt("u64"), int64_t{1} << 40);
  EXPECT_EQ(*r.GetInt("i64"), -(int64_t{1} << 40));
  EXPECT_EQ(*r.GetFloat("f32"), 0.5);
  EXPECT_EQ(*r.GetFloat("f64"), -0.25);
  EXPECT_TRUE(*r.GetBool("yes"));
  EXPECT_FALSE(*r.GetBool("no"));
  EXPECT_EQ(*r.GetString("text"), "Grüße");
  EXPECT_THAT(*r.GetStringArray("words"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(*r.GetIntArray("ints"), ElementsAre(-1, 2));
  EXPECT_THAT(*r.GetIntArray("uints"), ElementsAre(7));
  EXPECT_THAT(*r.GetFloatArray("floats"), ElementsAre(1.5f, -2.0f));
  EXPECT_TRUE(r.HasKey("u8"));
  EXPECT_FALSE(r.HasKey("u9"));
}

TEST(GgufReader, GettersNameMissingKeysAndWrongTypes) {
  const Bytes bytes = GgufBuilder()
                          .SetUint32("number", 1)
                          .SetString("text", "1")
                          .SetUint64("huge", kUint64Max)
                          .SetFloat("inf", INFINITY)
                          .SetDouble("nan", NAN)
                          .SetStringArray("words", {"a"})
                          .SetUint32Array("uints", {0x80000000u})
                          .SetFloatArray("floats", {1.0f})
                          .Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufReader& r = **file;
  const auto expect = [](const absl::Status& status, absl::StatusCode code,
                         absl::string_view key) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(key)));
  };
  const auto kWrong = absl::StatusCode::kInvalidArgument;
  expect(r.GetInt("absent").status(), absl::StatusCode::kNotFound, "absent");
  expect(r.GetString("absent").status(), absl::StatusCode::kNotFound, "absent");
  expect(r.GetInt("text").status(), kWrong, "text");
  expect(r.GetInt("huge").status(), kWrong, "huge");
  expect(r.GetString("number").status(), kWrong, "number");
  expect(r.GetBool("number").status(), kWrong, "number");
  expect(r.GetFloat("number").status(), kWrong, "number");
  expect(r.GetFloat("inf").status(), kWrong, "inf");
  expect(r.GetFloat("nan").status(), kWrong, "nan");
  expect(r.GetInt("words").status(), kWrong, "words");
  expect(r.GetStringArray("floats").status(), kWrong, "floats");
  expect(r.GetStringArray("text").status(), kWrong, "text");
  expect(r.GetIntArray("floats").status(), kWrong, "floats");
  expect(r.GetIntArray("uints").status(), kWrong, "uints");
  expect(r.GetFloatArray("words").status(), kWrong, "words");
}

TEST(GgufReader, ListsTensorsInFileOrder) {
  const Bytes bytes = Sound().Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const GgufTensor& a = (*file)->tensors()[0];
  const GgufTensor& b = (*file)->tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_THAT(a.dims, ElementsAre(8));
  EXPECT_EQ(a.columns(), 8);
  EXPECT_EQ(a.rows(), 1);
  EXPECT_EQ(Bytes(a.data.begin(), a.data.end()), Bytes(32, 1));
  EXPECT_EQ(b.type, static_cast<uint32_t>(GgufType::kF16));
  EXPECT_EQ(b.columns(), 4);
  EXPECT_EQ(b.rows(), 3);
  EXPECT_EQ(Bytes(b.data.begin(), b.data.end()), Bytes(24, 2));
  EXPECT_EQ((*file)->FindTensor("b"), &b);
  EXPECT_EQ((*file)->FindTensor("c"), nullptr);
  EXPECT_EQ((*file)->file_bytes(), static_cast<int64_t>(bytes.size()));
}

TEST(GgufReader, ReadsVersion2) {
  const Bytes bytes = Sound().set_version(2).Build();
  EXPECT_TRUE(GgufReader::FromBytes(bytes).ok());
}

TEST(GgufReader, AcceptsTensorsInAnyOrderOfOffsets) {
  GgufBuilder builder = Sound();
  builder.MutableTensor("a")->offset = 32;
  builder.MutableTensor("b")->offset = 0;
  builder.MutableTensor("b")->data = Bytes(32, 2);
  const Bytes bytes = builder.Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].data.data(),
            (*file)->tensors()[1].data.data() + 32);
}

TEST(GgufReader, HonoursAlignment) {
  const Bytes bytes =
      Sound().SetUint32("general.alignment", 256).set_alignment(256).Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(((*file)->tensors()[0].data.data() - bytes.data()) % 256, 0);
  EXPECT_EQ((*file)->tensors()[1].data[0], 2);
}

TEST(GgufReader, LastTensorMayEndWithTheFile) {
  const Bytes bytes = Sound().Build();
  ASSERT_NE(bytes.size() % 32, 0u);  // the builder pads nothing behind it
  EXPECT_TRUE(GgufReader::FromBytes(bytes).ok());
}

TEST(GgufReader, ReadsAFileWithoutTensors) {
  const Bytes bytes = GgufBuilder().SetUint32("answer", 42).Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->tensors().empty());
}

TEST(GgufReader, TellsWhatATruncatedFileLacks) {
  const Bytes whole = Sound().Build();
  auto file =
      GgufReader::FromBytes(absl::MakeConstSpan(whole).first(whole.size() - 5));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(file.status().message()),
              ::testing::AllOf(HasSubstr("'b'"), HasSubstr("5 are missing")));
}

TEST(GgufReader, RefusesEveryTruncation) {
  const Bytes whole = Sound().Build();
  for (size_t size = 0; size < whole.size(); ++size) {
    // A copy of exactly that size, so that sanitizers see a read beyond it.
    const Bytes part(whole.begin(), whole.begin() + size);
    auto file = GgufReader::FromBytes(part);
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.status().code(), size < 24
                                        ? absl::StatusCode::kInvalidArgument
                                        : absl::StatusCode::kDataLoss)
        << size << ": " << file.status();
  }
}

TEST(GgufReader, FingerprintCoversHeaderAndSizeOnly) {
  const Bytes bytes = Sound().Build();
  Bytes other_weights = bytes;
  other_weights.back() ^= 1;
  Bytes longer = bytes;
  longer.push_back(0);
  const Bytes other_header = Sound().SetUint32("answer", 43).Build();
  const uint64_t fingerprint = (*GgufReader::FromBytes(bytes))->fingerprint();
  EXPECT_EQ((*GgufReader::FromBytes(other_weights))->fingerprint(),
            fingerprint);
  EXPECT_NE((*GgufReader::FromBytes(longer))->fingerprint(), fingerprint);
  EXPECT_NE((*GgufReader::FromBytes(other_header))->fingerprint(), fingerprint);

  const size_t data_start =
      (*GgufReader::FromBytes(bytes))->tensors()[0].data.data() - bytes.data();
  const uint64_t size = bytes.size();
  EXPECT_EQ(fingerprint >> 32, Crc32c(bytes.data(), data_start));
  EXPECT_EQ(fingerprint & 0xffffffff, Crc32c(&size, sizeof(size)));
}

// ---------------------------------------------------------------------------
// Files that are wrong, each in one way.

struct BadFile {
  const char* name;
  std::function<Bytes()> make;
  absl::StatusCode code;
  const char* message;  // a part of it
};

void PrintTo(const BadFile& bad, std::ostream* os) { *os << bad.name; }

class GgufReaderBadFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(GgufReaderBadFile, IsRefused) {
  const Bytes bytes = GetParam().make();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), GetParam().code) << file.status();
  EXPECT_THAT(std::string(file.status().message()),
              HasSubstr(GetParam().message));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::vector<BadFile> BadHeaders() {
  return {
      {"Empty", [] { return Bytes(); }, kInvalid, "0 bytes"},
      {"ShorterThanHeader", [] { return Truncated(Sound().Build(), 23); },
       kInvalid, "23 bytes"},
      {"Magic", [] { return Sound().set_magic("GGML").Build(); }, kInvalid,
       "'GGML'"},
      {"Version1", [] { return Sound().set_version(1).Build(); }, kInvalid,
       "version 1"},
      {"Version4", [] { return Sound().set_version(4).Build(); }, kInvalid,
       "version 4"},
      {"BigEndian", [] { return Sound().set_version(0x03000000).Build(); },
       kInvalid, "big-endian"},
      {"TensorCountHuge",
       [] { return Sound().set_tensor_count(kUint64Max).Build(); }, kInvalid,
       "at most 65536"},
      {"TensorCountBeyondFile",
       [] { return Sound().set_tensor_count(65536).Build(); }, kLoss,
       "65536 tensors"},
      {"TensorCountOneTooMany",
       [] { return Sound().set_tensor_count(3).Build(); }, kLoss,
       "tensor name"},
      {"PairCountHuge",
       [] { return Sound().set_pair_count(uint64_t{1} << 63).Build(); },
       kInvalid, "at most 65536"},
      {"PairCountBeyondFile",
       [] { return Sound().set_pair_count(60000).Build(); }, kLoss,
       "60000 metadata pairs"},
      {"KeyEmpty", [] { return Sound().SetUint32("", 1).Build(); }, kInvalid,
       "has 0 bytes"},
      {"KeyTooLong",
       [] { return Sound().SetUint32(std::string(65536, 'k'), 1).Build(); },
       kInvalid, "has 65536 bytes"},
      {"KeyWithZeroByte",
       [] { return Sound().SetUint32(std::string("a\0b", 3), 1).Build(); },
       kInvalid, "zero byte"},
      {"KeyTwice",
       [] { return Sound().AddRaw("answer", kGgufUint32, Bytes(4)).Build(); },
       kInvalid, "'answer' occurs twice"},
      {"ValueTypeUnknown",
       [] { return Sound().SetRaw("answer", 13, Bytes(4)).Build(); }, kInvalid,
       "unknown type 13"},
      {"BoolOf2", [] { return Sound().SetRaw("yes", kGgufBool, {2}).Build(); },
       kInvalid, "holds 2"},
      {"StringBeyondFile",
       [] {
         return Sound()
             .SetRaw("text", kGgufString, StringValue(1000000, "x"))
             .Build();
       },
       kLoss, "takes 1000000 bytes"},
      {"StringLengthOverflows",
       [] {
         return Sound()
             .SetRaw("text", kGgufString, StringValue(kUint64Max, "x"))
             .Build();
       },
       kLoss, "cut short or damaged"},
      {"ArrayOfArrays",
       [] {
         return Sound()
             .SetRaw("nested", kGgufArray, ArrayValue(kGgufArray, 0, 0))
             .Build();
       },
       kInvalid, "array of arrays"},
      {"ArrayTypeUnknown",
       [] {
         return Sound().SetRaw("odd", kGgufArray, ArrayValue(99, 1, 8)).Build();
       },
       kInvalid, "unknown type 99"},
      {"ArrayBeyondFile",
       [] {
         return Sound()
             .SetRaw("long", kGgufArray, ArrayValue(kGgufInt32, 1000000, 4))
             .Build();
       },
       kLoss, "announces 1000000 elements"},
      // 2^62 elements of 4 bytes are 0 bytes modulo 2^64.
      {"ArraySizeOverflows",
       [] {
         return Sound()
             .SetRaw("long", kGgufArray,
                     ArrayValue(kGgufInt32, uint64_t{1} << 62, 0))
             .Build();
       },
       kLoss, "'long' announces"},
      {"StringArrayCountHuge",
       [] {
         return Sound()
             .SetRaw("words", kGgufArray,
                     ArrayValue(kGgufString, kUint64Max, 8))
             .Build();
       },
       kLoss, "'words' announces"},
      {"StringInArrayBeyondFile",
       [] {
         Bytes value = ArrayValue(kGgufString, 2, 0);
         AppendString("fine", &value);
         AppendUint64(kUint64Max - 3, &value);
         return Sound().SetRaw("words", kGgufArray, value).Build();
       },
       kLoss, "array string"},
      {"Split", [] { return Sound().SetUint16("split.count", 3).Build(); },
       kUnimplemented, "one of 3 parts"},
      {"AlignmentOf0",
       [] { return Sound().SetUint32("general.alignment", 0).Build(); },
       kInvalid, "general.alignment is 0"},
      {"AlignmentOf4",
       [] { return Sound().SetUint32("general.alignment", 4).Build(); },
       kInvalid, "general.alignment is 4"},
      {"AlignmentNoPowerOfTwo",
       [] { return Sound().SetUint32("general.alignment", 48).Build(); },
       kInvalid, "general.alignment is 48"},
      {"AlignmentTooLarge",
       [] { return Sound().SetUint32("general.alignment", 131072).Build(); },
       kInvalid, "general.alignment is 131072"},
      {"AlignmentOfAnotherType",
       [] { return Sound().SetUint64("general.alignment", 32).Build(); },
       kInvalid, "another type"},
  };
}

std::vector<BadFile> BadTensors() {
  return {
      {"NameEmpty",
       [] { return Sound().AddTensor("", {1}, 0, Bytes(4)).Build(); }, kInvalid,
       "has 0 bytes"},
      {"NameTooLong",
       [] {
         return Sound()
             .AddTensor(std::string(64, 't'), {1}, 0, Bytes(4))
             .Build();
       },
       kInvalid, "has 64 bytes"},
      {"NameTwice",
       [] { return Sound().AddTensor("a", {1}, 0, Bytes(4)).Build(); },
       kInvalid, "'a' occurs twice"},
      {"NoDimensions", [] { return WithTensor(0, {}, 4).Build(); }, kInvalid,
       "0 dimensions"},
      {"FiveDimensions",
       [] {
         return WithTensor(0, {1, 1, 1, 1, 1}, 4).Build();
       },
       kInvalid, "5 dimensions"},
      {"DimensionOf0",
       [] {
         return WithTensor(0, {4, 0}, 4).Build();
       },
       kInvalid, "dimension of 0"},
      {"ProductTooLarge",
       [] {
         return WithTensor(0, {uint64_t{1} << 48, 2}, 4).Build();
       },
       kInvalid, "more than"},
      // 2^32 * 2^32 is 0 modulo 2^64.
      {"ProductOverflows",
       [] {
         return WithTensor(0, {uint64_t{1} << 32, uint64_t{1} << 32}, 4)
             .Build();
       },
       kInvalid, "more than"},
      {"DimensionNegative",
       [] { return WithTensor(0, {kUint64Max}, 4).Build(); }, kInvalid,
       "more than"},
      {"RowsDoNotFitBlocks",
       [] {
         return WithTensor(8, {48, 2}, 102).Build();
       },
       kInvalid, "multiple of 32"},
      {"TernaryDoesNotFitBlocks",
       [] {
         return WithTensor(36, {32, 3}, 56).Build();
       },
       kInvalid, "multiple of 128"},
      {"OffsetUnaligned",
       [] {
         GgufBuilder builder = Sound();
         builder.MutableTensor("b")->offset = 33;
         return builder.Build();
       },
       kInvalid, "offset 33"},
      {"OffsetBeyondFile",
       [] {
         GgufBuilder builder = Sound();
         builder.MutableTensor("b")->offset = 1 << 20;
         return builder.Build();
       },
       kLoss, "are missing"},
      {"OffsetOverflows",
       [] {
         GgufBuilder builder = Sound();
         builder.MutableTensor("b")->offset = kUint64Max - 31;
         return builder.Build();
       },
       kLoss, "'b'"},
      {"SizeBeyondFile",
       [] { return WithTensor(0, {uint64_t{1} << 46}, 4).Build(); }, kLoss,
       "are missing"},
      {"Overlap",
       [] {
         GgufBuilder builder = Sound();
         builder.MutableTensor("a")->dims = {9};
         builder.MutableTensor("b")->data.resize(64);
         return builder.Build();
       },
       kInvalid, "'a' overlaps tensor 'b'"},
      {"SameOffset",
       [] {
         GgufBuilder builder = Sound();
         builder.MutableTensor("b")->offset = 0;
         return builder.Build();
       },
       kInvalid, "overlaps"},
      // The scale behind the codes must be in the file too.
      {"TernaryWithoutScale", [] { return WithTensor(36, {128}, 32).Build(); },
       kLoss, "32 are missing"},
      {"OldTypeWithTheIdOfTernary",
       [] {
         return WithTensor(36, {256, 4}, 576).Build();
       },
       kUnimplemented, "IQ4_NL_4_4"},
      {"I8S", [] { return WithTensor(37, {128}, 128).Build(); }, kUnimplemented,
       "37"},
      {"Tl1",
       [] {
         return WithTensor(38, {256, 4}, 288).Build();
       },
       kUnimplemented, "convert the model to I2_S"},
      {"Tl2",
       [] {
         return WithTensor(39, {256, 4}, 256).Build();
       },
       kUnimplemented, "TL2"},
      {"TypeUnknown", [] { return WithTensor(77, {32}, 64).Build(); },
       kUnimplemented, "'t': type id 77"},
      {"TypeRemoved", [] { return WithTensor(4, {32}, 64).Build(); },
       kUnimplemented, "type id 4"},
  };
}

std::string BadFileName(const ::testing::TestParamInfo<BadFile>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Header, GgufReaderBadFile,
                         ::testing::ValuesIn(BadHeaders()), BadFileName);
INSTANTIATE_TEST_SUITE_P(Tensor, GgufReaderBadFile,
                         ::testing::ValuesIn(BadTensors()), BadFileName);

TEST(GgufReader, TheBaseOfTheBadFilesIsSound) {
  const Bytes bytes = Sound().Build();
  auto file = GgufReader::FromBytes(bytes);
  EXPECT_TRUE(file.ok()) << file.status();
}

// ---------------------------------------------------------------------------

struct TypeSize {
  uint32_t type;
  const char* name;
  std::vector<uint64_t> dims;
  size_t bytes;
};

TEST(GgufReader, KnowsTheSizeOfEveryTypeThatItLists) {
  const TypeSize sizes[] = {
      {0, "F32", {3, 5}, 60},        {1, "F16", {3, 5}, 30},
      {2, "Q4_0", {64}, 36},         {3, "Q4_1", {64}, 40},
      {6, "Q5_0", {64}, 44},         {7, "Q5_1", {64}, 48},
      {8, "Q8_0", {64}, 68},         {12, "Q4_K", {512}, 288},
      {14, "Q6_K", {256, 2}, 420},   {30, "BF16", {7}, 14},
      {34, "TQ1_0", {256, 3}, 162},  {35, "TQ2_0", {256, 3}, 198},
      {36, "I2_S", {128, 3}, 128},   {36, "I2_S", {192, 2}, 128},
      {39, "MXFP4", {64, 2}, 68},    {134, "IQ1_BN", {128, 2}, 56},
      {135, "IQ2_BN", {128, 2}, 72}, {335, "IQ2_BN_R4", {64, 4}, 80},
  };
  for (const TypeSize& size : sizes) {
    const Bytes bytes = WithTensor(size.type, size.dims, size.bytes).Build();
    auto file = GgufReader::FromBytes(bytes);
    ASSERT_TRUE(file.ok()) << size.name << ": " << file.status();
    EXPECT_EQ((*file)->tensors()[0].data.size(), size.bytes) << size.name;
    EXPECT_EQ(GgufTypeName(size.type), size.name);

    const Bytes shorter(bytes.begin(), bytes.end() - 1);
    EXPECT_FALSE(GgufReader::FromBytes(shorter).ok()) << size.name;
  }
}

// At the end of the file 72 bytes may be 64 of I2_S and something behind, or 72
// of the other type. Ternary is what Tern is for.
TEST(GgufReader, TakesTernaryForTernaryWhenBothSizesFit) {
  const Bytes bytes = WithTensor(36, {128}, 72).Build();
  auto file = GgufReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].data.size(), 64u);
}

// ---------------------------------------------------------------------------

TEST(GgufReaderOpen, MapsAFile) {
  const Bytes bytes = Sound().Build();
  const std::string path = WriteTempFile(bytes);
  auto file = GgufReader::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  unlink(path.c_str());
  EXPECT_EQ((*file)->fingerprint(),
            (*GgufReader::FromBytes(bytes))->fingerprint());
  const GgufTensor& b = (*file)->tensors()[1];
  EXPECT_EQ(Bytes(b.data.begin(), b.data.end()), Bytes(24, 2));
  (*file)->Release(b.data);
  EXPECT_EQ(Bytes(b.data.begin(), b.data.end()), Bytes(24, 2));
}

TEST(GgufReaderOpen, MissingFileIsNotFound) {
  const absl::Status status = GgufReader::Open("/nonexistent/m.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/m.gguf"));
}

TEST(GgufReaderOpen, RefusesWhatIsNoFile) {
  EXPECT_EQ(GgufReader::Open("/").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(GgufReaderOpen, NamesTheDamagedFile) {
  const Bytes bytes = Sound().Build();
  for (size_t size : {size_t{0}, size_t{10}, bytes.size() - 1}) {
    const std::string path =
        WriteTempFile(absl::MakeConstSpan(bytes).first(size));
    const absl::Status status = GgufReader::Open(path).status();
    unlink(path.c_str());
    EXPECT_FALSE(status.ok()) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
}

}  // namespace
}  // namespace tern
