#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "tests/fuzz/jinja_fuzz.h"

// What libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tern::ExerciseJinja(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
