#ifndef MODEL_JINJA_PARSER_H_
#define MODEL_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_ast.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// Reads a whole template. INVALID_ARGUMENT, with the line, for what is no
// template, what Tern does not offer, and what exceeds source_bytes_max or
// nesting_max. Unknown filters, tests, functions and methods are found when
// they are used, not here.
absl::StatusOr<Block> ParseTemplate(absl::string_view source,
                                    const Limits& limits);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_PARSER_H_
