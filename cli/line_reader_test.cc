#include "cli/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// A file with this in it, open for reading.
class LineReaderTest : public testing::Test {
 protected:
  int Open(const std::string& contents) {
    const std::string path = testing::TempDir() + "/lines";
    std::ofstream(path, std::ios::binary) << contents;
    fd_ = open(path.c_str(), O_RDONLY);
    EXPECT_GE(fd_, 0);
    return fd_;
  }
  ~LineReaderTest() override { close(fd_); }

  int fd_ = -1;
};

TEST_F(LineReaderTest, GivesLinesWithTheirNumbersAndPlaces) {
  LineReader reader(Open("one\ntwo\r\n\n\r\nlast"), "lines", 0, 100);
  struct Line {
    std::string text;
    int64_t begin;
    bool is_whole;
  };
  const std::vector<Line> lines = {{"one", 0, true},
                                   {"two", 4, true},
                                   {"", 9, true},
                                   {"", 10, true},
                                   {"last", 12, false}};
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto has_line = reader.Next();
    ASSERT_TRUE(has_line.ok() && *has_line) << i;
    EXPECT_EQ(reader.line(), lines[i].text);
    EXPECT_EQ(reader.number(), static_cast<int64_t>(i + 1));
    EXPECT_EQ(reader.begin(), lines[i].begin);
    EXPECT_EQ(reader.is_whole(), lines[i].is_whole);
  }
  for (int i = 0; i < 2; ++i) {
    const auto has_line = reader.Next();
    EXPECT_TRUE(has_line.ok() && !*has_line);
  }
}

TEST_F(LineReaderTest, ReadsNothingOfAnEmptyFile) {
  LineReader reader(Open(""), "lines", 0, 100);
  const auto has_line = reader.Next();
  EXPECT_TRUE(has_line.ok() && !*has_line);
}

TEST_F(LineReaderTest, BeginsWhereItIsTold) {
  LineReader reader(Open("skipped\nread\n"), "lines", 8, 100);
  ASSERT_TRUE(*reader.Next());
  EXPECT_EQ(reader.line(), "read");
  EXPECT_EQ(reader.begin(), 8);
}

// Longer than what is read at once, ending at its borders and beside them.
TEST_F(LineReaderTest, LinesMayCrossWhatIsReadAtOnce) {
  std::vector<std::string> lines;
  std::string contents;
  for (const int size : {65535, 65536, 65534, 1, 200000, 0, 65537}) {
    lines.push_back(std::string(size, static_cast<char>('a' + lines.size())));
    absl::StrAppend(&contents, lines.back(), "\n");
  }
  LineReader reader(Open(contents), "lines", 0, 200000);
  for (const std::string& line : lines) {
    const auto has_line = reader.Next();
    ASSERT_TRUE(has_line.ok() && *has_line) << has_line.status();
    EXPECT_EQ(reader.line(), line);
  }
  EXPECT_FALSE(*reader.Next());
}

TEST_F(LineReaderTest, RefusesALineAboveTheLimit) {
  const std::string fits(200000, 'x');
  for (const char* end : {"\n", ""}) {
    LineReader reader(Open(absl::StrCat(fits, "\n", fits, "x", end)), "lines",
                      0, 200000);
    ASSERT_TRUE(reader.Next().ok());
    EXPECT_EQ(reader.line(), fits);
    const absl::Status refused = reader.Next().status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_TRUE(absl::StrContains(refused.message(), "lines:2: "));
    EXPECT_TRUE(absl::StrContains(refused.message(), "200000 bytes"));
    EXPECT_FALSE(reader.is_whole());
    close(fd_);
  }
}

}  // namespace
}  // namespace tern
