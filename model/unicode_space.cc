#include "model/unicode_space.h"

#include "util/utf8.h"

namespace tern {

bool IsSpace(int32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t SpacesAtStart(absl::string_view text) {
  size_t end = 0;
  for (size_t pos = 0; pos < text.size(); end = pos) {
    if (!IsSpace(NextCharacter(text, &pos))) break;
  }
  return end;
}

size_t SpacesAtEnd(absl::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t pos = begin - 1;
    while ((static_cast<uint8_t>(text[pos]) & 0xc0) == 0x80) --pos;
    const size_t start = pos;
    if (!IsSpace(NextCharacter(text, &pos))) break;
    begin = start;
  }
  return text.size() - begin;
}

}  // namespace tern
