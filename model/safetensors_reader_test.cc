#include "model/safetensors_reader.h"

#include <unistd.h>

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SafetensorsBuilder;
using testing::SafetensorsBytes;

SafetensorsBuilder Sound() {
  SafetensorsBuilder builder;
  builder.AddTensor("a", "U8", {2, 3}, Bytes(6, 7))
      .AddTensor("b", "BF16", {5}, Bytes(10, 1))
      .AddTensor("c", "F32", {}, Bytes(4, 9));
  return builder;
}

TEST(SafetensorsReader, ListsTensorsInTheOrderOfTheHeader) {
  const Bytes bytes = Sound().Build();
  auto file = SafetensorsReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tensors = (*file)->tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, "U8");
  EXPECT_THAT(tensors[0].shape, ElementsAre(2, 3));
  EXPECT_THAT(tensors[0].data, ElementsAre(7, 7, 7, 7, 7, 7));
  EXPECT_EQ(tensors[1].dtype, "BF16");
  EXPECT_EQ(tensors[1].data.size(), 10u);
  EXPECT_THAT(tensors[2].shape, ElementsAre());
  EXPECT_THAT(tensors[2].data, ElementsAre(9, 9, 9, 9));
  ASSERT_EQ((*file)->metadata().size(), 1u);
  EXPECT_EQ((*file)->metadata()[0].first, "format");
  EXPECT_EQ((*file)->metadata()[0].second, "pt");
  EXPECT_EQ((*file)->file_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_EQ((*file)->header().size() + 20, bytes.size());
}

TEST(SafetensorsReader, RefusesEveryTruncation) {
  const Bytes whole = Sound().Build();
  for (size_t size = 0; size < whole.size(); ++size) {
    // A copy of exactly that size, so that sanitizers see a read beyond it.
    const Bytes part(whole.begin(), whole.begin() + size);
    const absl::Status status = SafetensorsReader::FromBytes(part).status();
    EXPECT_EQ(status.code(), size < 8 ? absl::StatusCode::kInvalidArgument
                                      : absl::StatusCode::kDataLoss)
        << size << ": " << status;
  }
}

TEST(SafetensorsReader, ReadsEscapedNamesAndDataInAnyOrder) {
  const Bytes bytes = SafetensorsBytes(
      R"({"x\u0041":{"data_offsets":[2,4],"shape":[1,2,1],"dtype":"I8"},)"
      R"("y":{"dtype":"I16","shape":[1],"data_offsets":[0,2]},)"
      R"("none":{"dtype":"F32","shape":[0,4],"data_offsets":[1,1]}})",
      Bytes{1, 2, 3, 4, 5});
  auto file = SafetensorsReader::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].name, "xA");
  EXPECT_THAT((*file)->tensors()[0].data, ElementsAre(3, 4));
  EXPECT_THAT((*file)->tensors()[1].data, ElementsAre(1, 2));
  EXPECT_TRUE((*file)->tensors()[2].data.empty());
}

TEST(SafetensorsReader, MapsAFile) {
  const std::string path = testing::WriteTempFile(Sound().Build());
  auto file = SafetensorsReader::Open(path);
  unlink(path.c_str());
  ASSERT_TRUE(file.ok()) << file.status();
  (*file)->Release((*file)->tensors()[0].data);
  EXPECT_THAT((*file)->tensors()[0].data, ElementsAre(7, 7, 7, 7, 7, 7));
}

