#ifndef MODEL_NORMAL_FORM_H_
#define MODEL_NORMAL_FORM_H_

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tern {

// Where `text` is not in Unicode's normal form C (UAX #15), and what stands
// there in that form: letters and the accents behind them become one character
// where there is one, marks get their canonical order. Unicode 15, as utf8proc
// has it.
//
// Calls change(begin, end, to) for parts of the text, ascending and apart: the
// characters [begin, end) become `to`, everything else stays. Ends with the
// first status that is not OK. Text of characters below U+0300 alone, as all of
// ASCII, is in that form. The result can be up to three times as long; the time
// grows as n log n, whatever the text. REQUIRES: `text` is valid UTF-8.
absl::Status VisitNormalFormC(
    absl::string_view text,
    absl::FunctionRef<absl::Status(size_t begin, size_t end,
                                   absl::string_view to)>
        change);

}  // namespace tern

#endif  // MODEL_NORMAL_FORM_H_
