#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "tests/fuzz/safetensors_fuzz.h"

// What libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tern::ExerciseSafetensors(absl::MakeConstSpan(data, size));
  return 0;
}
