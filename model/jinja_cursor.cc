#include "model/jinja_cursor.h"

#include "absl/strings/str_cat.h"

namespace tern {
namespace jinja {
namespace {

std::string Spelling(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kOutputBegin:
      return "'{{'";
    case TokenKind::kOutputEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return absl::StrCat("'", token.text.substr(0, 40), "'");
  }
}

}  // namespace

bool TokenCursor::TakeName(absl::string_view name) {
  if (!IsName(name)) return false;
  Advance();
  return true;
}

bool TokenCursor::TakeOperator(absl::string_view text) {
  if (!IsOperator(text)) return false;
  Advance();
  return true;
}

absl::Status TokenCursor::ExpectName(absl::string_view name) {
  if (TakeName(name)) return absl::OkStatus();
  return FailExpecting(absl::StrCat("'", name, "'"));
}

absl::Status TokenCursor::ExpectOperator(absl::string_view text) {
  if (TakeOperator(text)) return absl::OkStatus();
  return FailExpecting(absl::StrCat("'", text, "'"));
}

absl::Status TokenCursor::Expect(TokenKind kind) {
  if (!Is(kind)) {
    Token wanted;
    wanted.kind = kind;
    return FailExpecting(Spelling(wanted));
  }
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenCursor::ExpectAnyName() {
  if (!Is(TokenKind::kName)) return FailExpecting("a name");
  std::string name = current().text;
  Advance();
  return name;
}

absl::Status TokenCursor::FailExpecting(absl::string_view what) const {
  return Fail(absl::StrCat("expected ", what, ", found ", Spelling(current())));
}

}  // namespace jinja
}  // namespace tern
