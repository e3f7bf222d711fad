#ifndef TESTS_FUZZ_JINJA_FUZZ_H_
#define TESTS_FUZZ_JINJA_FUZZ_H_

#include "absl/strings/string_view.h"

namespace tern {

// How far a template came.
enum class JinjaDepth { kRefused, kParsed, kRendered };

// Parses and renders a template, with small limits so that a fuzzer does not
// wait. Any bytes may end in an error; none may crash, take long, or make a
// text whose marks or UTF-8 are broken. Rendering twice gives the same.
JinjaDepth ExerciseJinja(absl::string_view source);

}  // namespace tern

#endif  // TESTS_FUZZ_JINJA_FUZZ_H_
