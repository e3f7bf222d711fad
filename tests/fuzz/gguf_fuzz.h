#ifndef TESTS_FUZZ_GGUF_FUZZ_H_
#define TESTS_FUZZ_GGUF_FUZZ_H_

#include <cstdint>

#include "absl/types/span.h"

namespace tern {

// How far a file came.
enum class GgufDepth { kRefused, kRead, kConfigured, kComplete };

// Takes a file through everything that Tern does with one: reader, every
// getter, configuration, weights, tokenizer. Any bytes may end in an error;
// none may crash, read outside of the bytes, or take memory out of proportion
// to them.
GgufDepth ExerciseGguf(absl::Span<const uint8_t> bytes);

}  // namespace tern

#endif  // TESTS_FUZZ_GGUF_FUZZ_H_
