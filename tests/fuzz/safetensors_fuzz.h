#ifndef TESTS_FUZZ_SAFETENSORS_FUZZ_H_
#define TESTS_FUZZ_SAFETENSORS_FUZZ_H_

#include <cstdint>

#include "absl/types/span.h"

namespace tern {

// How far a model came.
enum class SafetensorsDepth { kRefused, kRead, kConfigured, kComplete };

// Takes a config.json and a safetensors file through everything that Tern does
// with them, the tokenizer aside. Input: u32 length of the config (little
// endian; what is too long counts as all there is), the config, the file. Any
// bytes may end in an error; none may crash, read outside of the bytes, or take
// memory out of proportion to them.
SafetensorsDepth ExerciseSafetensors(absl::Span<const uint8_t> bytes);

}  // namespace tern

#endif  // TESTS_FUZZ_SAFETENSORS_FUZZ_H_
