#include "cli/text_table.h"

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(TextTable, AlignsWordsToTheLeftAndNumbersToTheRight) {
  EXPECT_EQ(TextTable({{"NAME", "SIZE", "LAYERS"},
                       {"small", "9.5 MiB", "0-2"},
                       {"a larger one", "512 B", "-"}}),
            "NAME             SIZE  LAYERS\n"
            "small         9.5 MiB     0-2\n"
            "a larger one    512 B       -\n");
}

TEST(TextTable, AHeadingAloneIsALine) {
  EXPECT_EQ(TextTable({{"NAME", "SIZE"}}), "NAME  SIZE\n");
  EXPECT_EQ(TextTable({}), "");
}

TEST(FormatBytes, KeepsTwoDigitsOrMore) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{12} << 30), "12 GiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 40), "5.0 TiB");
}

}  // namespace
}  // namespace tern
