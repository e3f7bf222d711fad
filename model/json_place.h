#ifndef MODEL_JSON_PLACE_H_
#define MODEL_JSON_PLACE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tern {

// Parses a JSON document that may be hostile. INVALID_ARGUMENT, which begins
// with `name`, when it is none, when arrays and objects are nested deeper than
// 64, or when an object has one key twice.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text,
                                         absl::string_view name);

// A value in a document and the way to it, which errors name. The document
// outlives it.
class JsonPlace {
 public:
  // `name` is what the document is called, or the way to the value.
  JsonPlace(const nlohmann::json* value, std::string name)
      : value_(value), name_(std::move(name)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& name() const { return name_; }
  bool is_null() const { return value_->is_null(); }

  // A member of an object; of null when it is not there, or this is null.
  // INVALID_ARGUMENT when this is something else.
  absl::StatusOr<JsonPlace> Member(absl::string_view key) const;
  // The number of elements of an array; INVALID_ARGUMENT when this is none.
  absl::StatusOr<size_t> ArraySize() const;
  // REQUIRES: index < ArraySize().
  JsonPlace Element(size_t index) const;

  // The value as what it must be; INVALID_ARGUMENT otherwise.
  absl::StatusOr<absl::string_view> String() const;
  absl::StatusOr<int64_t> Int() const;
  absl::StatusOr<bool> Bool() const;

  // Of a member, with a value for one that is absent or null.
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool otherwise) const;
  absl::StatusOr<absl::string_view> StringOr(absl::string_view key,
                                             absl::string_view otherwise) const;
  // The `type` member that says what a part is. Required.
  absl::StatusOr<absl::string_view> Type() const;

  // An error about this place: "<name> <what>".
  absl::Status Wrong(absl::string_view what) const;
  // About something that is not known: UNIMPLEMENTED.
  absl::Status Unknown(absl::string_view what) const;

 private:
  const nlohmann::json* value_;
  std::string name_;
};

}  // namespace tern

#endif  // MODEL_JSON_PLACE_H_
