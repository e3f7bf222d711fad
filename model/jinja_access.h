#ifndef MODEL_JINJA_ACCESS_H_
#define MODEL_JINJA_ACCESS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// What a loop over the value goes through: items, characters, keys.
absl::StatusOr<Value> ToList(const Value& value, Budget* budget);
// value[key]; undefined when there is no such item.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key,
                              Budget* budget);
// value.name; undefined when there is no such attribute.
absl::StatusOr<Value> GetAttribute(const Value& value, absl::string_view name,
                                   Budget* budget);
// value[begin:end:step] of a list or a string; each bound an integer or none.
absl::StatusOr<Value> GetSlice(const Value& value, const Value& begin,
                               const Value& end, const Value& step,
                               Budget* budget);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_ACCESS_H_
