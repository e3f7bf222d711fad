#ifndef MODEL_UNICODE_SPACE_H_
#define MODEL_UNICODE_SPACE_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace tern {

// What SentencePiece writes for a space: U+2581.
inline constexpr char kSpaceMark[] = "\xe2\x96\x81";

// Whether a character has the Unicode property White_Space.
bool IsSpace(int32_t character);

// Bytes of such characters at the start, and at the end.
// REQUIRES: `text` is valid UTF-8.
size_t SpacesAtStart(absl::string_view text);
size_t SpacesAtEnd(absl::string_view text);

}  // namespace tern

#endif  // MODEL_UNICODE_SPACE_H_
