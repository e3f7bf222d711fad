#ifndef MODEL_JINJA_LEXER_H_
#define MODEL_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace jinja {

enum class TokenKind {
  kText,         // text of the template, as it is to be printed
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 0;      // from 1
  std::string text;  // of text, names and operators; what a string stands for
  int64_t integer = 0;
  double number = 0;
};

// Cuts a template into tokens, kEnd last. White space around tags is already
// dealt with as Hugging Face sets Jinja up (trim_blocks and lstrip_blocks on,
// one newline at the very end dropped), comments and `raw` too. `source` must
// be UTF-8.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_LEXER_H_
