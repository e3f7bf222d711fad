#include "model/jinja_lexer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "model/jinja_error.h"
#include "model/jinja_text.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

// \r\n and \r become \n; one newline at the end goes.
std::string NormalizedNewlines(absl::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool IsNameStart(char c) { return absl::ascii_isalpha(c) || c == '_'; }
bool IsNamePart(char c) { return absl::ascii_isalnum(c) || c == '_'; }

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run();

 private:
  absl::string_view Rest() const { return source_.substr(at_); }
  bool At(absl::string_view text) const {
    return absl::StartsWith(Rest(), text);
  }
  // Moves on, counting lines.
  void Skip(size_t n) {
    line_ += std::count(source_.begin() + at_, source_.begin() + at_ + n, '\n');
    at_ += n;
  }
  void SkipSpace() {
    Skip(TrimmedRange(Rest(), absl::nullopt, true, false).begin);
  }
  void Push(TokenKind kind, absl::string_view text = "") {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::string(text);
    tokens_.push_back(std::move(token));
  }
  absl::Status Fail(absl::string_view message) const {
    return ErrorAt(line_, message);
  }

  // What stands before a tag, its white space dealt with. `sign` is the '-' or
  // '+' of the tag, or 0.
  void PushText(absl::string_view text, char sign, bool is_block);
  absl::Status SkipComment();
  // Whether a `raw` block begins here, which is then taken.
  absl::StatusOr<bool> TakeRaw();
  // Up to the end of the tag.
  absl::Status TakeTag(bool is_block);
  // Whether the tag ends here, which is then taken.
  bool TakeTagEnd(bool is_block);
  absl::Status TakeToken();
  absl::Status TakeString();
  absl::Status TakeNumber();
  absl::StatusOr<uint32_t> TakeHex(int digits);
  absl::Status TakeEscape(std::string* out);
  absl::Status TakeOperator();

  const absl::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  // Whether what stands before `at_` is a newline or nothing.
  bool is_line_start_ = true;
  std::string open_;  // brackets in the tag that wait to be closed
  std::vector<Token> tokens_;
};

void Lexer::PushText(absl::string_view text, char sign, bool is_block) {
  if (sign == '-') {
    text = text.substr(0, TrimmedRange(text, absl::nullopt, false, true).end);
  } else if (sign != '+' && is_block) {
    // White space between the start of the line and a block goes.
    const size_t newline = text.rfind('\n');
    const bool has_newline = newline != absl::string_view::npos;
    const size_t begin = has_newline ? newline + 1 : 0;
    if (has_newline || is_line_start_) {
      const absl::string_view line = text.substr(begin);
      const ByteRange left = TrimmedRange(line, absl::nullopt, true, false);
      if (left.begin == line.size()) text = text.substr(0, begin);
    }
  }
  if (!text.empty()) Push(TokenKind::kText, text);
}

absl::Status Lexer::SkipComment() {
  const size_t end = Rest().find("#}");
  if (end == absl::string_view::npos) return Fail("a comment has no end '#}'");
  // The sign of "{#-#}" is that of the beginning.
  const char sign = end > 0 ? Rest()[end - 1] : 0;
  Skip(end + 2);
  const size_t before = at_;
  if (sign == '-') {
    SkipSpace();
  } else if (sign != '+' && At("\n")) {
    Skip(1);
  }
  is_line_start_ = at_ > before && source_[at_ - 1] == '\n';
  return absl::OkStatus();
}

absl::StatusOr<bool> Lexer::TakeRaw() {
  const absl::string_view rest = Rest();
  const size_t word = TrimmedRange(rest, absl::nullopt, true, false).begin;
  if (!absl::StartsWith(rest.substr(word), "raw")) return false;
  absl::string_view tail = rest.substr(word + 3);
  tail.remove_prefix(TrimmedRange(tail, absl::nullopt, true, false).begin);
  const bool strips = absl::StartsWith(tail, "-%}");
  if (!strips && !absl::StartsWith(tail, "%}")) return false;
  Skip(rest.size() - tail.size() + (strips ? 3 : 2));
  const size_t before = at_;
  if (strips) SkipSpace();
  is_line_start_ = at_ > before && source_[at_ - 1] == '\n';

  // Up to "{% endraw %}", in any spacing and with any signs.
  const size_t text_begin = at_;
  for (size_t open = source_.find("{%", at_); open != absl::string_view::npos;
       open = source_.find("{%", open + 2)) {
    size_t at = open + 2;
    char sign = 0;
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) {
      sign = source_[at++];
    }
    at += TrimmedRange(source_.substr(at), absl::nullopt, true, false).begin;
    if (!absl::StartsWith(source_.substr(at), "endraw")) continue;
    at += 6;
    at += TrimmedRange(source_.substr(at), absl::nullopt, true, false).begin;
    char end_sign = 0;
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) {
      end_sign = source_[at++];
    }
    if (!absl::StartsWith(source_.substr(at), "%}")) continue;
    PushText(source_.substr(text_begin, open - text_begin), sign, true);
    Skip(at + 2 - at_);
    const size_t end = at_;
    if (end_sign == '-') {
      SkipSpace();
    } else if (end_sign == 0 && At("\n")) {
      Skip(1);
    }
    is_line_start_ = at_ > end && source_[at_ - 1] == '\n';
    return true;
  }
  return Fail("'raw' has no 'endraw'");
}

