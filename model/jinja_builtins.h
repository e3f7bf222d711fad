#ifndef MODEL_JINJA_BUILTINS_H_
#define MODEL_JINJA_BUILTINS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// What stands between the parentheses of a call, evaluated.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The argument for each of `names`, in their order, null where it is left out.
// Refuses too many, unknown and repeated ones. The pointers are into
// `arguments`.
absl::StatusOr<std::vector<const Value*>> BindArguments(
    const Arguments& arguments, absl::Span<const absl::string_view> names);

// `subject | name(arguments)`.
absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& subject,
                                  const Arguments& arguments, Budget* budget);

// `subject is name(arguments)`.
absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& subject,
                               const Arguments& arguments, Budget* budget);

// `subject.name(arguments)`. Nothing changes its subject.
absl::StatusOr<Value> CallMethod(absl::string_view name, const Value& subject,
                                 const Arguments& arguments, Budget* budget);

// Whether CallMethod() knows `subject.name`.
bool HasMethod(absl::string_view name, const Value& subject);

// Whether name(arguments) is a function that every template knows.
bool IsFunction(absl::string_view name);
absl::StatusOr<Value> CallFunction(absl::string_view name,
                                   const Arguments& arguments, Budget* budget);

// What filters and methods have in common. `set` and `separator` may be null:
// white space.
absl::StatusOr<Value> Trimmed(const Text& text, const Value* set, bool left,
                              bool right, Budget* budget);
absl::StatusOr<Value> Replaced(const Text& text, const Value* from,
                               const Value* to, const Value* count,
                               Budget* budget);
absl::StatusOr<Value> Joined(const Value& items, const Text& separator,
                             Budget* budget);
absl::StatusOr<Value> ItemsOf(const Value& dict, Budget* budget);
// `change` is one of those of jinja_text.h.
absl::StatusOr<Value> Recased(const Text& text,
                              std::string (*change)(absl::string_view),
                              Budget* budget);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_BUILTINS_H_
