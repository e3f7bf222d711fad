#ifndef MODEL_TEXT_NORMALIZER_H_
#define MODEL_TEXT_NORMALIZER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/regex.h"
#include "model/text_range.h"

namespace tern {

// Changes text before it is cut into pieces: SentencePiece's way to mark
// spaces, and what tokenizer.json calls normalizers.
//
// Filled by the Add functions, then immutable and thread-safe.
class TextNormalizer {
 public:
  // Steps, at most.
  static constexpr size_t kStepsMax = 64;
  // `text_bytes_max`: the longest text that may come out of any step.
  explicit TextNormalizer(size_t text_bytes_max = size_t{1} << 29)
      : text_bytes_max_(text_bytes_max) {}

  // Puts `text` in front, unless there is nothing behind it.
  void AddPrepend(absl::string_view text);
  // Replaces what is `from` exactly. REQUIRES: not empty.
  void AddReplace(absl::string_view from, absl::string_view to);
  void AddReplaceMatches(std::unique_ptr<Regex> pattern, absl::string_view to);
  // Drops white space (the Unicode property) at the ends.
  void AddStrip(bool left, bool right);
  // Puts text in Unicode's normal form C.
  void AddNormalFormC();

  bool is_empty() const { return steps_.empty(); }
  size_t n_steps() const { return steps_.size(); }

  // The normalized text; it lies in `text` or in *room. Each of `ranges`, parts
  // of `text` before, is that part of the normalized text after: what is put in
  // belongs to a range if it touches it and replaces nothing beyond it. May be
  // null.
  // RESOURCE_EXHAUSTED when the text becomes too long or a pattern takes too
  // much work. REQUIRES: `text` is valid UTF-8.
  absl::StatusOr<absl::string_view> Apply(absl::string_view text,
                                          std::string* room,
                                          TextRanges* ranges = nullptr) const;

 private:
  struct Step {
    enum Kind {
      kPrepend,
      kReplace,
      kReplaceMatches,
      kStrip,
      kNormalFormC
    } kind;
    std::string from, to;
    std::unique_ptr<Regex> pattern;
    bool left = false, right = false;
  };
  class Output;
  static absl::Status ApplyStep(const Step& step, absl::string_view text,
                                Output* out);
  const size_t text_bytes_max_;
  std::vector<Step> steps_;
};

}  // namespace tern

#endif  // MODEL_TEXT_NORMALIZER_H_
