#ifndef TESTS_FUZZ_TOKENIZER_JSON_FUZZ_H_
#define TESTS_FUZZ_TOKENIZER_JSON_FUZZ_H_

#include <cstdint>

#include "absl/types/span.h"

namespace tern {

// Reads bytes as a tokenizer.json and, behind a first zero byte, a
// tokenizer_config.json; if they are one, encodes and decodes texts with it.
// Crashes where a contract is broken. True when the files were accepted.
bool ExerciseTokenizerJson(absl::Span<const uint8_t> bytes);

}  // namespace tern

#endif  // TESTS_FUZZ_TOKENIZER_JSON_FUZZ_H_
