#ifndef MODEL_TOKENIZER_JSON_DECODER_H_
#define MODEL_TOKENIZER_JSON_DECODER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/json_place.h"
#include "model/text_normalizer.h"

namespace tern {

// The `decoder` of a tokenizer.json: what each token stands for.
class JsonDecoder {
 public:
  // INVALID_ARGUMENT or UNIMPLEMENTED names the place.
  absl::Status Read(const JsonPlace& place);

  // Appends the bytes that a token of this spelling stands for.
  absl::Status AppendBytes(absl::string_view spelling,
                           std::string* bytes) const;

  // What is dropped at the start of a text, how many times at most, and whether
  // from its first token alone.
  const std::string& droppable() const { return droppable_; }
  int n_droppable() const { return n_droppable_; }
  bool drops_from_first_token_only() const {
    return drops_from_first_token_only_;
  }

 private:
  // Longest that a token may become.
  static constexpr size_t kTokenBytesMax = 1 << 16;
  static constexpr size_t kStepsMax = 64;

  struct Step {
    enum Kind { kReplace, kStrip, kBytes, kByteLevel } kind;
    TextNormalizer replace{kTokenBytesMax};
    std::string stripped;  // one character
    int64_t n_start = 0, n_end = 0;
  };

  absl::Status ReadStep(const JsonPlace& place);
  absl::Status ReadStrip(const JsonPlace& place);

  std::vector<Step> steps_;
  bool is_fused_ = false;  // the steps from here on see the whole text
  std::string droppable_;
  int n_droppable_ = 0;
  bool drops_from_first_token_only_ = false;
};

}  // namespace tern

#endif  // MODEL_TOKENIZER_JSON_DECODER_H_
