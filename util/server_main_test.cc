#include "util/server_main.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "util/credential_flags.h"

ABSL_FLAG(int, answer, 42, "The answer.");

namespace tern {
namespace {

// Parses the arguments, prints what came of it to stderr, and exits with 7 if
// the parser did not exit itself.
void Parse(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::cout.rdbuf(std::cerr.rdbuf());
  ParseServerFlags(static_cast<int>(arguments.size()), argv.data(),
                   "usage: server [FLAGS]\n",
                   {"util/server_main_test.cc", kCredentialFlagsFile});
  std::cerr << "answer " << absl::GetFlag(FLAGS_answer) << " ca "
            << CredentialOptionsFromFlags().ca_file << " insecure "
            << CredentialOptionsFromFlags().insecure;
  std::exit(7);
}

TEST(ParseServerFlagsDeathTest, ReadsFlags) {
  EXPECT_EXIT(
      Parse({"server", "--answer=6", "--tls_ca_file", "ca.pem", "--insecure"}),
      testing::ExitedWithCode(7), "answer 6 ca ca.pem insecure 1");
}

TEST(ParseServerFlagsDeathTest, PlaintextIsNotAllowedByDefault) {
  EXPECT_EXIT(Parse({"server"}), testing::ExitedWithCode(7),
              "answer 42 ca  insecure 0");
}

TEST(ParseServerFlagsDeathTest, HelpShowsOwnFlagsOnly) {
  EXPECT_EXIT(Parse({"server", "--help"}), testing::ExitedWithCode(0),
              "^usage: server \\[FLAGS\\]\n\nFlags, with their defaults:\n"
              "  --answer=42\n      The answer.\n  --insecure\n");
}

TEST(ParseServerFlagsDeathTest, RefusesWhatItDoesNotKnow) {
  EXPECT_EXIT(Parse({"server", "--anwser=6"}), testing::ExitedWithCode(1),
              "anwser");
  EXPECT_EXIT(Parse({"server", "--answer=six"}), testing::ExitedWithCode(1),
              "six");
  EXPECT_EXIT(Parse({"server", "answer=6"}), testing::ExitedWithCode(1),
              "'answer=6' is no flag");
}

TEST(WaitForShutdownSignal, ReturnsTheSignalThatCame) {
  for (const int signal : {SIGTERM, SIGINT}) {
    BlockShutdownSignals();
    ASSERT_EQ(kill(getpid(), signal), 0);
    EXPECT_EQ(WaitForShutdownSignal(), signal);
  }
}

TEST(ShutdownSignalWithin, ReturnsTheSignalOrThatNoneCame) {
  BlockShutdownSignals();
  EXPECT_EQ(ShutdownSignalWithin(absl::Milliseconds(1)), 0);
  kill(getpid(), SIGTERM);
  EXPECT_EQ(ShutdownSignalWithin(absl::Seconds(30)), SIGTERM);
}

TEST(WaitForShutdownSignalDeathTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        BlockShutdownSignals();
        kill(getpid(), SIGTERM);
        WaitForShutdownSignal();
        kill(getpid(), SIGTERM);
        std::exit(0);
      },
      testing::KilledBySignal(SIGTERM), "");
}

TEST(WritePortFile, WritesTheNumberAndNothingElse) {
  const std::string path = absl::StrCat(testing::TempDir(), "/port");
  ASSERT_TRUE(WritePortFile(path, 7600).ok());
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, "7600\n");
  EXPECT_NE(access((path + ".new").c_str(), F_OK), 0);
}

TEST(WritePortFile, WritesNothingWithoutAName) {
  EXPECT_TRUE(WritePortFile("", 7600).ok());
}

TEST(WritePortFile, NamesTheFileThatCannotBeWritten) {
  const absl::Status status = WritePortFile("/nowhere/at/all/port", 7600);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.ToString().find("/nowhere/at/all/port"), std::string::npos);
}

}  // namespace
}  // namespace tern
