#ifndef MODEL_JINJA_TEXT_H_
#define MODEL_JINJA_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace tern {
namespace jinja {

// Who wrote a byte of a text.
enum class Origin : uint8_t {
  kTemplate,  // the template, or a caller that vouches for it
  kUser,      // a conversation
};

// UTF-8 text that knows for each byte who wrote it. Cutting and joining keep
// that knowledge; whatever a template does to a message's content, its bytes
// stay marked. Not thread-safe; const use from several threads is fine.
class Text {
 public:
  // Bytes up to `end`, from the end of the run before.
  struct Run {
    size_t end;
    Origin origin;
    bool operator==(const Run& other) const {
      return end == other.end && origin == other.origin;
    }
  };

  Text() = default;
  explicit Text(absl::string_view bytes, Origin origin = Origin::kTemplate) {
    Append(bytes, origin);
  }

  absl::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // In order; neighbours differ; none is empty.
  const std::vector<Run>& runs() const { return runs_; }
  // REQUIRES: offset < size().
  Origin OriginAt(size_t offset) const;

  void Append(absl::string_view bytes, Origin origin);
  void Append(const Text& other) { AppendRange(other, 0, other.size()); }
  // REQUIRES: begin <= end <= other.size(); `other` is not *this.
  void AppendRange(const Text& other, size_t begin, size_t end);
  // The bytes [begin, end). REQUIRES: begin <= end <= size().
  Text Substr(size_t begin, size_t end) const;

  // The same marks on other bytes. REQUIRES: bytes.size() == size().
  Text WithBytes(std::string bytes) const;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

// Length in bytes of the character that starts with `first` in valid UTF-8.
size_t CharacterBytes(char first);
// Number of characters. REQUIRES: valid UTF-8, as below.
size_t CountCharacters(absl::string_view text);
// Whether a character (its bytes) is white space as Python's str.strip() and
// str.split() see it.
bool IsSpace(absl::string_view character);
// Appends the UTF-8 of a code point. REQUIRES: a scalar value.
void AppendCodePoint(uint32_t code_point, std::string* out);

struct ByteRange {
  size_t begin;
  size_t end;
};

// What is left when characters of `set` (white space if not given) are taken
// off the ends asked for.
ByteRange TrimmedRange(absl::string_view text,
                       absl::optional<absl::string_view> set, bool left,
                       bool right);

// Offset of `needle` at or behind `from`, or npos. Linear in both lengths.
// REQUIRES: from <= text.size().
size_t FindText(absl::string_view text, absl::string_view needle, size_t from);

// ASCII letters only; other characters stay as they are.
std::string UpperAscii(absl::string_view text);
std::string LowerAscii(absl::string_view text);
// First character upper, others lower.
std::string CapitalizeAscii(absl::string_view text);
// First letter of each run of letters upper, others lower. Characters beyond
// ASCII count as letters.
std::string TitleAscii(absl::string_view text);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_TEXT_H_
