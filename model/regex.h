#ifndef MODEL_REGEX_H_
#define MODEL_REGEX_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// A Unicode regular expression over UTF-8, by PCRE2.
//
// Immutable and thread-safe after construction.
class Regex {
 public:
  // `pattern` is in PCRE2's own syntax; `^` and `$` hold at every line, `.` is
  // any character but a newline. INVALID_ARGUMENT says what is wrong with it
  // and where.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(
      absl::string_view pattern);

  // As above, for a pattern in the syntax of Oniguruma, Ruby's, in which
  // tokenizer.json has its patterns; see docs/formats.md for what is refused.
  static absl::StatusOr<std::unique_ptr<Regex>> CompileOniguruma(
      absl::string_view pattern);

  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  struct Match {
    size_t begin;
    size_t end;
  };

  // Room that walks share, one at a time.
  class Room {
   public:
    Room();
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

   private:
    friend class Regex;
    struct Parts;
    const std::unique_ptr<Parts> parts_;
  };

  // Walks over one text from match to match. Not thread-safe; the regex, the
  // text and the room outlive it.
  class Walk {
   public:
    // REQUIRES: `text` is valid UTF-8.
    Walk(const Regex* regex, absl::string_view text, Room* room);

    // Finds the next match, which begins where the last one ended, or later. A
    // match may be empty, but not where the last one ended. False when there is
    // none; RESOURCE_EXHAUSTED when finding out takes more work or memory than
    // any text should.
    absl::StatusOr<bool> Next(Match* match);

   private:
    const Regex* const regex_;
    const absl::string_view text_;
    Room::Parts* const room_;
    size_t pos_ = 0;        // where to search
    size_t last_end_ = -1;  // of the last match; -1 for none
  };

 private:
  struct Code;
  explicit Regex(std::unique_ptr<const Code> code);
  const std::unique_ptr<const Code> code_;
};

}  // namespace tern

#endif  // MODEL_REGEX_H_
