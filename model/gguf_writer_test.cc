#include "model/gguf_writer.h"

#include <dirent.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/gguf_types.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::GgufBuilder;

constexpr uint32_t kF32 = 0;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> FilesIn(const std::string& directory) {
  std::vector<std::string> names;
  DIR* dir = opendir(directory.c_str());
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  closedir(dir);
  return names;
}

class GgufWriterTest : public ::testing::Test {
 protected:
  GgufWriterTest() {
    std::string directory = ::testing::TempDir() + "/writer_XXXXXX";
    directory_ = mkdtemp(&directory[0]);
    path_ = directory_ + "/m.gguf";
  }

  // Two tensors, of 12 and 64 bytes.
  static GgufHeader Header() {
    GgufHeader header;
    header.SetString("general.architecture", "none");
    header.SetUint32("a.count", 7);
    EXPECT_TRUE(header.AddTensor("first", {3}, kF32, 12).ok());
    EXPECT_TRUE(header.AddTensor("second", {4, 4}, kF32, 64).ok());
    return header;
  }

  absl::Status WriteFile(bool overwrite, uint8_t fill = 1) {
    auto writer = GgufWriter::Create(path_, Header(), overwrite);
    if (!writer.ok()) return writer.status();
    EXPECT_TRUE((*writer)->Append(Bytes(12, fill)).ok());
    EXPECT_TRUE((*writer)->Append(Bytes(40, fill)).ok());
    EXPECT_TRUE((*writer)->Append(Bytes(24, fill)).ok());
    EXPECT_EQ((*writer)->written_bytes(), (*writer)->file_bytes());
    return (*writer)->Finish(/*sync=*/true);
  }

  std::string directory_;
  std::string path_;
};

TEST_F(GgufWriterTest, WritesTheBytesThatTheBuilderOfTestsWrites) {
  const std::vector<std::string> words = {"", "one", "two words"};
  GgufHeader header;
  header.SetString("general.architecture", "x");
  header.SetUint32("general.alignment", 64);
  header.SetBool("b", true);
  header.SetFloat("f", 0.5f);
  header.SetStringArray("words", words);
  header.SetInt32Array("numbers", {1, -2, 3});
  header.SetUint32("u", 8);
  header.SetUint32("u", 9);
  ASSERT_TRUE(header.AddTensor("t", {3}, kF32, 12).ok());
  ASSERT_TRUE(header.AddTensor("s", {2, 16}, kF32, 128).ok());
  auto writer = GgufWriter::Create(path_, header, false);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(Bytes(12, 3)).ok());
  ASSERT_TRUE((*writer)->Append(Bytes(128, 4)).ok());
  ASSERT_TRUE((*writer)->Finish(/*sync=*/false).ok());

  const Bytes expected = GgufBuilder()
                             .SetString("general.architecture", "x")
                             .SetUint32("general.alignment", 64)
                             .SetBool("b", true)
                             .SetFloat("f", 0.5f)
                             .SetStringArray("words", words)
                             .SetInt32Array("numbers", {1, -2, 3})
                             .SetUint32("u", 9)
                             .AddTensor("t", {3}, kF32, Bytes(12, 3))
                             .AddTensor("s", {2, 16}, kF32, Bytes(128, 4))
                             .set_alignment(64)
                             .Build();
  EXPECT_EQ(ReadAll(path_), std::string(expected.begin(), expected.end()));
}

TEST_F(GgufWriterTest, RawValuesOfTheReaderCopyAFile) {
  const std::vector<std::string> words = {"a", "", "bcd"};
  const Bytes original = GgufBuilder()
                             .SetInt8("i8", -1)
                             .SetUint64("u64", uint64_t{1} << 60)
                             .SetDouble("f64", 2.5)
                             .SetString("s", "text")
                             .SetStringArray("words", words)
                             .SetStringArray("none", {})
                             .SetFloatArray("floats", {1.0f, 2.0f})
                             .SetBool("end", false)
                             .Build();
  const auto reader = GgufReader::FromBytes(original);
  ASSERT_TRUE(reader.ok()) << reader.status();
  GgufHeader header;
  for (const std::string& key : (*reader)->keys()) {
    const auto raw = (*reader)->GetRaw(key);
    ASSERT_TRUE(raw.ok()) << raw.status();
    header.SetRaw(key, raw->type, raw->bytes);
  }
  auto writer = GgufWriter::Create(path_, header, false);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Finish(/*sync=*/false).ok());
  std::string expected(original.begin(), original.end());
  expected.resize((expected.size() + 31) / 32 * 32);
  EXPECT_EQ(ReadAll(path_), expected);
  EXPECT_TRUE(absl::IsNotFound((*reader)->GetRaw("missing").status()));
}

TEST_F(GgufWriterTest, AFileThatIsThereIsReplacedOnlyOnRequest) {
  ASSERT_TRUE(WriteFile(false).ok());
  const std::string first = ReadAll(path_);
  const absl::Status refused = WriteFile(false, 2);
  EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), path_)) << refused;
  EXPECT_EQ(ReadAll(path_), first);
  ASSERT_TRUE(WriteFile(true, 2).ok());
  EXPECT_NE(ReadAll(path_), first);
  EXPECT_EQ(FilesIn(directory_), std::vector<std::string>{"m.gguf"});
}

TEST_F(GgufWriterTest, AFileThatCameMeanwhileIsNotReplaced) {
  auto writer = GgufWriter::Create(path_, Header(), false);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append(Bytes(12)).ok());
  ASSERT_TRUE((*writer)->Append(Bytes(64)).ok());
  std::ofstream(path_) << "precious";
  EXPECT_TRUE(absl::IsAlreadyExists((*writer)->Finish(/*sync=*/false)));
  EXPECT_EQ(ReadAll(path_), "precious");
}

TEST_F(GgufWriterTest, AnUnfinishedFileLeavesNothing) {
  {
    auto writer = GgufWriter::Create(path_, Header(), false);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Append(Bytes(5)).ok());
    EXPECT_EQ(FilesIn(directory_).size(), 1u);
    EXPECT_NE(access(path_.c_str(), F_OK), 0);
  }
  EXPECT_TRUE(FilesIn(directory_).empty());
}

TEST_F(GgufWriterTest, ErrorsNameTheFile) {
  path_ = directory_ + "/missing/m.gguf";
  const absl::Status status = WriteFile(false);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
}

TEST_F(GgufWriterTest, TensorNamesAreChecked) {
  GgufHeader header = Header();
  EXPECT_TRUE(absl::IsInvalidArgument(header.AddTensor("first", {1}, kF32, 4)));
  EXPECT_TRUE(absl::IsInvalidArgument(header.AddTensor("", {1}, kF32, 4)));
  EXPECT_TRUE(absl::IsInvalidArgument(
      header.AddTensor(std::string(64, 'x'), {1}, kF32, 4)));
  EXPECT_TRUE(header.AddTensor(std::string(63, 'x'), {1}, kF32, 4).ok());
}

}  // namespace
}  // namespace tern
