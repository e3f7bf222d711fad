#include "model/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/jinja_error.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;

// Dicts are searched from front to back.
constexpr size_t kDictItemsMax = 256;

// The shortest digits that give the number back, laid out as Python does.
std::string FloatText(double value) {
  char digits[32];
  const auto scientific = std::to_chars(std::begin(digits), std::end(digits),
                                        value, std::chars_format::scientific);
  const absl::string_view text(digits, scientific.ptr - digits);
  const size_t e = text.find('e');
  CHECK(e != absl::string_view::npos);
  const bool is_negative = text[e + 1] == '-';
  int exponent = 0;
  std::from_chars(digits + e + 2, scientific.ptr, exponent);
  if (is_negative) exponent = -exponent;
  if (exponent < -4 || exponent >= 16) return std::string(text);
  char plain[64];
  const auto fixed = std::to_chars(std::begin(plain), std::end(plain), value,
                                   std::chars_format::fixed);
  std::string out(plain, fixed.ptr - plain);
  if (!absl::StrContains(out, '.')) out += ".0";
  return out;
}

// As a comparison of numbers sees them, without rounding integers.
int OrderNumbers(const Value& a, const Value& b) {
  if (a.IsInteger() && b.IsInteger()) {
    return (a.integer() > b.integer()) - (a.integer() < b.integer());
  }
  return (a.number() > b.number()) - (a.number() < b.number());
}

}  // namespace

absl::Status Budget::Spend(int64_t steps) {
  if (steps > steps_left_) {
    steps_left_ = 0;
    return Error(absl::StrCat("the template takes more than ",
                              limits_.steps_max,
                              " steps for this conversation"));
  }
  steps_left_ -= steps;
  return absl::OkStatus();
}

absl::Status AppendText(const Text& piece, Text* out, Budget* budget) {
  RETURN_IF_ERROR(budget->SpendBytes(piece.size() + 8 * piece.runs().size()));
  const size_t size = out->size() + piece.size();
  if (size > static_cast<size_t>(budget->limits().text_bytes_max)) {
    return Error(absl::StrCat("a text of the template would have ", size,
                              " bytes; at most ",
                              budget->limits().text_bytes_max, " are allowed"));
  }
  out->Append(piece);
  return absl::OkStatus();
}

Value Value::Undefined(absl::string_view what) {
  return Value(Data(UndefinedType{std::make_shared<const std::string>(what)}));
}

Value Value::String(Text text) {
  return Value(Data(std::make_shared<const Text>(std::move(text))));
}

Value Value::Loop(LoopState loop) {
  return Value(Data(std::make_shared<const LoopState>(std::move(loop))));
}

Value Value::MakeNamespace() {
  return Value(Data(std::make_shared<Namespace>()));
}

absl::StatusOr<Value> Value::Float(double value) {
  if (!std::isfinite(value)) {
    return Error("a number grew beyond what can be counted");
  }
  return Value(Data(value));
}

absl::StatusOr<Value> Value::MakeList(List items, Budget* budget,
                                      bool is_lazy) {
  const Limits& limits = budget->limits();
  if (items.size() > static_cast<size_t>(limits.list_items_max)) {
    return Error(absl::StrCat("a list would have ", items.size(),
                              " items; at most ", limits.list_items_max,
                              " are allowed"));
  }
  RETURN_IF_ERROR(budget->Spend(items.size()));
  int depth = 1;
  for (const Value& item : items) {
    if (!item.IsData()) {
      return Error(absl::StrCat(item.KindName(), " cannot be put into a list"));
    }
    depth = std::max(depth, item.Depth() + 1);
  }
  if (depth > limits.nesting_max) {
    return Error(
        absl::StrCat("lists are nested deeper than ", limits.nesting_max));
  }
  return Value(Data(std::make_shared<const ListType>(
      ListType{std::move(items), depth, is_lazy})));
}

absl::StatusOr<Value> Value::MakeDict(Dict items, Budget* budget) {
  Dict unique;
  int depth = 1;
  for (DictItem& item : items) {
    if (unique.size() == kDictItemsMax) {
      return Error(
          absl::StrCat("a dict has more than ", kDictItemsMax, " items"));
    }
    if (!item.value.IsData()) {
      return Error(
          absl::StrCat(item.value.KindName(), " cannot be put into a dict"));
    }
    if (!item.key.IsNumber() && !item.key.Is(Kind::kString) &&
        !item.key.Is(Kind::kNone)) {
      return Error(
          absl::StrCat(item.key.KindName(), " cannot be the key of a dict"));
    }
    depth = std::max(depth, item.value.Depth() + 1);
    // A key that is there already gets the new value in its old place.
    ASSIGN_OR_RETURN(const Value* old, FindKey(unique, item.key, budget));
    if (old != nullptr) {
      *const_cast<Value*>(old) = std::move(item.value);
    } else {
      unique.push_back(std::move(item));
    }
  }
  if (depth > budget->limits().nesting_max) {
    return Error(absl::StrCat("dicts are nested deeper than ",
                              budget->limits().nesting_max));
  }
  return Value(Data(
      std::make_shared<const DictType>(DictType{std::move(unique), depth})));
}

int Value::Depth() const {
  if (const auto* list = std::get_if<std::shared_ptr<const ListType>>(&data_)) {
    return (*list)->depth;
  }
  if (const auto* dict = std::get_if<std::shared_ptr<const DictType>>(&data_)) {
    return (*dict)->depth;
  }
  return 0;
}