TEST(SafetensorsReader, NamesTheFile) {
  EXPECT_EQ(SafetensorsReader::Open("/nonexistent/m").status().code(),
            absl::StatusCode::kNotFound);
  const std::string path = testing::WriteTempFile(Bytes(3));
  const absl::Status status = SafetensorsReader::Open(path).status();
  unlink(path.c_str());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

struct BadHeader {
  const char* name;
  std::string header;  // in front of 8 bytes of data
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadHeader& bad, std::ostream* os) { *os << bad.name; }

std::string Entry(const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return absl::StrCat(R"("t":{"dtype":")", dtype, R"(","shape":)", shape,
                      R"(,"data_offsets":)", offsets, "}");
}

std::string One(const std::string& dtype, const std::string& shape,
                const std::string& offsets) {
  return absl::StrCat("{", Entry(dtype, shape, offsets), "}");
}

class SafetensorsBadHeader : public ::testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsBadHeader, IsRefused) {
  const Bytes bytes = SafetensorsBytes(GetParam().header, Bytes(8));
  const absl::Status status = SafetensorsReader::FromBytes(bytes).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, SafetensorsBadHeader,
    ::testing::Values(
        BadHeader{"Empty", "", "no JSON"},
        BadHeader{"Cut", R"({"t":)", "no JSON"},
        BadHeader{"NotUtf8", "{\"\xff\":{}}", "no JSON"},
        BadHeader{"TrailingText", "{} x", "no JSON"},
        BadHeader{"List", "[]", "a list"}, BadHeader{"Number", "7", "a number"},
        BadHeader{"DeepLists", R"({"t":{"shape":)" + std::string(5000, '['),
                  "a list"},
        BadHeader{"DeepObjects", R"({"t":{"shape":{"a":{"b":{)", "an object"},
        BadHeader{"MetadataNumber", R"({"__metadata__":{"a":1}})", "a number"},
        BadHeader{"MetadataList", R"({"__metadata__":["a"]})", "a list"},
        BadHeader{"EntryIsString", R"({"t":"U8"})", "a string"},
        BadHeader{"NameEmpty", R"({"":{}})", "0 bytes"},
        BadHeader{"NameLong", "{\"" + std::string(256, 'n') + "\":{}}",
                  "256 bytes"},
        BadHeader{"NameTwice",
                  "{" + Entry("U8", "[8]", "[0,8]") + "," +
                      Entry("U8", "[8]", "[0,8]") + "}",
                  "'t' occurs twice"},
        BadHeader{"FieldTwice", R"({"t":{"dtype":"U8","dtype":"U8"}})",
                  "'dtype' twice"},
        BadHeader{"FieldUnknown", R"({"t":{"order":"row"}})", "a string"},
        BadHeader{"NoShape", R"({"t":{"dtype":"U8","data_offsets":[0,8]}})",
                  "lacks dtype, shape"},
        BadHeader{"NoOffsets", R"({"t":{"dtype":"U8","shape":[8]}})",
                  "lacks dtype, shape"},
        BadHeader{"DtypeUnknown", One("I4", "[8]", "[0,8]"), "type 'I4'",
                  absl::StatusCode::kUnimplemented},
        BadHeader{"DimensionNegative", One("U8", "[-8]", "[0,8]"),
                  "a negative number"},
        BadHeader{"DimensionFraction", One("U8", "[8.0]", "[0,8]"),
                  "a fraction"},
        BadHeader{"DimensionHuge", One("U8", "[18446744073709551616]", "[0,8]"),
                  "a fraction"},
        BadHeader{"DimensionText", One("U8", "[\"8\"]", "[0,8]"), "a string"},
        BadHeader{"DimensionsMany", One("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]"),
                  "more than 8"},
        BadHeader{"ProductHuge", One("U8", "[4294967296,4294967296]", "[0,8]"),
                  "elements"},
        BadHeader{"ProductOverflows",
                  One("F64", "[9223372036854775808,2]", "[0,8]"), "elements"},
        BadHeader{"SizeOther", One("U8", "[7]", "[0,8]"), "enclose the 7"},
        BadHeader{"SizeOfWiderType", One("F32", "[8]", "[0,8]"),
                  "enclose the 32"},
        BadHeader{"OffsetsSwapped", One("U8", "[8]", "[8,0]"), "enclose"},
        BadHeader{"OffsetsOne", One("U8", "[8]", "[8]"), "enclose"},
        BadHeader{"OffsetsThree", One("U8", "[8]", "[0,8,8]"), "enclose"},
        BadHeader{"OffsetsBeyond", One("U8", "[8]", "[3,11]"), "3 are missing",
                  absl::StatusCode::kDataLoss},
        BadHeader{"Overlap",
                  R"({"s":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},)" +
                      Entry("U8", "[4]", "[4,8]") + "}",
                  "'s' overlaps tensor 't'"}),
    [](const ::testing::TestParamInfo<BadHeader>& info) {
      return std::string(info.param.name);
    });

TEST(SafetensorsReader, RefusesLengthsThatCannotBe) {
  Bytes bytes = SafetensorsBytes("{}", {});
  bytes[4] = 1;  // 4 GB
  EXPECT_THAT(
      std::string(SafetensorsReader::FromBytes(bytes).status().message()),
      HasSubstr("at most 100000000"));
  bytes = SafetensorsBytes("{}", {});
  bytes[0] = 3;
  EXPECT_EQ(SafetensorsReader::FromBytes(bytes).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tern
