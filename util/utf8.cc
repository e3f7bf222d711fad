#include "util/utf8.h"

#include <cstring>

namespace tern {
namespace {

// What the bytes at some place begin with.
struct Sequence {
  enum Kind { kValid, kInvalid, kIncomplete } kind;
  size_t size;  // bytes of the character, or of the invalid sequence
};

// REQUIRES: !bytes.empty(). The ranges of second bytes are those of table 3-7
// of the Unicode standard: they exclude overlong forms, surrogates and what
// lies beyond U+10FFFF.
Sequence Classify(absl::string_view bytes) {
  const uint8_t lead = bytes[0];
  if (lead < 0x80) return {Sequence::kValid, 1};
  size_t size;
  uint8_t second_min = 0x80, second_max = 0xbf;
  if (lead >= 0xc2 && lead <= 0xdf) {
    size = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    size = 3;
    if (lead == 0xe0) second_min = 0xa0;
    if (lead == 0xed) second_max = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    size = 4;
    if (lead == 0xf0) second_min = 0x90;
    if (lead == 0xf4) second_max = 0x8f;
  } else {
    return {Sequence::kInvalid, 1};
  }
  for (size_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Sequence::kIncomplete, i};
    const uint8_t byte = bytes[i];
    const uint8_t min = i == 1 ? second_min : 0x80;
    const uint8_t max = i == 1 ? second_max : 0xbf;
    if (byte < min || byte > max) return {Sequence::kInvalid, i};
  }
  return {Sequence::kValid, size};
}

// Bytes of ASCII at the front, found eight at a time.
size_t AsciiPrefix(absl::string_view bytes) {
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, sizeof(word));
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < bytes.size() && static_cast<uint8_t>(bytes[i]) < 0x80) ++i;
  return i;
}

}  // namespace

size_t AppendValidUtf8(absl::string_view bytes, std::string* text) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const size_t ascii = AsciiPrefix(bytes.substr(pos));
    text->append(bytes.data() + pos, ascii);
    pos += ascii;
    if (pos == bytes.size()) break;
    const Sequence sequence = Classify(bytes.substr(pos));
    if (sequence.kind == Sequence::kIncomplete) break;
    if (sequence.kind == Sequence::kValid) {
      text->append(bytes.data() + pos, sequence.size);
    } else {
      text->append(kReplacementCharacter);
    }
    pos += sequence.size;
  }
  return pos;
}

size_t FindInvalidUtf8(absl::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    pos += AsciiPrefix(text.substr(pos));
    if (pos == text.size()) break;
    const Sequence sequence = Classify(text.substr(pos));
    if (sequence.kind != Sequence::kValid) return pos;
    pos += sequence.size;
  }
  return absl::string_view::npos;
}

int32_t NextCharacter(absl::string_view text, size_t* pos) {
  const auto next = [&] { return static_cast<uint8_t>(text[(*pos)++]); };
  const int32_t lead = next();
  if (lead < 0x80) return lead;
  if (lead < 0xe0) return (lead & 0x1f) << 6 | (next() & 0x3f);
  int32_t character = lead & (lead < 0xf0 ? 0x0f : 0x07);
  for (int n = lead < 0xf0 ? 2 : 3; n > 0; --n) {
    character = character << 6 | (next() & 0x3f);
  }
  return character;
}

void AppendCharacter(int32_t character, std::string* text) {
  if (character < 0x80) {
    text->push_back(static_cast<char>(character));
    return;
  }
  const int n = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  const int lead = n == 1 ? 0xc0 : n == 2 ? 0xe0 : 0xf0;
  text->push_back(static_cast<char>(lead | character >> (6 * n)));
  for (int shift = 6 * (n - 1); shift >= 0; shift -= 6) {
    text->push_back(static_cast<char>(0x80 | (character >> shift & 0x3f)));
  }
}

}  // namespace tern
