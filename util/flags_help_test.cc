#include "util/flags_help.h"

#include <string>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, zebras, 3, "Number of zebras, at least 1.");
ABSL_FLAG(
    absl::Duration, ant_pause, absl::Seconds(90),
    "Time between two ants, long enough for a text that does not fit into "
    "one line of a terminal.");
ABSL_FLAG(bool, quiet, false, "Says nothing.");
ABSL_FLAG(bool, colour, true, "Leaves colours out.");

namespace tern {
namespace {

TEST(FlagsHelp, ShowsNameDefaultAndTextOfTheFilesAskedFor) {
  EXPECT_EQ(FlagsHelp({"util/flags_help_test.cc"}),
            "  --ant_pause=1m30s\n"
            "      Time between two ants, long enough for a text that does not "
            "fit into one\n"
            "      line of a terminal.\n"
            "  --nocolour\n"
            "      Leaves colours out.\n"
            "  --quiet\n"
            "      Says nothing.\n"
            "  --zebras=3\n"
            "      Number of zebras, at least 1.\n");
}

TEST(FlagsHelp, LeavesOtherFilesOut) {
  EXPECT_EQ(FlagsHelp({"nowhere/main.cc"}), "");
}

}  // namespace
}  // namespace tern
