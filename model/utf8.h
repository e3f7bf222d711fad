#ifndef MODEL_UTF8_H_
#define MODEL_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace tern {

// Length in bytes of the longest prefix of `bytes` that does not end inside a
// UTF-8 character, with every invalid sequence in that prefix replaced by
// U+FFFD, appended to *text. One U+FFFD stands for a start of a character that
// goes on wrongly, or for one byte that starts nothing (the Unicode standard's
// "maximal subparts").
size_t AppendValidUtf8(absl::string_view bytes, std::string* text);

// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t FindInvalidUtf8(absl::string_view text);

// U+FFFD, the replacement character.
inline constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";

}  // namespace tern

#endif  // MODEL_UTF8_H_
