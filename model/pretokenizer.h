#ifndef MODEL_PRETOKENIZER_H_
#define MODEL_PRETOKENIZER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/regex.h"

namespace tern {

// Cuts text into the pieces that merges stay within, by steps: each step takes
// the pieces of the one before it.
//
// Filled by the Add functions, then immutable and thread-safe.
class Pretokenizer {
 public:
  // What becomes of the matches of a pattern and of the text between them.
  enum class Behavior {
    kRemoved,             // matches are dropped
    kIsolated,            // each match is a piece
    kMergedWithPrevious,  // a match ends the piece before it
    kMergedWithNext,      // a match begins the piece behind it
    kContiguous,          // neighbouring matches are one piece
  };
  // When to put a space, or what stands for it, before a piece.
  enum class Prefix { kNever, kFirst, kAlways };

  // Steps that a text may have to go through, at most.
  static constexpr size_t kStepsMax = 64;

  // Splits by a pattern; with `invert`, by what is between its matches.
  void AddSplit(std::unique_ptr<Regex> pattern, Behavior behavior, bool invert);

  // Puts a space before each piece that does not begin with one.
  void AddSpacePrefix();

  // Replaces spaces by `replacement`, a character; puts it before each piece
  // that does not begin with it, or before the first of the text alone.
  void AddMetaspace(absl::string_view replacement, Prefix prefix);

  // The steps from here on see each byte of a piece as the character that
  // byte-level BPE spells it with. The pieces stay bytes. At most once.
  void AddByteLevel();

  bool is_byte_level() const { return first_spelled_step_ != kNone; }
  size_t n_steps() const { return steps_.size(); }

  // Calls `take` with each piece in order. Pieces are never empty, and valid
  // UTF-8 unless steps follow AddByteLevel(). They may lie in a buffer that
  // holds until `take` returns. `begins_text` tells whether `text` is the
  // beginning of what the caller has. RESOURCE_EXHAUSTED when the text takes
  // more work or memory than any text should.
  // REQUIRES: `text` is valid UTF-8.
  absl::Status Split(absl::string_view text, bool begins_text,
                     absl::FunctionRef<void(absl::string_view)> take) const;

 private:
  struct Step {
    enum Kind { kSplit, kSpacePrefix, kMetaspace } kind;
    std::unique_ptr<Regex> pattern;
    Behavior behavior;
    bool invert;
    std::string replacement;
    Prefix prefix;
  };
  class Run;

  static constexpr size_t kNone = -1;
  std::vector<Step> steps_;
  size_t first_spelled_step_ = kNone;
};

}  // namespace tern

#endif  // MODEL_PRETOKENIZER_H_
