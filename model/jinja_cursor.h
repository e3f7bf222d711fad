#ifndef MODEL_JINJA_CURSOR_H_
#define MODEL_JINJA_CURSOR_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_error.h"
#include "model/jinja_lexer.h"

namespace tern {
namespace jinja {

// Walks over the tokens of a template; what both parsers need.
class TokenCursor {
 public:
  // `tokens` end with kEnd.
  explicit TokenCursor(std::vector<Token> tokens)
      : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const {
    return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_];
  }
  // Stays at kEnd.
  void Advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool Is(TokenKind kind) const { return current().kind == kind; }
  bool IsName(absl::string_view name) const {
    return Is(TokenKind::kName) && current().text == name;
  }
  bool IsOperator(absl::string_view text) const {
    return Is(TokenKind::kOperator) && current().text == text;
  }
  // Takes the token if it is the one.
  bool TakeName(absl::string_view name);
  bool TakeOperator(absl::string_view text);
  absl::Status ExpectName(absl::string_view name);
  absl::Status ExpectOperator(absl::string_view text);
  absl::Status Expect(TokenKind kind);
  absl::StatusOr<std::string> ExpectAnyName();

  absl::Status Fail(absl::string_view message) const {
    return ErrorAt(current().line, message);
  }
  // "expected ..., found <the current token>".
  absl::Status FailExpecting(absl::string_view what) const;

 private:
  const std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_CURSOR_H_
