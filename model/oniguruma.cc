#include "model/oniguruma.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

constexpr char kWordBoundary[] =
    "(?:(?<=[" TERN_REGEX_WORD "])(?![" TERN_REGEX_WORD
    "])"
    "|(?<![" TERN_REGEX_WORD "])(?=[" TERN_REGEX_WORD "]))";
constexpr char kNoWordBoundary[] =
    "(?:(?<=[" TERN_REGEX_WORD "])(?=[" TERN_REGEX_WORD
    "])"
    "|(?<![" TERN_REGEX_WORD "])(?![" TERN_REGEX_WORD "]))";

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run();

 private:
  bool AtEnd() const { return pos_ == in_.size(); }
  char Peek(size_t ahead = 0) const {
    return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0';
  }
  bool LooksAt(absl::string_view text) const {
    return in_.substr(pos_, text.size()) == text;
  }
  absl::Status Unknown(absl::string_view what) const {
    return absl::UnimplementedError(
        absl::StrCat("the pattern ", in_, " has ", what, " at offset ", pos_,
                     ", which Tern does not translate"));
  }
  absl::Status Wrong(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern ", in_, " ", what, " at offset ", pos_));
  }

  absl::Status Group();
  absl::Status Escape(bool in_class);
  absl::Status CodePoint();
  absl::Status Property();
  absl::Status Class();
  absl::Status Quantifier();
  void Literal();
  // Something begins that a quantifier may follow.
  void BeginAtom() { atom_ = out_.size(); }

  const absl::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  static constexpr size_t kNone = -1;
  size_t atom_ = kNone;              // where the last atom begins in out_
  std::vector<size_t> open_groups_;  // where each begins in out_
};

absl::StatusOr<std::string> Translator::Run() {
  while (!AtEnd()) {
    const char c = Peek();
    if (c == '(') {
      RETURN_IF_ERROR(Group());
    } else if (c == ')') {
      if (open_groups_.empty()) return Wrong("closes a group that is not open");
      ++pos_;
      out_ += ')';
      atom_ = open_groups_.back();
      open_groups_.pop_back();
    } else if (c == '[') {
      BeginAtom();
      RETURN_IF_ERROR(Class());
    } else if (c == '\\') {
      BeginAtom();
      RETURN_IF_ERROR(Escape(/*in_class=*/false));
    } else if (c == '*' || c == '+' || c == '?' || c == '{') {
      RETURN_IF_ERROR(Quantifier());
    } else if (c == '|') {
      ++pos_;
      out_ += '|';
      atom_ = kNone;
    } else if (c == '^' || c == '$' || c == '.') {
      ++pos_;
      BeginAtom();
      out_ += c;
    } else {
      BeginAtom();
      Literal();
    }
  }
  if (!open_groups_.empty()) return Wrong("ends inside a group");
  return std::move(out_);
}

// Copies one character that stands for itself.
void Translator::Literal() {
  const char c = Peek();
  // Escaped where it might mean something to PCRE2, in free-spacing mode or
  // inside a class; that is always allowed for ASCII punctuation.
  if (absl::ascii_ispunct(c) || c == ' ') out_ += '\\';
  const size_t begin = pos_;
  NextCharacter(in_, &pos_);
  out_.append(in_.data() + begin, pos_ - begin);
}

absl::Status Translator::Group() {
  const size_t begin = out_.size();
  if (Peek(1) != '?') {
    // No pattern here can refer back to a group, so none needs to remember.
    ++pos_;
    out_ += "(?:";
    open_groups_.push_back(begin);
    atom_ = kNone;
    return absl::OkStatus();
  }
  for (absl::string_view opening :
       {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
    if (!LooksAt(opening)) continue;
    pos_ += opening.size();
    absl::StrAppend(&out_, opening);
    open_groups_.push_back(begin);
    atom_ = kNone;
    return absl::OkStatus();
  }
  // (?i), (?i:...), (?mi-x:...)
  size_t at = 2;
  std::string flags;
  for (; absl::ascii_isalpha(Peek(at)) || Peek(at) == '-'; ++at) {
    const char flag = Peek(at);
    if (flag == 'm') {
      flags += 's';  // the dot matches newlines
    } else if (flag == 'i' || flag == '-') {
      flags += flag;
    } else {
      return Unknown("an option");
    }
  }
  if (flags.empty() || (Peek(at) != ':' && Peek(at) != ')')) {
    return Unknown("a group of an unusual kind");
  }
  const bool is_group = Peek(at) == ':';
  pos_ += at + 1;
  absl::StrAppend(&out_, "(?", flags, is_group ? ":" : ")");
  atom_ = kNone;
  if (is_group) {
    open_groups_.push_back(begin);
  } else if (!open_groups_.empty() || begin != 0) {
    // Both engines let it hold to the end of its group, but disagree about
    // alternatives behind it.
    return Unknown("an option that does not begin the pattern");
  }
  return absl::OkStatus();
}

// \x{1F600}, \x41, \u0041
absl::Status Translator::CodePoint() {
  const char kind = Peek();
  ++pos_;
  size_t n_max = kind == 'u' ? 4 : 2;
  const bool has_braces = kind == 'x' && Peek() == '{';
  if (has_braces) {
    ++pos_;
    n_max = 8;
  }
  uint64_t value = 0;
  size_t n = 0;
  for (; n < n_max && absl::ascii_isxdigit(Peek()); ++n, ++pos_) {
    const char c = absl::ascii_tolower(Peek());
    value = value << 4 | (absl::ascii_isdigit(c) ? c - '0' : c - 'a' + 10);
  }
  if (n == 0 || (kind == 'u' && n != 4)) return Wrong("lacks digits");
  if (has_braces) {
    if (Peek() != '}') return Wrong("lacks a }");
    ++pos_;
  } else if (kind == 'x' && value >= 0x80) {
    return Unknown("a byte that is no character");
  }
  if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
    return Wrong("names something that is no character");
  }
  absl::StrAppend(&out_, "\\x{", absl::Hex(value), "}");
  return absl::OkStatus();
}

