#ifndef MODEL_ONIGURUMA_H_
#define MODEL_ONIGURUMA_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// Rewrites a regular expression from the syntax of Oniguruma (Ruby's, Unicode)
// to that of PCRE2 (with UTF, UCP and MULTILINE, newline LF), so that it
// matches the same text: \s, \w, \h, \v and \b name other sets of characters
// there, (?m) another mode, and {2,3}+ is no possessive.
//
// UNIMPLEMENTED for what has no counterpart or is not known to have the same
// meaning, such as nested character classes and back references;
// INVALID_ARGUMENT for what is no pattern. What comes out may still be wrong in
// ways that PCRE2 finds.
absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern);

// The inside of a PCRE2 character class: the characters with the Unicode
// property White_Space, and all others. PCRE2's own \s has U+180E too, which
// has not been a space since Unicode 6.3.
#define TERN_REGEX_SPACES                                                  \
  R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f})" \
  R"(\x{205f}\x{3000})"
#define TERN_REGEX_NO_SPACES                                       \
  R"(\x{0}-\x{8}\x{e}-\x{1f}!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f})" \
  R"(\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"         \
  R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})"

// Likewise what is part of a word: alphabetic characters, marks, decimal
// digits and connectors.
#define TERN_REGEX_WORD                                                 \
  R"(\p{L}\p{M}\p{Nl}\p{Nd}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149})" \
  R"(\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})"

}  // namespace tern

#endif  // MODEL_ONIGURUMA_H_