absl::string_view Value::undefined_what() const {
  const auto& what = std::get<UndefinedType>(data_).what;
  return what == nullptr ? absl::string_view("value") : *what;
}

int64_t Value::integer() const {
  if (Is(Kind::kBool)) return bool_value() ? 1 : 0;
  return std::get<int64_t>(data_);
}

double Value::number() const {
  if (IsInteger()) return static_cast<double>(integer());
  return std::get<double>(data_);
}

const List& Value::list() const {
  return std::get<std::shared_ptr<const ListType>>(data_)->items;
}

bool Value::IsLazy() const {
  return std::get<std::shared_ptr<const ListType>>(data_)->is_lazy;
}

const Dict& Value::dict() const {
  return std::get<std::shared_ptr<const DictType>>(data_)->items;
}

Namespace* Value::name_space() const {
  return std::get<std::shared_ptr<Namespace>>(data_).get();
}

const LoopState& Value::loop() const {
  return *std::get<std::shared_ptr<const LoopState>>(data_);
}

bool Value::IsTrue() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return number() != 0;
    case Kind::kString:
      return !text().empty();
    case Kind::kList:
      return IsLazy() || !list().empty();
    case Kind::kDict:
      return !dict().empty();
    default:
      return true;
  }
}

absl::string_view Value::KindName() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "an undefined value";
    case Kind::kNone:
      return "none";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInt:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kString:
      return "a string";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dict";
    case Kind::kNamespace:
      return "a namespace";
    case Kind::kLoop:
      return "a loop";
    case Kind::kMacro:
      return "a macro";
    case Kind::kFunction:
      return "a function";
  }
  return "";
}

absl::StatusOr<bool> Equals(const Value& a, const Value& b, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend(1));
  if (a.IsNumber() && b.IsNumber()) return OrderNumbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      RETURN_IF_ERROR(budget->SpendBytes(a.text().size()));
      return a.text().bytes() == b.text().bytes();
    case Kind::kList:
      if (a.list().size() != b.list().size()) return false;
      for (size_t i = 0; i < a.list().size(); ++i) {
        ASSIGN_OR_RETURN(const bool is_same,
                         Equals(a.list()[i], b.list()[i], budget));
        if (!is_same) return false;
      }
      return true;
    case Kind::kDict:
      if (a.dict().size() != b.dict().size()) return false;
      for (const DictItem& item : a.dict()) {
        ASSIGN_OR_RETURN(const Value* other,
                         FindKey(b.dict(), item.key, budget));
        if (other == nullptr) return false;
        ASSIGN_OR_RETURN(const bool is_same,
                         Equals(item.value, *other, budget));
        if (!is_same) return false;
      }
      return true;
    case Kind::kNamespace:
      return a.name_space() == b.name_space();
    case Kind::kLoop:
      return &a.loop() == &b.loop();
    case Kind::kMacro:
      return a.macro() == b.macro();
    default:
      return false;
  }
}

absl::StatusOr<int> Order(const Value& a, const Value& b, Budget* budget) {
  if (a.IsNumber() && b.IsNumber()) return OrderNumbers(a, b);
  if (a.Is(Kind::kString) && b.Is(Kind::kString)) {
    RETURN_IF_ERROR(budget->SpendBytes(a.text().size()));
    // UTF-8 sorts as its code points do.
    const int order = a.text().bytes().compare(b.text().bytes());
    return (order > 0) - (order < 0);
  }
  return Error(absl::StrCat("cannot say which is more, ", a.KindName(), " or ",
                            b.KindName()));
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item,
                              Budget* budget) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.Is(Kind::kString)) {
        return Error(
            absl::StrCat("cannot look for ", item.KindName(), " in a string"));
      }
      RETURN_IF_ERROR(budget->SpendBytes(container.text().size()));
      return FindText(container.text().bytes(), item.text().bytes(), 0) !=
             absl::string_view::npos;
    case Kind::kList:
      for (const Value& candidate : container.list()) {
        ASSIGN_OR_RETURN(const bool is_same, Equals(candidate, item, budget));
        if (is_same) return true;
      }
      return false;
    case Kind::kDict: {
      ASSIGN_OR_RETURN(const Value* found,
                       FindKey(container.dict(), item, budget));
      return found != nullptr;
    }
    default:
      return Error(absl::StrCat("nothing can be in ", container.KindName()));
  }
}

absl::StatusOr<const Value*> FindKey(const Dict& dict, const Value& key,
                                     Budget* budget) {
  for (const DictItem& item : dict) {
    ASSIGN_OR_RETURN(const bool is_same, Equals(item.key, key, budget));
    if (is_same) return &item.value;
  }
  return nullptr;
}

absl::StatusOr<Text> ToText(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return Text();
    case Kind::kNone:
      return Text("None");
    case Kind::kBool:
      return Text(value.bool_value() ? "True" : "False");
    case Kind::kInt:
      return Text(absl::StrCat(value.integer()));
    case Kind::kFloat:
      return Text(FloatText(value.number()));
    case Kind::kString:
      return value.text();
    default:
      return Error(absl::StrCat(value.KindName(),
                                " cannot be printed; tojson writes lists and "
                                "dicts"));
  }
}

}  // namespace jinja
}  // namespace tern
