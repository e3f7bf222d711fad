#ifndef TOOLS_SYNTHETIC_VOCABULARY_H_
#define TOOLS_SYNTHETIC_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tern {

// A byte-level BPE vocabulary that no text was needed for, as tokenizer.ggml.*
// wants it. In this order: the 256 bytes; tokens of common merges of English;
// made-up words of three syllables, each behind a space, that fill it up, so
// that random models speak in words; <|eot_id|>, <|begin_of_text|> and
// <|end_of_text|>. Any text becomes tokens and the same text again.
struct SyntheticVocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  int32_t eot_id;
  int32_t bos_id;
  int32_t eos_id;
};

inline constexpr int kSyntheticVocabularyMin = 259;  // bytes, control tokens

// INVALID_ARGUMENT unless `size` is at least kSyntheticVocabularyMin and the
// syllables suffice.
absl::StatusOr<SyntheticVocabulary> MakeSyntheticVocabulary(int size);

}  // namespace tern

#endif  // TOOLS_SYNTHETIC_VOCABULARY_H_
