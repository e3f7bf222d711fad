#include "model/normal_form.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/utf8.h"
#include "utf8proc.h"
#include "util/logging.h"

namespace tern {
namespace {

using Characters = std::vector<int32_t>;

// Canonical decompositions have at most four characters.
constexpr int kDecompositionMax = 4;

// The first byte of U+0300, below which no character decomposes otherwise than
// into what composes again, or joins the one before it. Bytes that go on with a
// character are lower.
constexpr uint8_t kFirstCombiningLead = 0xcc;

bool MayCombine(char lead) {
  return static_cast<uint8_t>(lead) >= kFirstCombiningLead;
}

int ClassOf(int32_t character) {
  return utf8proc_get_property(character)->combining_class;
}

// Puts each run of marks in the order of their classes. utf8proc would do it,
// in time that grows with the square of the run.
void OrderMarks(Characters* characters) {
  const auto is_mark = [](int32_t c) { return ClassOf(c) != 0; };
  auto begin = characters->begin();
  while (begin != characters->end()) {
    begin = std::find_if(begin, characters->end(), is_mark);
    const auto end = std::find_if_not(begin, characters->end(), is_mark);
    std::stable_sort(begin, end, [](int32_t a, int32_t b) {
      return ClassOf(a) < ClassOf(b);
    });
    begin = end;
  }
}

// Appends the normal form of `text`, whose first character joins none before.
void AppendComposed(absl::string_view text, Characters* characters,
                    std::string* out) {
  characters->clear();
  for (size_t pos = 0; pos < text.size();) {
    utf8proc_int32_t parts[kDecompositionMax];
    const auto n = utf8proc_decompose_char(
        NextCharacter(text, &pos), parts, kDecompositionMax,
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE),
        nullptr);
    CHECK(n > 0 && n <= kDecompositionMax) << "decomposition of " << n;
    characters->insert(characters->end(), parts, parts + n);
  }
  OrderMarks(characters);
  const auto n = utf8proc_normalize_utf32(
      characters->data(), static_cast<utf8proc_ssize_t>(characters->size()),
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  CHECK(n >= 0) << utf8proc_errmsg(n);
  for (utf8proc_ssize_t i = 0; i < n; ++i) {
    utf8proc_uint8_t bytes[4];
    const auto size = utf8proc_encode_char((*characters)[i], bytes);
    out->append(reinterpret_cast<const char*>(bytes), size);
  }
}

}  // namespace

absl::string_view ToNormalFormC(absl::string_view text, std::string* room) {
  const auto find_combining = [&](size_t from) -> size_t {
    return std::find_if(text.begin() + from, text.end(), MayCombine) -
           text.begin();
  };
  size_t next = find_combining(0);
  if (next == text.size()) return text;
  room->clear();
  room->reserve(text.size());
  Characters characters;
  size_t done = 0;
  while (next < text.size()) {
    // With the character before it, which it may join, and up to the next one
    // that joins nothing.
    size_t begin = next;
    while (begin > done && (begin == next || (text[begin] & 0xc0) == 0x80)) {
      --begin;
    }
    size_t end = next;
    while (end < text.size() && MayCombine(text[end])) {
      NextCharacter(text, &end);
    }
    room->append(text.data() + done, begin - done);
    AppendComposed(text.substr(begin, end - begin), &characters, room);
    done = end;
    next = find_combining(end);
  }
  room->append(text.data() + done, text.size() - done);
  return *room;
}

}  // namespace tern
