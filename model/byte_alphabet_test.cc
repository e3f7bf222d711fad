#include "model/byte_alphabet.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(ByteAlphabet, SpellsEveryByteAndReadsItBack) {
  std::set<std::string> spellings;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    std::string spelling, read;
    AppendSpelling(bytes, &spelling);
    EXPECT_TRUE(AppendSpelledBytes(spelling, &read)) << byte;
    EXPECT_EQ(read, bytes);
    spellings.insert(spelling);
  }
  EXPECT_EQ(spellings.size(), 256u);
}

TEST(ByteAlphabet, HasTheCharactersOfGpt2) {
  std::string spelling;
  AppendSpelling(absl::string_view(" \n\0A\xff\xad", 6), &spelling);
  EXPECT_EQ(spelling, "ĠĊĀAÿŃ");
}

TEST(ByteAlphabet, RefusesOtherCharacters) {
  for (const char* spelling : {" ", "\n", "a b", "日", "ń", "\xc4", "\xff",
                               "\xc4\x41", "😀", "\u00ad", "\u0080"}) {
    std::string out;
    EXPECT_FALSE(AppendSpelledBytes(spelling, &out)) << spelling;
  }
}

}  // namespace
}  // namespace tern
