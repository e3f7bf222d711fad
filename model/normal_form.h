#ifndef MODEL_NORMAL_FORM_H_
#define MODEL_NORMAL_FORM_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace tern {

// Offset of the first character for which `text` may not be in Unicode's normal
// form C, npos when the text surely is in it: Unicode's quick check (UAX #15),
// with Maybe taken for No. Most text passes as people type it; what does not
// are accents as characters of their own, and characters such as vowel signs
// of Bengali and Tamil that can be part of another.
// REQUIRES: `text` is valid UTF-8.
size_t FindMaybeNotComposed(absl::string_view text);

}  // namespace tern

#endif  // MODEL_NORMAL_FORM_H_
