// Filters and tests.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/jinja_access.h"
#include "model/jinja_builtins.h"
#include "model/jinja_error.h"
#include "model/jinja_json.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;
using Bound = std::vector<const Value*>;

struct Filter {
  absl::string_view name;
  std::vector<absl::string_view> parameters;
  absl::StatusOr<Value> (*apply)(const Value& subject, const Bound& args,
                                 Budget* budget);
};

// Arguments that map() and select() hand on.
constexpr int kInnerArgumentsMax = 4;
constexpr int kJsonIndentMax = 16;

bool IsGiven(const Value* value) {
  return value != nullptr && !value->Is(Kind::kNone);
}

absl::StatusOr<Value> Trim(const Value& subject, const Bound& args,
                           Budget* budget) {
  ASSIGN_OR_RETURN(const Text text, ToText(subject));
  return Trimmed(text, args[0], true, true, budget);
}

template <std::string (*kChange)(absl::string_view)>
absl::StatusOr<Value> Recase(const Value& subject, const Bound& args,
                             Budget* budget) {
  ASSIGN_OR_RETURN(const Text text, ToText(subject));
  return Recased(text, kChange, budget);
}

// As Jinja's filter does it: words begin behind spaces, hyphens and opening
// brackets, so not behind apostrophes.
std::string TitleWords(absl::string_view text) {
  std::string out = LowerAscii(text);
  bool is_in_word = false;
  for (char& c : out) {
    if (!is_in_word) c = absl::ascii_toupper(c);
    is_in_word = !absl::ascii_isspace(c) && c != '-' && c != '(' && c != '{' &&
                 c != '[' && c != '<';
  }
  return out;
}

absl::StatusOr<Value> Length(const Value& subject, const Bound& args,
                             Budget* budget) {
  switch (subject.kind()) {
    case Kind::kUndefined:
      return Value::Int(0);
    case Kind::kString:
      RETURN_IF_ERROR(budget->SpendBytes(subject.text().size()));
      return Value::Int(CountCharacters(subject.text().bytes()));
    case Kind::kList:
      return Value::Int(subject.list().size());
    case Kind::kDict:
      return Value::Int(subject.dict().size());
    default:
      return Error(absl::StrCat(subject.KindName(), " has no length"));
  }
}

absl::StatusOr<Value> Default(const Value& subject, const Bound& args,
                              Budget* budget) {
  const bool is_missing =
      subject.Is(Kind::kUndefined) ||
      (args[1] != nullptr && args[1]->IsTrue() && !subject.IsTrue());
  if (!is_missing) return subject;
  return args[0] == nullptr ? Value::String("") : *args[0];
}

absl::StatusOr<Value> Replace(const Value& subject, const Bound& args,
                              Budget* budget) {
  ASSIGN_OR_RETURN(const Text text, ToText(subject));
  return Replaced(text, args[0], args[1], args[2], budget);
}

absl::StatusOr<Value> First(const Value& subject, const Bound& args,
                            Budget* budget) {
  if (subject.Is(Kind::kString)) {
    return GetItem(subject, Value::Int(0), budget);
  }
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  if (list.list().empty()) return Value::Undefined("first item");
  return list.list().front();
}

absl::StatusOr<Value> Last(const Value& subject, const Bound& args,
                           Budget* budget) {
  if (subject.Is(Kind::kString)) {
    return GetItem(subject, Value::Int(-1), budget);
  }
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  if (list.list().empty()) return Value::Undefined("last item");
  return list.list().back();
}

// Hugging Face's filter, whose first argument is not the indent.
absl::StatusOr<Value> ToJsonFilter(const Value& subject, const Bound& args,
                                   Budget* budget) {
  if (args[0] != nullptr && args[0]->IsTrue()) {
    return Error("ensure_ascii=true is not offered");
  }
  int indent = -1;
  if (IsGiven(args[1])) {
    if (!args[1]->IsInteger() || args[1]->integer() < 0 ||
        args[1]->integer() > kJsonIndentMax) {
      return Error(absl::StrCat("indent must be an integer in [0, ",
                                kJsonIndentMax, "]"));
    }
    indent = args[1]->integer();
  }
  ASSIGN_OR_RETURN(Text text, ToJson(subject, indent, budget));
  return Value::String(std::move(text));
}

absl::StatusOr<Value> Abs(const Value& subject, const Bound& args,
                          Budget* budget) {
  if (!subject.IsNumber()) return Error("needs a number");
  if (subject.Is(Kind::kFloat)) return Value::Float(std::abs(subject.number()));
  if (subject.integer() == std::numeric_limits<int64_t>::min()) {
    return Error("an integer needs more than 64 bits");
  }
  return Value::Int(std::abs(subject.integer()));
}

