#include "util/logging.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "util/status_macros.h"

namespace tern {
namespace {

TEST(Logging, ALineHasSeverityTimePlaceAndText) {
  testing::internal::CaptureStderr();
  LOG(WARNING) << "event=lost worker=" << 3;
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(testing::internal::RE::PartialMatch(
      line,
      "^W [0-9]+-[0-9]+-[0-9]+T[0-9:.]+Z logging_test.cc:[0-9]+\\] "
      "event=lost worker=3\n$"))
      << line;
}

TEST(Logging, LinesBelowTheMinimumAreNotPrinted) {
  SetMinLogSeverity(LogSeverity::kError);
  testing::internal::CaptureStderr();
  LOG(INFO) << "silence";
  LOG(WARNING) << "silence";
  LOG(ERROR) << "a word";
  const std::string text = testing::internal::GetCapturedStderr();
  SetMinLogSeverity(LogSeverity::kInfo);
  EXPECT_EQ(text.find("silence"), std::string::npos);
  EXPECT_NE(text.find("a word"), std::string::npos);
}

TEST(LoggingDeathTest, AFailedCheckSaysWhatAndEndsTheProcess) {
  const int two = 2;
  EXPECT_DEATH(CHECK(two == 3) << "two is " << two,
               "CHECK failed: two == 3 two is 2");
  CHECK(two == 2) << "is not printed";
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return absl::InvalidArgumentError("odd");
  return n / 2;
}

absl::StatusOr<int> Quarter(int n) {
  ASSIGN_OR_RETURN(const int half, Half(n));
  RETURN_IF_ERROR(Half(half).status());
  return half / 2;
}

TEST(StatusMacros, PassValuesAndErrorsOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(7).status(), absl::InvalidArgumentError("odd"));
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));
}

}  // namespace
}  // namespace tern
