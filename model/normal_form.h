#ifndef MODEL_NORMAL_FORM_H_
#define MODEL_NORMAL_FORM_H_

#include <string>

#include "absl/strings/string_view.h"

namespace tern {

// `text` in Unicode's normal form C (UAX #15): letters and the accents behind
// them become one character where there is one, marks get their canonical
// order. Unicode 15, as utf8proc has it.
//
// Text of characters below U+0300 alone, as all of ASCII, is in that form: it
// is returned as it is. Otherwise the result lies in *room. It can be up to
// three times as long; the time grows as n log n, whatever the text.
// REQUIRES: `text` is valid UTF-8.
absl::string_view ToNormalFormC(absl::string_view text, std::string* room);

}  // namespace tern

#endif  // MODEL_NORMAL_FORM_H_
