#include "model/oniguruma.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/regex.h"

namespace tern {
namespace {

using Found = std::vector<std::string>;

// What a pattern finds.
Found Find(absl::string_view pattern, absl::string_view text) {
  auto regex = Regex::CompileOniguruma(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  if (!regex.ok()) return {};
  Regex::Room room;
  Regex::Walk walk(regex->get(), text, &room);
  Found found;
  Regex::Match match;
  for (;;) {
    const absl::StatusOr<bool> next = walk.Next(&match);
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok() || !*next) return found;
    found.emplace_back(text.substr(match.begin, match.end - match.begin));
  }
}

absl::StatusCode CodeOf(absl::string_view pattern) {
  return Regex::CompileOniguruma(pattern).status().code();
}

TEST(Oniguruma, TakesThePatternsOfTokenizers) {
  EXPECT_EQ(
      Find(
          R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
          R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
          "IT'S 1234 (a)!\n  b"),
      Found({"IT", "'S", " ", "123", "4", " (", "a", ")!\n", " ", " b"}));
  EXPECT_EQ(Find(R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
                 R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}|\s+)",
                 "CamelCase's 12"),
            Found({"Camel", "Case's", " ", "12"}));
  EXPECT_EQ(
      Find(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)", "-a [b ]c"),
      Found({"-a", "[b", "]c"}));
  EXPECT_EQ(Find(R"([一-龥぀-ゟ゠-ヿ]+)", "ab日本x"), Found({"日本"}));
}

TEST(Oniguruma, KnowsItsOwnSets) {
  // U+180E is no space; U+0085 and U+3000 are.
  EXPECT_EQ(Find(R"(\s)", "\u180e\u0085\u3000 x"),
            Found({"\u0085", "\u3000", " "}));
  EXPECT_EQ(Find(R"(\S+)", "a\u180eb\u3000c"), Found({"a\u180eb", "c"}));
  EXPECT_EQ(Find(R"([^\S\n]+)", "a \n\t b"), Found({" ", "\t "}));
  // A combining mark is part of a word.
  EXPECT_EQ(Find(R"(\w+)", "e\u0301_1-ⓐ"), Found({"e\u0301_1", "ⓐ"}));
  EXPECT_EQ(Find(R"(\W)", "e\u0301-"), Found({"-"}));
  EXPECT_EQ(Find(R"(\b\w)", "e\u0301a be"), Found({"e", "b"}));
  EXPECT_EQ(Find(R"(\B\w)", "ab cd"), Found({"b", "d"}));
  EXPECT_EQ(Find(R"(\h+)", "fx 1 G"), Found({"f", "1"}));
  EXPECT_EQ(Find(R"(\H+)", "1gx2"), Found({"gx"}));
  EXPECT_EQ(Find(R"(\d)", "1٣½"), Found({"1", "٣"}));
  // The vertical tab alone, not everything vertical.
  EXPECT_EQ(Find(R"(\v)", "\v\n\f"), Found({"\v"}));
}

TEST(Oniguruma, LinesAndDots) {
  EXPECT_EQ(Find("^a", "a\na"), Found({"a", "a"}));
  EXPECT_EQ(Find("a$", "a\na"), Found({"a", "a"}));
  EXPECT_EQ(Find("a.", "a\nab"), Found({"ab"}));
  EXPECT_EQ(Find("(?m)a.", "a\nab"), Found({"a\n", "ab"}));
  EXPECT_EQ(Find("(?m:a.)|b.", "a\nb\nbc"), Found({"a\n", "bc"}));
  EXPECT_EQ(Find(R"(a\r?\z)", "a\na"), Found({"a"}));
}

// {n,m}+ repeats, where PCRE2 would not give back.
TEST(Oniguruma, Repetitions) {
  EXPECT_EQ(Find("a{1,2}+a", "aaaa"), Found({"aaaa"}));
  EXPECT_EQ(Find("a++a", "aaaa"), Found());
  EXPECT_EQ(Find("a{,2}", "aaa"), Found({"aa", "a"}));
  EXPECT_EQ(Find("a{2,}?", "aaa"), Found({"aa"}));
  EXPECT_EQ(Find("(?:ab){2}{2}", "abababab"), Found({"abababab"}));
  EXPECT_EQ(Find("[ab]{1,2}+c", "abac"), Found({"abac"}));
}

TEST(Oniguruma, Classes) {
  EXPECT_EQ(Find(R"([\w-.]+)", "a-. ~"), Found({"a-."}));
  EXPECT_EQ(Find("[a-c-e]+", "abd-e"), Found({"ab", "-e"}));
  EXPECT_EQ(Find("[]a]+", "]ab"), Found({"]a"}));
  EXPECT_EQ(Find("[^]a]+", "]ab"), Found({"b"}));
  EXPECT_EQ(Find("[-a]+", "b-a"), Found({"-a"}));
  EXPECT_EQ(Find("[ #]+", "a #"), Found({" #"}));
  EXPECT_EQ(Find(R"([\x{41}-\x43\u0044]+)", "ABCDE"), Found({"ABCD"}));
  EXPECT_EQ(Find(R"(\p{^L}+)", "a1-b"), Found({"1-"}));
}

TEST(Oniguruma, RefusesWhatItDoesNotKnow) {
  for (const char* pattern :
       {"[a[bc]]", "[a&&b]",  "[[:alpha:]]", "(a)\\1",  "(?<n>a)", "(?~a)",
        "\\R",     "\\K",     "\\G",         "\\pL",    "a{2}?",   "a{x",
        "(?s)a",   "a(?i)b",  "[\\W]",       "[a-\\d]", "(?#c)",   "\\xff",
        "\\Q",     "\\p{L&}", "(*FAIL)"}) {
    const absl::StatusCode code = CodeOf(pattern);
    EXPECT_TRUE(code == absl::StatusCode::kUnimplemented ||
                code == absl::StatusCode::kInvalidArgument)
        << pattern << ": " << code;
  }
}

TEST(Oniguruma, RefusesWhatIsNoPattern) {
  for (const char* pattern : {"(",
                              ")",
                              "a)",
                              "[",
                              "[^",
                              "[a",
                              "\\",
                              "a|*",
                              "+",
                              "(?",
                              "(?:a",
                              "\\x{110000}",
                              "\\x{d800}",
                              "\\u12",
                              "\\x{",
                              "\\p{",
                              "\\p{Nonsense}",
                              "(?<=a+)b",
                              "[b-a]",
                              "a{99999999}"}) {
    EXPECT_NE(CodeOf(pattern), absl::StatusCode::kOk) << pattern;
  }
  EXPECT_EQ(CodeOf(std::string(100000, 'a')),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(std::string(1000, '(') + std::string(1000, ')')),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tern