bool Lexer::TakeTagEnd(bool is_block) {
  if (!open_.empty()) return false;
  const absl::string_view end = is_block ? "%}" : "}}";
  const absl::string_view rest = Rest();
  const char sign = rest.empty() ? 0 : rest[0];
  const bool is_signed = sign == '-' || (sign == '+' && is_block);
  if (!absl::StartsWith(rest.substr(is_signed ? 1 : 0), end)) return false;
  Push(is_block ? TokenKind::kBlockEnd : TokenKind::kOutputEnd);
  Skip(is_signed ? 3 : 2);
  const size_t before = at_;
  if (is_signed && sign == '-') {
    SkipSpace();
  } else if (!is_signed && is_block && At("\n")) {
    Skip(1);
  }
  is_line_start_ = at_ > before && source_[at_ - 1] == '\n';
  return true;
}

absl::Status Lexer::TakeTag(bool is_block) {
  Push(is_block ? TokenKind::kBlockBegin : TokenKind::kOutputBegin);
  const int line = line_;
  open_.clear();
  for (;;) {
    SkipSpace();
    if (at_ == source_.size()) {
      return ErrorAt(line, is_block ? "a tag '{%' has no end '%}'"
                                    : "a tag '{{' has no end '}}'");
    }
    if (TakeTagEnd(is_block)) return absl::OkStatus();
    RETURN_IF_ERROR(TakeToken());
  }
}