absl::StatusOr<Value> ListOf(const Value& subject, const Bound& args,
                             Budget* budget) {
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  if (!list.IsLazy()) return list;
  return Value::MakeList(list.list(), budget);
}

absl::StatusOr<Value> StringOf(const Value& subject, const Bound& args,
                               Budget* budget) {
  ASSIGN_OR_RETURN(Text text, ToText(subject));
  return Value::String(std::move(text));
}

// What stands there when the text is no number.
Value Otherwise(const Bound& args) {
  return args[0] == nullptr ? Value::Int(0) : *args[0];
}

absl::Status CheckDefined(const Value& value) {
  if (!value.Is(Kind::kUndefined)) return absl::OkStatus();
  return Error(absl::StrCat("'", value.undefined_what(), "' is undefined"));
}

absl::StatusOr<Value> IntOf(const Value& subject, const Bound& args,
                            Budget* budget) {
  RETURN_IF_ERROR(CheckDefined(subject));
  if (subject.IsInteger()) return Value::Int(subject.integer());
  double number = 0;
  if (subject.Is(Kind::kFloat)) {
    number = subject.number();
  } else if (subject.Is(Kind::kString)) {
    RETURN_IF_ERROR(budget->SpendBytes(subject.text().size()));
    int64_t integer;
    const absl::string_view bytes = subject.text().bytes();
    if (absl::SimpleAtoi(bytes, &integer)) return Value::Int(integer);
    if (!absl::SimpleAtod(bytes, &number)) return Otherwise(args);
  } else {
    return Otherwise(args);
  }
  // 2^63 is the first double that no int64 holds; NaN is not below it.
  if (!(std::abs(number) < 9223372036854775808.0)) return Otherwise(args);
  return Value::Int(static_cast<int64_t>(number));
}

absl::StatusOr<Value> FloatOf(const Value& subject, const Bound& args,
                              Budget* budget) {
  RETURN_IF_ERROR(CheckDefined(subject));
  if (subject.IsNumber()) return Value::Float(subject.number());
  double number = 0;
  if (subject.Is(Kind::kString)) {
    RETURN_IF_ERROR(budget->SpendBytes(subject.text().size()));
    if (absl::SimpleAtod(subject.text().bytes(), &number)) {
      return Value::Float(number);
    }
  }
  return args[0] == nullptr ? Value::Float(0) : *args[0];
}

absl::StatusOr<Value> Same(const Value& subject, const Bound& args,
                           Budget* budget) {
  return subject;
}

absl::StatusOr<Value> Reverse(const Value& subject, const Bound& args,
                              Budget* budget) {
  if (subject.Is(Kind::kString)) {
    return GetSlice(subject, Value::None(), Value::None(), Value::Int(-1),
                    budget);
  }
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  return Value::MakeList(List(list.list().rbegin(), list.list().rend()), budget,
                         /*is_lazy=*/true);
}

absl::StatusOr<Value> Items(const Value& subject, const Bound& args,
                            Budget* budget) {
  if (subject.Is(Kind::kUndefined)) return Value::MakeList({}, budget, true);
  if (!subject.Is(Kind::kDict)) {
    return Error(absl::StrCat("needs a dict, not ", subject.KindName()));
  }
  ASSIGN_OR_RETURN(const Value items, ItemsOf(subject, budget));
  return Value::MakeList(items.list(), budget, /*is_lazy=*/true);
}

// value.a.b for the path "a.b", or an index.
absl::StatusOr<Value> AttributePath(const Value& value, const Value& path,
                                    Budget* budget) {
  if (path.IsInteger()) return GetItem(value, path, budget);
  if (!path.Is(Kind::kString)) {
    return Error(absl::StrCat("an attribute is named by a string, not by ",
                              path.KindName()));
  }
  Value at = value;
  absl::string_view rest = path.text().bytes();
  for (;;) {
    RETURN_IF_ERROR(budget->Spend(1));
    const size_t dot = rest.find('.');
    ASSIGN_OR_RETURN(at, GetAttribute(at, rest.substr(0, dot), budget));
    if (dot == absl::string_view::npos) return at;
    rest.remove_prefix(dot + 1);
  }
}

absl::StatusOr<Value> Join(const Value& subject, const Bound& args,
                           Budget* budget) {
  Text separator;
  if (args[0] != nullptr) {
    ASSIGN_OR_RETURN(separator, ToText(*args[0]));
  }
  if (!IsGiven(args[1])) return Joined(subject, separator, budget);
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  List attributes;
  for (const Value& item : list.list()) {
    ASSIGN_OR_RETURN(Value value, AttributePath(item, *args[1], budget));
    attributes.push_back(std::move(value));
  }
  ASSIGN_OR_RETURN(const Value all,
                   Value::MakeList(std::move(attributes), budget));
  return Joined(all, separator, budget);
}

