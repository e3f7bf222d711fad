#ifndef MODEL_JINJA_JSON_H_
#define MODEL_JINJA_JSON_H_

#include "absl/status/statusor.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// JSON with every character as itself; `indent` < 0 puts all on one line.
absl::StatusOr<Text> ToJson(const Value& value, int indent, Budget* budget);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_JSON_H_
