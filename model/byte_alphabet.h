#ifndef MODEL_BYTE_ALPHABET_H_
#define MODEL_BYTE_ALPHABET_H_

#include <string>

#include "absl/strings/string_view.h"

namespace tern {

// Byte-level BPE spells bytes as characters that can be seen: a byte that is a
// printable character of Latin-1 as itself, the 68 others, in order, as U+0100
// and up. These two functions are each other's inverse.

// Appends the bytes that `spelling` stands for. False when it has a character
// outside the alphabet; *out then has the bytes before it.
bool AppendSpelledBytes(absl::string_view spelling, std::string* out);

// Appends the spelling of `bytes`, one character of one or two bytes for each.
void AppendSpelling(absl::string_view bytes, std::string* out);

// The byte that a byte token like "<0x1F>" stands for, -1 if `spelling` is
// none.
int ByteOfToken(absl::string_view spelling);

}  // namespace tern

#endif  // MODEL_BYTE_ALPHABET_H_