const std::vector<Filter>& Filters() {
  static const auto* const filters = new std::vector<Filter>{
      {"abs", {}, Abs},
      {"capitalize", {}, Recase<CapitalizeAscii>},
      {"count", {}, Length},
      {"d", {"default_value", "boolean"}, Default},
      {"default", {"default_value", "boolean"}, Default},
      {"first", {}, First},
      {"float", {"default"}, FloatOf},
      {"int", {"default"}, IntOf},
      {"items", {}, Items},
      {"join", {"d", "attribute"}, Join},
      {"last", {}, Last},
      {"length", {}, Length},
      {"list", {}, ListOf},
      {"lower", {}, Recase<LowerAscii>},
      {"replace", {"old", "new", "count"}, Replace},
      {"reverse", {}, Reverse},
      {"safe", {}, Same},
      {"string", {}, StringOf},
      {"title", {}, Recase<TitleWords>},
      {"tojson", {"ensure_ascii", "indent"}, ToJsonFilter},
      {"trim", {"chars"}, Trim},
      {"upper", {}, Recase<UpperAscii>},
  };
  return *filters;
}

// The arguments behind the first `n`, for the filter or test that they name.
absl::StatusOr<Arguments> Inner(const Arguments& arguments, size_t n) {
  if (!arguments.named.empty() ||
      arguments.positional.size() > n + kInnerArgumentsMax) {
    return Error("takes names and a few plain arguments");
  }
  Arguments inner;
  inner.positional.assign(arguments.positional.begin() + n,
                          arguments.positional.end());
  return inner;
}

absl::StatusOr<std::string> InnerName(const Value& value) {
  if (!value.Is(Kind::kString)) return Error("needs the name as a string");
  return std::string(value.text().bytes());
}

// map(attribute=...), map('filter', ...).
absl::StatusOr<Value> Map(const Value& subject, const Arguments& arguments,
                          Budget* budget) {
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  List out;
  if (arguments.positional.empty()) {
    ASSIGN_OR_RETURN(const Bound args,
                     BindArguments(arguments, {"attribute", "default"}));
    if (args[0] == nullptr) return Error("needs an attribute or a filter");
    for (const Value& item : list.list()) {
      ASSIGN_OR_RETURN(Value value, AttributePath(item, *args[0], budget));
      if (value.Is(Kind::kUndefined) && args[1] != nullptr) value = *args[1];
      out.push_back(std::move(value));
    }
    return Value::MakeList(std::move(out), budget, /*is_lazy=*/true);
  }
  ASSIGN_OR_RETURN(const std::string name, InnerName(arguments.positional[0]));
  // One level only: a list of lists needs two loops, not map('map').
  if (name == "map" || name == "select" || name == "reject" ||
      name == "selectattr" || name == "rejectattr") {
    return Error(absl::StrCat("cannot apply '", name, "' to each item"));
  }
  ASSIGN_OR_RETURN(const Arguments inner, Inner(arguments, 1));
  for (const Value& item : list.list()) {
    RETURN_IF_ERROR(budget->Spend(1));
    ASSIGN_OR_RETURN(Value value, ApplyFilter(name, item, inner, budget));
    out.push_back(std::move(value));
  }
  return Value::MakeList(std::move(out), budget, /*is_lazy=*/true);
}

// select, reject: of the items; selectattr, rejectattr: of an attribute.
absl::StatusOr<Value> Select(const Value& subject, const Arguments& arguments,
                             bool of_attribute, bool keeps, Budget* budget) {
  const size_t n = of_attribute ? 1 : 0;
  if (arguments.positional.size() < n) return Error("needs an attribute");
  ASSIGN_OR_RETURN(const Value list, ToList(subject, budget));
  ASSIGN_OR_RETURN(Arguments inner, Inner(arguments, n));
  std::string test;
  if (!inner.positional.empty()) {
    ASSIGN_OR_RETURN(test, InnerName(inner.positional[0]));
    inner.positional.erase(inner.positional.begin());
  }
  List out;
  for (const Value& item : list.list()) {
    RETURN_IF_ERROR(budget->Spend(1));
    Value value = item;
    if (of_attribute) {
      ASSIGN_OR_RETURN(value,
                       AttributePath(item, arguments.positional[0], budget));
    }
    bool holds = value.IsTrue();
    if (!test.empty()) {
      ASSIGN_OR_RETURN(holds, ApplyTest(test, value, inner, budget));
    }
    if (holds == keeps) out.push_back(item);
  }
  return Value::MakeList(std::move(out), budget, /*is_lazy=*/true);
}

