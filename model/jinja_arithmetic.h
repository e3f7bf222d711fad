#ifndef MODEL_JINJA_ARITHMETIC_H_
#define MODEL_JINJA_ARITHMETIC_H_

#include "absl/status/statusor.h"
#include "model/jinja_ast.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// a op b for the operators up to kConcat, as Python does it; integers have 64
// bits, and what does not fit is refused.
absl::StatusOr<Value> Calculate(Operator op, const Value& a, const Value& b,
                                Budget* budget);

// -a.
absl::StatusOr<Value> Negate(const Value& a);

// a op b for the operators from kEqual on.
absl::StatusOr<bool> Compare(Operator op, const Value& a, const Value& b,
                             Budget* budget);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_ARITHMETIC_H_
