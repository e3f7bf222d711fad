#include "util/utf8.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr size_t kNone = absl::string_view::npos;

// U+FFFD, as often as wanted.
std::string Bad(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += "\xEF\xBF\xBD";
  return text;
}

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_EQ(FindInvalidUtf8(""), kNone);
  EXPECT_EQ(FindInvalidUtf8("plain, and longer than eight bytes"), kNone);
  EXPECT_EQ(FindInvalidUtf8("é€😀\U0010FFFF\u0800\u07ff\uffff"), kNone);
  EXPECT_EQ(FindInvalidUtf8(absl::string_view("a\0b", 3)), kNone);
  EXPECT_EQ(FindInvalidUtf8("abcdefghij\xff"), 10u);
  EXPECT_EQ(FindInvalidUtf8("\x80"), 0u);
  EXPECT_EQ(FindInvalidUtf8("a\xc0\x80"), 1u);         // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xc1\xbf"), 1u);         // overlong
  EXPECT_EQ(FindInvalidUtf8("é\xe0\x9f\xbf"), 2u);     // overlong
  EXPECT_EQ(FindInvalidUtf8("\xf0\x8f\xbf\xbf"), 0u);  // overlong
  EXPECT_EQ(FindInvalidUtf8("x\xed\xa0\x80"), 1u);     // a surrogate
  EXPECT_EQ(FindInvalidUtf8("\xf4\x90\x80\x80"), 0u);  // beyond U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("\xf5\x80\x80\x80"), 0u);
  EXPECT_EQ(FindInvalidUtf8("ok\xe2\x82"), 2u);  // cut short
  EXPECT_EQ(FindInvalidUtf8("ok\xf0\x9f\x98"), 2u);
}

struct Replacement {
  absl::string_view bytes;
  size_t taken;
  std::string text;
};

TEST(Utf8, ReplacesWhatIsInvalidAndLeavesWhatIsIncomplete) {
  const Replacement cases[] = {
      {"", 0, ""},
      {"abc", 3, "abc"},
      {"é€😀", 9, "é€😀"},
      {"a\xc3", 1, "a"},
      {"a\xe2\x82", 1, "a"},
      {"a\xf0\x9f\x98", 1, "a"},
      {"\x80z", 2, Bad(1) + "z"},
      {"\xffz", 2, Bad(1) + "z"},
      // A start that goes on wrongly is one; what follows starts anew.
      {"\xe2\x82z", 3, Bad(1) + "z"},
      {"\xf0\x9f\x98\xc3\xa9", 5, Bad(1) + "é"},
      {"\xc3\xc3\xa9", 3, Bad(1) + "é"},
      // A second byte out of range ends the sequence before it.
      {"\xe0\x80\x80", 3, Bad(3)},
      {"\xed\xa0\x80", 3, Bad(3)},
      {"\xf4\x90\x80\x80", 4, Bad(4)},
      {"\xf0\x80\x80\x80", 4, Bad(4)},
      {"\xc0\xaf", 2, Bad(2)},
  };
  for (const Replacement& c : cases) {
    std::string text = "before ";
    EXPECT_EQ(AppendValidUtf8(c.bytes, &text), c.taken) << c.text;
    EXPECT_EQ(text, absl::StrCat("before ", c.text));
  }
}

// All sequences of up to three bytes from those where rules change.
TEST(Utf8, BothAgreeOnEverySequence) {
  const unsigned char bytes[] = {
      0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
      0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
  for (unsigned char a : bytes) {
    for (unsigned char b : bytes) {
      for (unsigned char c : bytes) {
        for (unsigned char d : bytes) {
          const std::string in = {static_cast<char>(a), static_cast<char>(b),
                                  static_cast<char>(c), static_cast<char>(d)};
          std::string text;
          const size_t taken = AppendValidUtf8(in, &text);
          ASSERT_LE(in.size() - taken, 3u);
          ASSERT_EQ(FindInvalidUtf8(text), kNone);
          const bool is_valid = FindInvalidUtf8(in) == kNone;
          ASSERT_EQ(is_valid, taken == in.size() && text == in);
          // What was left waits for more: some continuation completes it.
          if (taken < in.size()) {
            std::string more = in.substr(taken);
            bool is_completed = false;
            for (unsigned char e : {0x80, 0x90, 0xa0, 0xbf}) {
              std::string longer = more + static_cast<char>(e);
              while (longer.size() < 4 && FindInvalidUtf8(longer) != kNone) {
                longer += '\x80';
              }
              is_completed |= FindInvalidUtf8(longer) == kNone;
            }
            ASSERT_TRUE(is_completed);
          }
        }
      }
    }
  }
}

TEST(NextCharacter, UndoesAppendCharacter) {
  std::string text;
  std::vector<int32_t> characters;
  for (int32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 251) {
    if (c >= 0xd800 && c < 0xe000) continue;
    characters.push_back(c);
    AppendCharacter(c, &text);
  }
  EXPECT_EQ(FindInvalidUtf8(text), absl::string_view::npos);
  size_t pos = 0;
  for (int32_t c : characters) ASSERT_EQ(NextCharacter(text, &pos), c);
  EXPECT_EQ(pos, text.size());
  text.clear();
  AppendCharacter(0x10ffff, &text);
  EXPECT_EQ(text, "\xf4\x8f\xbf\xbf");
}

}  // namespace
}  // namespace tern
