#ifndef UTIL_UTF8_H_
#define UTIL_UTF8_H_

#include <cstddef>
#include <cstdint>
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

// The character at `*pos`, which moves behind it.
// REQUIRES: `text` is valid UTF-8 and *pos is the start of a character in it.
int32_t NextCharacter(absl::string_view text, size_t* pos);

// Appends a character as UTF-8. REQUIRES: it is one, and no surrogate.
void AppendCharacter(int32_t character, std::string* text);

// U+FFFD, the replacement character.
inline constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";

}  // namespace tern

#endif  // UTIL_UTF8_H_
