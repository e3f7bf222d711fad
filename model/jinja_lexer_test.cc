#include "model/jinja_lexer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace jinja {
namespace {

// The texts, joined; every tag is one '#'.
std::string Texts(absl::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return std::string(tokens.status().message());
  std::string out;
  for (const Token& token : *tokens) {
    if (token.kind == TokenKind::kText) out += token.text;
    if (token.kind == TokenKind::kBlockBegin ||
        token.kind == TokenKind::kOutputBegin) {
      out += '#';
    }
  }
  return out;
}

TEST(JinjaLexer, BlocksTakeTheirLineWithThem) {
  EXPECT_EQ(Texts("a\n  {% if n %}\n  b\n  {% endif %}\nc\n"), "a\n#  b\n#c");
  EXPECT_EQ(Texts("  {% if n %}q{% endif %}  {% x %}\n z"), "#q#  # z");
  EXPECT_EQ(Texts("x  {% if n %}\n\n  y"), "x  #\n  y");
  // Only blocks: what is printed stays where it is.
  EXPECT_EQ(Texts("x\n  {{ n }}\n  y"), "x\n  #\n  y");
}

TEST(JinjaLexer, SignsTakeOrKeepWhiteSpace) {
  EXPECT_EQ(Texts("a\n  {%- if n -%}\n\n  b {{- n -}} \n c"), "a#b#c");
  EXPECT_EQ(Texts("a\n  {%+ if n +%}\n  b"), "a\n  #\n  b");
  EXPECT_EQ(Texts("a\n  {{+ n }}\n"), "a\n  #");
}

TEST(JinjaLexer, CommentsAndRaw) {
  EXPECT_EQ(Texts("a {# c #}\n b\n  {# c #}\nc"), "a  b\nc");
  EXPECT_EQ(Texts("a {#- c -#}\n b {#-#}\nx"), "abx");
  EXPECT_EQ(Texts("a  {% raw %}{{ x }}\n{% endraw %}\n b"), "a  {{ x }}\n b");
  EXPECT_EQ(Texts("a {%- raw -%} {{ x }}{% y %} {%- endraw -%} b"),
            "a{{ x }}{% y %}b");
}

TEST(JinjaLexer, NewlinesAreOneKindAndTheLastGoes) {
  EXPECT_EQ(Texts("a\r\nb\rc\n"), "a\nb\nc");
  EXPECT_EQ(Texts("a\n\n"), "a\n");
  EXPECT_EQ(Texts(""), "");
}

TEST(JinjaLexer, EndsOfTagsInStringsAndBracketsAreNone) {
  absl::StatusOr<std::vector<Token>> tokens =
      Tokenize("{{ {'}}': {'a': 1}} }}x");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_GE(tokens->size(), 3u);
  EXPECT_EQ((*tokens)[tokens->size() - 2].text, "x");
}

TEST(JinjaLexer, TokensKnowTheirLine) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(
      "a\r\n{{ 'b\nc' }}\n{# d\n #}\n{%- raw %}\n{% endraw %}{{ 1.5 }}");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const Token& number = (*tokens)[tokens->size() - 3];
  EXPECT_EQ(number.kind, TokenKind::kFloat);
  EXPECT_EQ(number.number, 1.5);
  EXPECT_EQ(number.line, 7);
}

TEST(JinjaLexer, Numbers) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize("{{ a.0.1 12 1e2 2.x");
  EXPECT_FALSE(tokens.ok());
  tokens = Tokenize("{{ a.0.1 12 1e2 }}");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  std::string kinds;
  for (const Token& token : *tokens) {
    if (token.kind == TokenKind::kInteger)
      absl::StrAppend(&kinds, token.integer, " ");
    if (token.kind == TokenKind::kFloat)
      absl::StrAppend(&kinds, token.number, "f ");
  }
  EXPECT_EQ(kinds, "0 1 12 100f ");
}

}  // namespace
}  // namespace jinja
}  // namespace tern
