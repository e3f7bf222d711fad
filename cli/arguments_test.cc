#include "cli/arguments.h"

#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, count, 1, "");
ABSL_FLAG(std::string, word, "", "");
ABSL_FLAG(bool, loud, false, "");
ABSL_FLAG(absl::Duration, pause, absl::ZeroDuration(), "");

namespace tern {
namespace {

class ArgumentsTest : public testing::Test {
 protected:
  static absl::StatusOr<Arguments> Parse(std::vector<std::string> words) {
    return ParseArguments(words, {"cli/arguments_test.cc"});
  }

 private:
  absl::FlagSaver saver_;
};

TEST_F(ArgumentsTest, SetsFlagsAndKeepsTheRest) {
  const auto arguments = Parse({"--count=3", "first", "-word", "a b", "--loud",
                                "--pause=2s", "second", "-"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(absl::GetFlag(FLAGS_count), 3);
  EXPECT_EQ(absl::GetFlag(FLAGS_word), "a b");
  EXPECT_TRUE(absl::GetFlag(FLAGS_loud));
  EXPECT_EQ(absl::GetFlag(FLAGS_pause), absl::Seconds(2));
  EXPECT_EQ(arguments->positional,
            (std::vector<std::string>{"first", "second", "-"}));
  EXPECT_TRUE(arguments->Has("count"));
  EXPECT_FALSE(arguments->help);
}

TEST_F(ArgumentsTest, KnowsWhatWasLeftOut) {
  EXPECT_FALSE(Parse({"text"})->Has("count"));
}

TEST_F(ArgumentsTest, KeepsEveryValueOfARepeatedFlag) {
  const auto arguments = Parse({"--word=a,b", "--word", "c", "--word="});
  ASSERT_TRUE(arguments.ok());
  EXPECT_EQ(arguments->given.at("word"),
            (std::vector<std::string>{"a,b", "c", ""}));
}

TEST_F(ArgumentsTest, TurnsBooleansOffInTwoWays) {
  absl::SetFlag(&FLAGS_loud, true);
  ASSERT_TRUE(Parse({"--noloud", "text"}).ok());
  EXPECT_FALSE(absl::GetFlag(FLAGS_loud));
  absl::SetFlag(&FLAGS_loud, true);
  ASSERT_TRUE(Parse({"--loud=false"}).ok());
  EXPECT_FALSE(absl::GetFlag(FLAGS_loud));
}

TEST_F(ArgumentsTest, TwoDashesEndTheFlags) {
  const auto arguments = Parse({"--count=2", "--", "--count=3", "-x"});
  ASSERT_TRUE(arguments.ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_count), 2);
  EXPECT_EQ(arguments->positional,
            (std::vector<std::string>{"--count=3", "-x"}));
}

TEST_F(ArgumentsTest, SeesHelp) {
  for (const std::string word : {"--help", "-help", "-h"}) {
    EXPECT_TRUE(Parse({word})->help) << word;
  }
}

TEST_F(ArgumentsTest, RefusesWhatItDoesNotUnderstand) {
  for (const std::string word :
       {"--cuont=3", "--count=three", "--count", "--nocount", "--pause=2", "-x",
        "--flagfile=/etc/passwd", "--loud=maybe"}) {
    const absl::Status status = Parse({word}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
  }
  EXPECT_TRUE(
      absl::StrContains(Parse({"--cuont=3"}).status().message(), "--cuont"));
}

TEST_F(ArgumentsTest, FlagsOfOtherFilesAreNotThere) {
  EXPECT_FALSE(ParseArguments({"--count=3"}, {"cli/other.cc"}).ok());
}

}  // namespace
}  // namespace tern
