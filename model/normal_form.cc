#include "model/normal_form.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "utf8proc.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "util/utf8.h"

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

bool IsInsideCharacter(absl::string_view text, size_t pos) {
  return pos < text.size() && (text[pos] & 0xc0) == 0x80;
}

// Whole characters that both begin with, in bytes.
size_t CommonPrefix(absl::string_view a, absl::string_view b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  while (n > 0 && (IsInsideCharacter(a, n) || IsInsideCharacter(b, n))) --n;
  return n;
}

size_t CommonSuffix(absl::string_view a, absl::string_view b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() &&
         a[a.size() - 1 - n] == b[b.size() - 1 - n]) {
    ++n;
  }
  while (n > 0 && (IsInsideCharacter(a, a.size() - n) ||
                   IsInsideCharacter(b, b.size() - n))) {
    --n;
  }
  return n;
}

}  // namespace

absl::Status VisitNormalFormC(
    absl::string_view text,
    absl::FunctionRef<absl::Status(size_t begin, size_t end,
                                   absl::string_view to)>
        change) {
  const auto find_combining = [&](size_t from) -> size_t {
    return std::find_if(text.begin() + from, text.end(), MayCombine) -
           text.begin();
  };
  Characters characters;
  std::string composed;
  size_t done = 0;
  size_t next = find_combining(0);
  while (next < text.size()) {
    // With the character before it, which it may join, and up to the next one
    // that joins nothing.
    size_t begin = next;
    while (begin > done && (begin == next || IsInsideCharacter(text, begin))) {
      --begin;
    }
    size_t end = next;
    while (end < text.size() && MayCombine(text[end])) {
      NextCharacter(text, &end);
    }
    composed.clear();
    absl::string_view from = text.substr(begin, end - begin);
    AppendComposed(from, &characters, &composed);
    absl::string_view to = composed;
    // Most of it, and mostly all, stays.
    const size_t n_before = CommonPrefix(from, to);
    from.remove_prefix(n_before);
    to.remove_prefix(n_before);
    const size_t n_behind = CommonSuffix(from, to);
    from.remove_suffix(n_behind);
    to.remove_suffix(n_behind);
    if (!from.empty() || !to.empty()) {
      RETURN_IF_ERROR(change(begin + n_before, end - n_behind, to));
    }
    done = end;
    next = find_combining(end);
  }
  return absl::OkStatus();
}

}  // namespace tern
