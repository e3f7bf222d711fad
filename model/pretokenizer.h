#ifndef MODEL_PRETOKENIZER_H_
#define MODEL_PRETOKENIZER_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tern {

// Cuts text into the pieces that byte-pair merges stay within: the `llama-bpe`
// split of Llama 3 (docs/formats.md).
//
// Immutable and thread-safe after construction.
class Pretokenizer {
 public:
  Pretokenizer();
  ~Pretokenizer();

  // Calls `take` with each piece in order. Pieces are never empty, and together
  // they are the text. RESOURCE_EXHAUSTED when the text takes more work or
  // memory than any text should.
  // REQUIRES: `text` is valid UTF-8.
  absl::Status Split(absl::string_view text,
                     absl::FunctionRef<void(absl::string_view)> take) const;

 private:
  struct Pattern;
  const std::unique_ptr<const Pattern> pattern_;
};

}  // namespace tern

#endif  // MODEL_PRETOKENIZER_H_