absl::StatusOr<Value> ApplyAnyFilter(absl::string_view name,
                                     const Value& subject,
                                     const Arguments& arguments,
                                     Budget* budget) {
  if (name == "map") return Map(subject, arguments, budget);
  if (name == "select") return Select(subject, arguments, false, true, budget);
  if (name == "reject") return Select(subject, arguments, false, false, budget);
  if (name == "selectattr") {
    return Select(subject, arguments, true, true, budget);
  }
  if (name == "rejectattr") {
    return Select(subject, arguments, true, false, budget);
  }
  for (const Filter& filter : Filters()) {
    if (filter.name != name) continue;
    ASSIGN_OR_RETURN(const Bound args,
                     BindArguments(arguments, filter.parameters));
    return filter.apply(subject, args, budget);
  }
  return Error("is not known here");
}

absl::StatusOr<int64_t> IntegerOf(const Value& value) {
  if (!value.IsInteger()) {
    return Error(absl::StrCat("needs an integer, not ", value.KindName()));
  }
  return value.integer();
}

// Tests of the subject alone.
absl::StatusOr<bool> ApplyPlainTest(absl::string_view name,
                                    const Value& subject) {
  if (name == "defined") return !subject.Is(Kind::kUndefined);
  if (name == "undefined") return subject.Is(Kind::kUndefined);
  if (name == "none") return subject.Is(Kind::kNone);
  if (name == "string") return subject.Is(Kind::kString);
  if (name == "mapping") return subject.Is(Kind::kDict);
  if (name == "iterable" || name == "sequence") {
    return subject.Is(Kind::kUndefined) || subject.Is(Kind::kString) ||
           subject.Is(Kind::kList) || subject.Is(Kind::kDict);
  }
  if (name == "number") return subject.IsNumber();
  if (name == "integer") return subject.Is(Kind::kInt);
  if (name == "float") return subject.Is(Kind::kFloat);
  if (name == "boolean") return subject.Is(Kind::kBool);
  if (name == "true") return subject.Is(Kind::kBool) && subject.bool_value();
  if (name == "false") return subject.Is(Kind::kBool) && !subject.bool_value();
  if (name == "callable") {
    return subject.Is(Kind::kMacro) || subject.Is(Kind::kFunction);
  }
  if (name == "odd" || name == "even") {
    ASSIGN_OR_RETURN(const int64_t number, IntegerOf(subject));
    return (number % 2 != 0) == (name == "odd");
  }
  return Error("is not known here");
}

// Tests against another value.
absl::StatusOr<bool> ApplyTestWith(absl::string_view name, const Value& subject,
                                   const Value& other, Budget* budget) {
  if (name == "divisibleby") {
    ASSIGN_OR_RETURN(const int64_t number, IntegerOf(subject));
    ASSIGN_OR_RETURN(const int64_t divisor, IntegerOf(other));
    if (divisor == 0) return Error("cannot divide by 0");
    return divisor == -1 || number % divisor == 0;
  }
  if (name == "equalto" || name == "eq" || name == "==") {
    return Equals(subject, other, budget);
  }
  if (name == "ne" || name == "!=") {
    ASSIGN_OR_RETURN(const bool is_same, Equals(subject, other, budget));
    return !is_same;
  }
  if (name == "sameas") {
    if (subject.kind() != other.kind()) return false;
    return Equals(subject, other, budget);
  }
  if (name == "in") return Contains(other, subject, budget);
  for (const auto& [names, fits] :
       {std::pair<std::vector<absl::string_view>, bool (*)(int)>{
            {"lt", "lessthan", "<"}, [](int order) { return order < 0; }},
        {{"gt", "greaterthan", ">"}, [](int order) { return order > 0; }},
        {{"le", "<="}, [](int order) { return order <= 0; }},
        {{"ge", ">="}, [](int order) { return order >= 0; }}}) {
    if (std::find(names.begin(), names.end(), name) == names.end()) continue;
    ASSIGN_OR_RETURN(const int order, Order(subject, other, budget));
    return fits(order);
  }
  return Error("is not known here");
}

}  // namespace

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& subject,
                                  const Arguments& arguments, Budget* budget) {
  absl::StatusOr<Value> result =
      ApplyAnyFilter(name, subject, arguments, budget);
  if (result.ok()) return result;
  return Error(
      absl::StrCat("filter '", name, "': ", result.status().message()));
}

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& subject,
                               const Arguments& arguments, Budget* budget) {
  absl::StatusOr<bool> result = false;
  if (!arguments.named.empty() || arguments.positional.size() > 1) {
    result = Error("takes one argument at most");
  } else if (arguments.positional.empty()) {
    result = ApplyPlainTest(name, subject);
  } else {
    result = ApplyTestWith(name, subject, arguments.positional[0], budget);
  }
  if (result.ok()) return result;
  return Error(absl::StrCat("test '", name, "': ", result.status().message()));
}

}  // namespace jinja
}  // namespace tern