absl::Status Lexer::TakeToken() {
  const char c = source_[at_];
  if (c == '\'' || c == '"') return TakeString();
  if (absl::ascii_isdigit(c)) return TakeNumber();
  if (!IsNameStart(c)) return TakeOperator();
  size_t size = 1;
  while (size < Rest().size() && IsNamePart(Rest()[size])) ++size;
  Push(TokenKind::kName, Rest().substr(0, size));
  Skip(size);
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Lexer::TakeHex(int digits) {
  uint32_t value = 0;
  const absl::string_view text = Rest().substr(0, digits);
  if (text.size() < static_cast<size_t>(digits) ||
      !std::all_of(text.begin(), text.end(), absl::ascii_isxdigit) ||
      !absl::SimpleHexAtoi(text, &value)) {
    return Fail("an escape in a string lacks hexadecimal digits");
  }
  Skip(digits);
  return value;
}

// Behind the backslash. What Python does not know stays as it is.
absl::Status Lexer::TakeEscape(std::string* out) {
  static constexpr absl::string_view kFrom = "abfnrtv\\'\"";
  static constexpr absl::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
  if (at_ == source_.size()) return Fail("a string has no end");
  const char c = source_[at_];
  const size_t simple = kFrom.find(c);
  if (simple != absl::string_view::npos) {
    out->push_back(kTo[simple]);
    Skip(1);
    return absl::OkStatus();
  }
  uint32_t code_point = 0;
  if (c == 'x' || c == 'u' || c == 'U') {
    Skip(1);
    ASSIGN_OR_RETURN(code_point, TakeHex(c == 'x' ? 2 : c == 'u' ? 4 : 8));
  } else if (c >= '0' && c <= '7') {
    for (int i = 0; i < 3 && at_ < source_.size() && source_[at_] >= '0' &&
                    source_[at_] <= '7';
         ++i) {
      code_point = 8 * code_point + (source_[at_] - '0');
      Skip(1);
    }
  } else if (c == '\n') {  // the line goes on
    Skip(1);
    return absl::OkStatus();
  } else if (c == 'N') {
    return Fail("characters by name (\\N) are not offered in strings");
  } else {
    out->push_back('\\');
    return absl::OkStatus();
  }
  if (code_point > 0x10ffff || (code_point >= 0xd800 && code_point < 0xe000)) {
    return Fail("an escape in a string is no character");
  }
  AppendCodePoint(code_point, out);
  return absl::OkStatus();
}

absl::Status Lexer::TakeString() {
  const char quote = source_[at_];
  Token token;
  token.kind = TokenKind::kString;
  token.line = line_;
  Skip(1);
  for (;;) {
    // Up to the next byte that means something.
    const char stops[] = {quote, '\\'};
    const size_t plain = Rest().find_first_of(absl::string_view(stops, 2));
    if (plain == absl::string_view::npos) {
      return ErrorAt(token.line, "a string has no end");
    }
    token.text.append(Rest().data(), plain);
    Skip(plain);
    const char c = source_[at_];
    Skip(1);
    if (c == quote) break;
    RETURN_IF_ERROR(TakeEscape(&token.text));
  }
  tokens_.push_back(std::move(token));
  return absl::OkStatus();
}

absl::Status Lexer::TakeNumber() {
  const absl::string_view rest = Rest();
  size_t size = 0;
  const auto skip_digits = [&] {
    while (size < rest.size() && absl::ascii_isdigit(rest[size])) ++size;
  };
  const auto has_digit = [&](size_t at) {
    return at < rest.size() && absl::ascii_isdigit(rest[at]);
  };
  skip_digits();
  bool is_float = false;
  // `a.0.1` takes item 0 and then item 1.
  const bool is_item = at_ > 0 && source_[at_ - 1] == '.';
  if (!is_item && size < rest.size() && rest[size] == '.' &&
      has_digit(size + 1)) {
    is_float = true;
    ++size;
    skip_digits();
  }
  if (!is_item && size < rest.size() &&
      (rest[size] == 'e' || rest[size] == 'E')) {
    const bool is_signed = size + 1 < rest.size() &&
                           (rest[size + 1] == '+' || rest[size + 1] == '-');
    if (has_digit(size + 1 + is_signed)) {
      is_float = true;
      size += 1 + is_signed;
      skip_digits();
    }
  }
  const absl::string_view digits = rest.substr(0, size);
  Push(is_float ? TokenKind::kFloat : TokenKind::kInteger, digits);
  Token& token = tokens_.back();
  const bool fits = is_float ? absl::SimpleAtod(digits, &token.number)
                             : absl::SimpleAtoi(digits, &token.integer);
  if (!fits) return Fail(absl::StrCat("the number ", digits, " is too large"));
  if (size < rest.size() && IsNamePart(rest[size])) {
    return Fail(absl::StrCat("a number goes on as a name behind ", digits));
  }
  Skip(size);
  return absl::OkStatus();
}

absl::Status Lexer::TakeOperator() {
  for (absl::string_view text : {"//", "**", "==", "!=", ">=", "<="}) {
    if (!At(text)) continue;
    Push(TokenKind::kOperator, text);
    Skip(2);
    return absl::OkStatus();
  }
  const char c = source_[at_];
  if (!absl::StrContains("+-/*%~[](){}><=.:|,;", absl::string_view(&c, 1))) {
    return Fail(absl::StrCat("unexpected character '",
                             Rest().substr(0, CharacterBytes(c)), "'"));
  }
  if (c == '(' || c == '[' || c == '{') {
    open_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  } else if (c == ')' || c == ']' || c == '}') {
    if (open_.empty() || open_.back() != c) {
      return Fail(absl::StrCat("unexpected '", absl::string_view(&c, 1), "'"));
    }
    open_.pop_back();
  }
  Push(TokenKind::kOperator, absl::string_view(&c, 1));
  Skip(1);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  while (at_ < source_.size()) {
    // The next of "{{", "{%" and "{#".
    size_t open = source_.find('{', at_);
    while (open != absl::string_view::npos &&
           (open + 1 == source_.size() ||
            !absl::StrContains("{%#", source_.substr(open + 1, 1)))) {
      open = source_.find('{', open + 1);
    }
    if (open == absl::string_view::npos) {
      Push(TokenKind::kText, Rest());
      Skip(Rest().size());
      break;
    }
    const char kind = source_[open + 1];
    const absl::string_view text = source_.substr(at_, open - at_);
    const char next = open + 2 < source_.size() ? source_[open + 2] : 0;
    PushText(text, next, kind != '{');
    Skip(open + 2 - at_);
    if (At("-") || At("+")) Skip(1);
    if (kind == '#') {
      RETURN_IF_ERROR(SkipComment());
      continue;
    }
    if (kind == '%') {
      ASSIGN_OR_RETURN(const bool is_raw, TakeRaw());
      if (is_raw) continue;
    }
    RETURN_IF_ERROR(TakeTag(kind == '%'));
  }
  Push(TokenKind::kEnd);
  return std::move(tokens_);
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  const std::string text = NormalizedNewlines(source);
  return Lexer(text).Run();
}

}  // namespace jinja
}  // namespace tern