// \p{L}, \P{Han}, \p{^L}
absl::Status Translator::Property() {
  const size_t begin = pos_;
  ++pos_;
  if (Peek() != '{') return Unknown("a property without braces");
  const size_t end = in_.find('}', pos_);
  if (end == absl::string_view::npos) return Wrong("lacks a }");
  for (size_t i = pos_ + 1; i < end; ++i) {
    const char c = in_[i];
    if (!absl::ascii_isalnum(c) && c != '_' && c != '^') {
      return Unknown("a property of an unusual name");
    }
  }
  pos_ = end + 1;
  out_ += '\\';
  out_.append(in_.data() + begin, pos_ - begin);
  return absl::OkStatus();
}

absl::Status Translator::Escape(bool in_class) {
  ++pos_;
  if (AtEnd()) return Wrong("ends in a backslash");
  const char c = Peek();
  // Names of sets: what stands for them inside a class, and outside.
  const auto set = [&](absl::string_view inside, bool is_negated) {
    ++pos_;
    if (in_class) {
      absl::StrAppend(&out_, inside);
    } else {
      absl::StrAppend(&out_, is_negated ? "[^" : "[", inside, "]");
    }
    return absl::OkStatus();
  };
  switch (c) {
    case 's':
      return set(TERN_REGEX_SPACES, false);
    case 'S':
      return set(TERN_REGEX_NO_SPACES, false);
    case 'w':
      return set(TERN_REGEX_WORD, false);
    case 'h':
      return set("0-9a-fA-F", false);
    case 'W':
      if (in_class) return Unknown("\\W inside a class");
      return set(TERN_REGEX_WORD, true);
    case 'H':
      if (in_class) return Unknown("\\H inside a class");
      return set("0-9a-fA-F", true);
    case 'd':
    case 'D':
    case 'r':
    case 'n':
    case 't':
    case 'f':
    case 'a':
    case 'e':
      ++pos_;
      out_ += '\\';
      out_ += c;
      return absl::OkStatus();
    case 'v':
      ++pos_;
      absl::StrAppend(&out_, "\\x{b}");
      return absl::OkStatus();
    case 'x':
    case 'u':
      return CodePoint();
    case 'p':
    case 'P':
      return Property();
    default:
      break;
  }
  if (!in_class) {
    switch (c) {
      case 'b':
        ++pos_;
        absl::StrAppend(&out_, kWordBoundary);
        return absl::OkStatus();
      case 'B':
        ++pos_;
        absl::StrAppend(&out_, kNoWordBoundary);
        return absl::OkStatus();
      case 'A':
      case 'z':
      case 'Z':
        ++pos_;
        out_ += '\\';
        out_ += c;
        return absl::OkStatus();
      default:
        break;
    }
  }
  if (absl::ascii_isalnum(c)) {
    return Unknown(absl::StrCat("the escape \\", absl::string_view(&c, 1)));
  }
  Literal();
  return absl::OkStatus();
}

absl::Status Translator::Class() {
  ++pos_;
  out_ += '[';
  if (Peek() == '^') {
    ++pos_;
    out_ += '^';
  }
  bool is_empty = true;
  bool may_begin_range = false;  // a character that is in no range yet
  bool in_range = false;         // after the dash of one
  for (; Peek() != ']' || is_empty; is_empty = false) {
    if (AtEnd()) return Wrong("ends inside a class");
    const char c = Peek();
    if (c == '[') return Unknown("a class within a class");
    if (LooksAt("&&")) return Unknown("an intersection of classes");
    if (c == '-' && may_begin_range && Peek(1) != ']') {
      ++pos_;
      out_ += '-';
      may_begin_range = false;
      in_range = true;
      continue;
    }
    bool is_set = false;
    if (c == '\\') {
      is_set = absl::string_view("sSwWhHdDpP").find(Peek(1)) !=
               absl::string_view::npos;
      if (is_set && in_range) return Unknown("a range that ends in a set");
      RETURN_IF_ERROR(Escape(/*in_class=*/true));
    } else {
      Literal();
    }
    may_begin_range = !is_set && !in_range;
    in_range = false;
  }
  ++pos_;
  out_ += ']';
  return absl::OkStatus();
}

absl::Status Translator::Quantifier() {
  const char c = Peek();
  if (atom_ == kNone) return Wrong("repeats nothing");
  if (c != '{') {
    ++pos_;
    out_ += c;
    // Reluctant and possessive mean the same to both.
    if (Peek() == '?' || Peek() == '+') {
      out_ += Peek();
      ++pos_;
    }
  } else {
    size_t at = 1;
    std::string low, high;
    while (absl::ascii_isdigit(Peek(at))) low += Peek(at++);
    const bool has_comma = Peek(at) == ',';
    if (has_comma) ++at;
    while (absl::ascii_isdigit(Peek(at))) high += Peek(at++);
    if (Peek(at) != '}' || (low.empty() && high.empty())) {
      return Unknown("a brace that is no repetition");
    }
    pos_ += at + 1;
    absl::StrAppend(&out_, "{", low.empty() ? "0" : low, has_comma ? "," : "",
                    high, "}");
    if (Peek() == '?') {
      if (!has_comma) return Unknown("{n}?");
      ++pos_;
      out_ += '?';
    }
  }
  // What follows repeats the repetition.
  if (Peek() == '+' || Peek() == '*' || Peek() == '?' || Peek() == '{') {
    out_.insert(atom_, "(?:");
    out_ += ')';
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace tern
