#include "model/jinja_text.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "util/logging.h"

namespace tern {
namespace jinja {
namespace {

// REQUIRES: valid UTF-8.
uint32_t CodePoint(absl::string_view character) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(character[i]));
  };
  switch (character.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 |
             (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xc0) == 0x80; }

}  // namespace

Origin Text::OriginAt(size_t offset) const {
  const auto it = std::upper_bound(
      runs_.begin(), runs_.end(), offset,
      [](size_t value, const Run& run) { return value < run.end; });
  CHECK(it != runs_.end());
  return it->origin;
}

void Text::Append(absl::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  bytes_.append(bytes.data(), bytes.size());
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
}

void Text::AppendRange(const Text& other, size_t begin, size_t end) {
  CHECK(begin <= end && end <= other.size());
  auto run = std::upper_bound(
      other.runs_.begin(), other.runs_.end(), begin,
      [](size_t value, const Run& r) { return value < r.end; });
  while (begin < end) {
    const size_t run_end = std::min(run->end, end);
    Append(other.bytes().substr(begin, run_end - begin), run->origin);
    begin = run_end;
    ++run;
  }
}

Text Text::Substr(size_t begin, size_t end) const {
  Text part;
  part.AppendRange(*this, begin, end);
  return part;
}

Text Text::WithBytes(std::string bytes) const {
  CHECK(bytes.size() == size());
  Text text;
  text.bytes_ = std::move(bytes);
  text.runs_ = runs_;
  return text;
}

size_t CharacterBytes(char first) {
  const uint8_t byte = static_cast<uint8_t>(first);
  if (byte < 0x80) return 1;
  if (byte < 0xe0) return 2;
  return byte < 0xf0 ? 3 : 4;
}

size_t CountCharacters(absl::string_view text) {
  return text.size() - std::count_if(text.begin(), text.end(), IsContinuation);
}

bool IsSpace(absl::string_view character) {
  const uint32_t c = CodePoint(character);
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 ||
         c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

void AppendCodePoint(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  }
}

ByteRange TrimmedRange(absl::string_view text,
                       absl::optional<absl::string_view> set, bool left,
                       bool right) {
  // The bytes of one character are found in valid UTF-8 as that character only.
  const auto goes = [&](absl::string_view character) {
    return set.has_value() ? set->find(character) != absl::string_view::npos
                           : IsSpace(character);
  };
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    const size_t size = CharacterBytes(text[begin]);
    if (!goes(text.substr(begin, size))) break;
    begin += size;
  }
  while (right && begin < end) {
    size_t start = end - 1;
    while (IsContinuation(text[start])) --start;
    if (!goes(text.substr(start, end - start))) break;
    end = start;
  }
  return {begin, end};
}

size_t FindText(absl::string_view text, absl::string_view needle, size_t from) {
  // string_view::find takes the product of the lengths; memmem does not.
  const void* found = memmem(text.data() + from, text.size() - from,
                             needle.data(), needle.size());
  if (found == nullptr) return absl::string_view::npos;
  return static_cast<const char*>(found) - text.data();
}

std::string UpperAscii(absl::string_view text) {
  return absl::AsciiStrToUpper(text);
}

std::string LowerAscii(absl::string_view text) {
  return absl::AsciiStrToLower(text);
}

std::string CapitalizeAscii(absl::string_view text) {
  std::string out = LowerAscii(text);
  if (!out.empty()) out[0] = absl::ascii_toupper(out[0]);
  return out;
}

std::string TitleAscii(absl::string_view text) {
  std::string out = LowerAscii(text);
  bool is_in_word = false;
  for (char& c : out) {
    if (!is_in_word) c = absl::ascii_toupper(c);
    is_in_word = absl::ascii_isalpha(c) || static_cast<uint8_t>(c) >= 0x80;
  }
  return out;
}

}  // namespace jinja
}  // namespace tern
