#include "model/normal_form.h"

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

std::string Compose(absl::string_view text) {
  std::string out;
  size_t done = 0;
  const absl::Status status = VisitNormalFormC(
      text, [&](size_t begin, size_t end, absl::string_view to) {
        EXPECT_LE(done, begin);
        absl::StrAppend(&out, text.substr(done, begin - done), to);
        done = end;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  absl::StrAppend(&out, text.substr(done));
  return out;
}

// What is called for, as "begin-end:to " each.
std::string Changes(absl::string_view text) {
  std::string changes;
  const absl::Status status = VisitNormalFormC(
      text, [&](size_t begin, size_t end, absl::string_view to) {
        absl::StrAppend(&changes, begin, "-", end, ":", to, " ");
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return changes;
}

TEST(VisitNormalFormC, LeavesPlainText) {
  for (const absl::string_view text :
       {"", "plain", "\x7f\t\n", "Grüße, ñ ÿ", "½ × ÷ ɏ ʯ"}) {
    EXPECT_EQ(Changes(text), "") << text;
  }
}

TEST(VisitNormalFormC, NamesNoMoreThanWhatChanges) {
  EXPECT_EQ(Changes("<|a|>Привет"), "");
  EXPECT_EQ(Changes("<|a|>Приветe\u0301"), "17-20:\u00e9 ");
  // The last letter and its accent, in a run of letters that stay.
  EXPECT_EQ(Changes("日本か\u3099語"), "6-12:が ");
  EXPECT_EQ(Changes("e\u0301 日 a\u0301"), "0-3:\u00e9 8-11:\u00e1 ");
  EXPECT_EQ(Changes("\u212b"), "0-3:\u00c5 ");
}

TEST(VisitNormalFormC, EndsWithTheFirstError) {
  int n_calls = 0;
  const absl::Status status = VisitNormalFormC(
      "e\u0301 e\u0301", [&](size_t, size_t, absl::string_view) {
        ++n_calls;
        return absl::ResourceExhaustedError("enough");
      });
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(n_calls, 1);
}

TEST(VisitNormalFormC, LeavesComposedText) {
  for (const char* text :
       {"Ωμέγα, Привет", "日本語テスト が", "한국어", "😀 👨\u200d👩", "العربية",
        "שלום", "ภาษาไทย ที่", "हिन्दी", "1½²", "\ufe0f\u20e3", "x\u0305"}) {
    EXPECT_EQ(Compose(text), text);
  }
}

struct Case {
  absl::string_view from, to;
};

// Worked by hand from UAX #15 and the character database.
TEST(VisitNormalFormC, ComposesAndOrders) {
  const Case cases[] = {
      // A letter and what stands above it, alone and in company.
      {"e\u0301", "\u00e9"},
      {"ae\u0301b", "a\u00e9b"},
      {"e\u0301e\u0301", "\u00e9\u00e9"},
      {"\u0301e", "\u0301e"},
      // Two marks, one after another: U+1EA5, a with circumflex and acute.
      {"a\u0302\u0301", "\u1ea5"},
      {"\u00e2\u0301", "\u1ea5"},
      // The dot below (220) comes before the dot above (230).
      {"q\u0307\u0323", "q\u0323\u0307"},
      {"\u1e0a\u0323", "\u1e0c\u0307"},
      {"d\u0307\u0323", "\u1e0d\u0307"},
      // A mark of another class between does not keep them apart,
      {"a\u0316\u0301", "\u00e1\u0316"},
      // one of the same class does.
      {"a\u0305\u0301", "a\u0305\u0301"},
      // From the database's own tests.
      {"a\u0315\u0300\u05ae\u0300b", "\u00e0\u05ae\u0300\u0315b"},
      // Characters that stand for others.
      {"\u212b", "\u00c5"},
      {"\u2126", "\u03a9"},
      {"\u0344", "\u0308\u0301"},
      {"\uf900", "\u8c48"},
      {"\U0002fa1d", "\U0002a600"},
      {"\u2000", "\u2002"},
      // Characters that the form takes apart for good.
      {"\u0958", "\u0915\u093c"},
      {"\u2adc", "\u2add\u0338"},
      {"\U0001d15e", "\U0001d157\U0001d165"},
      // Syllables of Hangul, of two parts and of three.
      {"\u1100\u1161", "\uac00"},
      {"\u1100\u1161\u11a8", "\uac01"},
      {"\uac00\u11a8", "\uac01"},
      {"\uac01\u11a8", "\uac01\u11a8"},
      // A voicing mark, and vowel signs of Bengali and Tamil.
      {"か\u3099", "が"},
      {"\u09c7\u09be", "\u09cb"},
      {"\u0bc6\u0bbe", "\u0bca"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(Compose(c.from), c.to);
    // In a text, twice.
    EXPECT_EQ(Compose(absl::StrCat("é ", c.from, ". ", c.from)),
              absl::StrCat("é ", c.to, ". ", c.to));
    EXPECT_EQ(Compose(c.to), c.to);
  }
}

// Time that grew with the square would make this a matter of hours.
TEST(VisitNormalFormC, HandlesAMillionMarksInTheWrongOrder) {
  constexpr int kMarks = 500000;
  std::string from = "q", to = "q";
  for (int i = 0; i < kMarks; ++i) from += "\u0307\u0323";
  for (int i = 0; i < kMarks; ++i) to += "\u0323";
  for (int i = 0; i < kMarks; ++i) to += "\u0307";
  EXPECT_TRUE(Compose(from) == to);
}

}  // namespace
}  // namespace tern
