#include "model/byte_alphabet.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace tern {
namespace {

constexpr int kAlphabetEnd = 256 + 68;

struct Alphabet {
  std::array<int16_t, kAlphabetEnd> bytes;  // by character, -1 for none
  std::array<int16_t, 256> characters;      // by byte

  Alphabet() {
    bytes.fill(-1);
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 33 && byte <= 126) ||
                                (byte >= 161 && byte <= 172) || byte >= 174;
      const int character = is_printable ? byte : next++;
      bytes[character] = static_cast<int16_t>(byte);
      characters[byte] = static_cast<int16_t>(character);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet* const kAlphabet = new Alphabet;
  return *kAlphabet;
}

}  // namespace

bool AppendSpelledBytes(absl::string_view spelling, std::string* out) {
  const Alphabet& alphabet = TheAlphabet();
  for (size_t i = 0; i < spelling.size(); ++i) {
    int code = static_cast<uint8_t>(spelling[i]);
    if (code >= 0x80) {
      // Two bytes of UTF-8 reach U+07FF; the alphabet ends before that.
      if (code < 0xc2 || code > 0xdf || i + 1 == spelling.size()) return false;
      const int second = static_cast<uint8_t>(spelling[++i]);
      if ((second & 0xc0) != 0x80) return false;
      code = (code & 0x1f) << 6 | (second & 0x3f);
    }
    if (code >= kAlphabetEnd || alphabet.bytes[code] < 0) return false;
    out->push_back(static_cast<char>(alphabet.bytes[code]));
  }
  return true;
}

void AppendSpelling(absl::string_view bytes, std::string* out) {
  const Alphabet& alphabet = TheAlphabet();
  for (char c : bytes) {
    const int code = alphabet.characters[static_cast<uint8_t>(c)];
    if (code < 0x80) {
      out->push_back(static_cast<char>(code));
    } else {
      out->push_back(static_cast<char>(0xc0 | code >> 6));
      out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
    }
  }
}

int ByteOfToken(absl::string_view spelling) {
  if (spelling.size() != 6 || spelling.substr(0, 3) != "<0x" ||
      spelling[5] != '>') {
    return -1;
  }
  int byte = 0;
  for (char c : spelling.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    byte = byte << 4 | digit;
  }
  return byte;
}

}  // namespace tern
