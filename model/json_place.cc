#include "model/json_place.h"

#include <limits>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "util/status_macros.h"

namespace tern {
namespace {

using nlohmann::json;

constexpr size_t kDepthMax = 64;
// As much of a text from a file as an error shows.
constexpr size_t kShownMax = 64;

// Looks for what the parser itself lets pass, before memory is taken for it.
class Checker : public nlohmann::json_sax<json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return Open(); }
  bool start_array(size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& key) override {
    if (keys_.back().insert(key).second) return true;
    error_ = absl::StrCat("has the key '", key.substr(0, kShownMax),
                          "' twice in one object");
    return false;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("is not JSON at byte offset ", position);
    return false;
  }

 private:
  bool Open() {
    if (keys_.size() == kDepthMax) {
      error_ = absl::StrCat("is nested deeper than ", kDepthMax, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // by level
  std::string error_;
};

const json& Null() {
  static const json* const kNull = new json;
  return *kNull;
}

}  // namespace

absl::StatusOr<json> ParseJson(absl::string_view text, absl::string_view name) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  Checker checker;
  if (!json::sax_parse(begin, end, &checker)) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, " ", checker.error().empty() ? "is not JSON" : checker.error()));
  }
  json document = json::parse(begin, end, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is not JSON"));
  }
  return document;
}

absl::Status JsonPlace::Wrong(absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, " ", what));
}

absl::Status JsonPlace::Unknown(absl::string_view what) const {
  return absl::UnimplementedError(absl::StrCat(name_, " ", what));
}

absl::StatusOr<JsonPlace> JsonPlace::Member(absl::string_view key) const {
  std::string name = absl::StrCat(name_, ".", key);
  if (value_->is_null()) return JsonPlace(&Null(), std::move(name));
  if (!value_->is_object()) return Wrong("is not an object");
  const auto it = value_->find(std::string(key));
  return JsonPlace(it == value_->end() ? &Null() : &*it, std::move(name));
}

absl::StatusOr<size_t> JsonPlace::ArraySize() const {
  if (!value_->is_array()) return Wrong("is not an array");
  return value_->size();
}

JsonPlace JsonPlace::Element(size_t index) const {
  return JsonPlace(&(*value_)[index], absl::StrCat(name_, "[", index, "]"));
}

absl::StatusOr<absl::string_view> JsonPlace::String() const {
  const std::string* const text = value_->get_ptr<const std::string*>();
  if (text == nullptr) return Wrong("is not a string");
  return absl::string_view(*text);
}

absl::StatusOr<int64_t> JsonPlace::Int() const {
  // A number of either sign is kept in a type of its own.
  const auto* const natural = value_->get_ptr<const json::number_unsigned_t*>();
  if (natural != nullptr &&
      *natural <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return static_cast<int64_t>(*natural);
  }
  if (natural == nullptr && value_->is_number_integer()) {
    return *value_->get_ptr<const json::number_integer_t*>();
  }
  return Wrong("is not an integer of 64 bits");
}

absl::StatusOr<bool> JsonPlace::Bool() const {
  const bool* const truth = value_->get_ptr<const bool*>();
  if (truth == nullptr) return Wrong("is not true or false");
  return *truth;
}

absl::StatusOr<bool> JsonPlace::BoolOr(absl::string_view key,
                                       bool otherwise) const {
  ASSIGN_OR_RETURN(const JsonPlace member, Member(key));
  if (member.is_null()) return otherwise;
  return member.Bool();
}

absl::StatusOr<absl::string_view> JsonPlace::StringOr(
    absl::string_view key, absl::string_view otherwise) const {
  ASSIGN_OR_RETURN(const JsonPlace member, Member(key));
  if (member.is_null()) return otherwise;
  return member.String();
}

absl::StatusOr<absl::string_view> JsonPlace::Type() const {
  ASSIGN_OR_RETURN(const JsonPlace type, Member("type"));
  return type.String();
}

}  // namespace tern
