// Methods of strings and dicts.

#include <iterator>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/jinja_access.h"
#include "model/jinja_builtins.h"
#include "model/jinja_error.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;
using Bound = std::vector<const Value*>;

// One way to call a method, with its arguments bound to `parameters`.
struct Method {
  absl::string_view name;
  std::vector<absl::string_view> parameters;
  absl::StatusOr<Value> (*call)(const Value& self, const Bound& args,
                                Budget* budget);
};

absl::StatusOr<const Text*> TextArgument(const Value* value) {
  if (value == nullptr || !value->Is(Kind::kString)) {
    return Error(absl::StrCat(
        "needs a string", value == nullptr ? "" : ", not ",
        value == nullptr ? absl::string_view() : value->KindName()));
  }
  return &value->text();
}

template <bool kLeft, bool kRight>
absl::StatusOr<Value> Strip(const Value& self, const Bound& args,
                            Budget* budget) {
  return Trimmed(self.text(), args[0], kLeft, kRight, budget);
}

template <std::string (*kChange)(absl::string_view)>
absl::StatusOr<Value> Recase(const Value& self, const Bound& args,
                             Budget* budget) {
  return Recased(self.text(), kChange, budget);
}

absl::StatusOr<Value> SplitAtSpace(const Text& text, int64_t left,
                                   Budget* budget) {
  List parts;
  const absl::string_view bytes = text.bytes();
  size_t at = 0;
  const auto is_space = [&] {
    return IsSpace(bytes.substr(at, CharacterBytes(bytes[at])));
  };
  for (;;) {
    while (at < bytes.size() && is_space()) at += CharacterBytes(bytes[at]);
    if (at == bytes.size()) break;
    RETURN_IF_ERROR(budget->Spend(1));
    const size_t begin = at;
    if (left-- == 0) {
      const ByteRange range =
          TrimmedRange(bytes.substr(begin), absl::nullopt, false, true);
      parts.push_back(Value::String(text.Substr(begin, begin + range.end)));
      break;
    }
    while (at < bytes.size() && !is_space()) at += CharacterBytes(bytes[at]);
    parts.push_back(Value::String(text.Substr(begin, at)));
  }
  return Value::MakeList(std::move(parts), budget);
}

absl::StatusOr<Value> Split(const Value& self, const Bound& args,
                            Budget* budget) {
  const Text& text = self.text();
  int64_t left = std::numeric_limits<int64_t>::max();
  if (args[1] != nullptr) {
    if (!args[1]->IsInteger()) return Error("counts with an integer");
    if (args[1]->integer() >= 0) left = args[1]->integer();
  }
  RETURN_IF_ERROR(budget->SpendBytes(2 * text.size()));
  if (args[0] == nullptr || args[0]->Is(Kind::kNone)) {
    return SplitAtSpace(text, left, budget);
  }
  ASSIGN_OR_RETURN(const Text* separator, TextArgument(args[0]));
  if (separator->empty()) return Error("needs a separator");
  List parts;
  size_t begin = 0;
  while (left-- > 0) {
    const size_t found = FindText(text.bytes(), separator->bytes(), begin);
    if (found == absl::string_view::npos) break;
    RETURN_IF_ERROR(budget->Spend(1));
    parts.push_back(Value::String(text.Substr(begin, found)));
    begin = found + separator->size();
  }
  parts.push_back(Value::String(text.Substr(begin, text.size())));
  return Value::MakeList(std::move(parts), budget);
}

// For one string or any of a list of them.
absl::StatusOr<Value> Affix(const Value& self, const Value* affix,
                            bool (*fits)(absl::string_view, absl::string_view),
                            Budget* budget) {
  if (affix != nullptr && affix->Is(Kind::kList)) {
    for (const Value& one : affix->list()) {
      RETURN_IF_ERROR(budget->Spend(1));
      ASSIGN_OR_RETURN(const Text* text, TextArgument(&one));
      if (fits(self.text().bytes(), text->bytes())) return Value::Bool(true);
    }
    return Value::Bool(false);
  }
  ASSIGN_OR_RETURN(const Text* text, TextArgument(affix));
  RETURN_IF_ERROR(budget->SpendBytes(text->size()));
  return Value::Bool(fits(self.text().bytes(), text->bytes()));
}

bool HasPrefix(absl::string_view text, absl::string_view prefix) {
  return absl::StartsWith(text, prefix);
}

bool HasSuffix(absl::string_view text, absl::string_view suffix) {
  return absl::EndsWith(text, suffix);
}

absl::StatusOr<Value> StartsWithMethod(const Value& self, const Bound& args,
                                       Budget* budget) {
  return Affix(self, args[0], HasPrefix, budget);
}

absl::StatusOr<Value> EndsWithMethod(const Value& self, const Bound& args,
                                     Budget* budget) {
  return Affix(self, args[0], HasSuffix, budget);
}

absl::StatusOr<Value> RemovePrefix(const Value& self, const Bound& args,
                                   Budget* budget) {
  ASSIGN_OR_RETURN(const Text* prefix, TextArgument(args[0]));
  RETURN_IF_ERROR(budget->SpendBytes(self.text().size()));
  if (!HasPrefix(self.text().bytes(), prefix->bytes())) return self;
  return Value::String(self.text().Substr(prefix->size(), self.text().size()));
}

absl::StatusOr<Value> RemoveSuffix(const Value& self, const Bound& args,
                                   Budget* budget) {
  ASSIGN_OR_RETURN(const Text* suffix, TextArgument(args[0]));
  RETURN_IF_ERROR(budget->SpendBytes(self.text().size()));
  if (!HasSuffix(self.text().bytes(), suffix->bytes())) return self;
  return Value::String(
      self.text().Substr(0, self.text().size() - suffix->size()));
}

absl::StatusOr<Value> Replace(const Value& self, const Bound& args,
                              Budget* budget) {
  return Replaced(self.text(), args[0], args[1], args[2], budget);
}

absl::StatusOr<Value> Find(const Value& self, const Bound& args,
                           Budget* budget) {
  ASSIGN_OR_RETURN(const Text* needle, TextArgument(args[0]));
  const absl::string_view bytes = self.text().bytes();
  RETURN_IF_ERROR(budget->SpendBytes(bytes.size()));
  const size_t found = FindText(bytes, needle->bytes(), 0);
  if (found == absl::string_view::npos) return Value::Int(-1);
  return Value::Int(CountCharacters(bytes.substr(0, found)));
}

absl::StatusOr<Value> Count(const Value& self, const Bound& args,
                            Budget* budget) {
  ASSIGN_OR_RETURN(const Text* needle, TextArgument(args[0]));
  if (needle->empty()) return Error("needs something to count");
  const absl::string_view bytes = self.text().bytes();
  RETURN_IF_ERROR(budget->SpendBytes(bytes.size()));
  int64_t count = 0;
  for (size_t at = 0;; at += needle->size(), ++count) {
    at = FindText(bytes, needle->bytes(), at);
    if (at == absl::string_view::npos) return Value::Int(count);
    RETURN_IF_ERROR(budget->Spend(1));
  }
}

absl::StatusOr<Value> IsDigit(const Value& self, const Bound& args,
                              Budget* budget) {
  const absl::string_view bytes = self.text().bytes();
  RETURN_IF_ERROR(budget->SpendBytes(bytes.size()));
  for (char c : bytes) {
    if (!absl::ascii_isdigit(c)) return Value::Bool(false);
  }
  return Value::Bool(!bytes.empty());
}

absl::StatusOr<Value> Join(const Value& self, const Bound& args,
                           Budget* budget) {
  if (args[0] == nullptr) return Error("needs a list");
  return Joined(*args[0], self.text(), budget);
}

absl::StatusOr<Value> Items(const Value& self, const Bound& args,
                            Budget* budget) {
  return ItemsOf(self, budget);
}

absl::StatusOr<Value> Keys(const Value& self, const Bound& args,
                           Budget* budget) {
  return ToList(self, budget);
}

absl::StatusOr<Value> Values(const Value& self, const Bound& args,
                             Budget* budget) {
  List values;
  for (const DictItem& item : self.dict()) values.push_back(item.value);
  return Value::MakeList(std::move(values), budget);
}

absl::StatusOr<Value> Get(const Value& self, const Bound& args,
                          Budget* budget) {
  if (args[0] == nullptr) return Error("needs a key");
  ASSIGN_OR_RETURN(const Value* found, FindKey(self.dict(), *args[0], budget));
  if (found != nullptr) return *found;
  return args[1] == nullptr ? Value::None() : *args[1];
}

const std::vector<Method>& StringMethods() {
  static const auto* const methods = new std::vector<Method>{
      {"capitalize", {}, Recase<CapitalizeAscii>},
      {"count", {"sub"}, Count},
      {"endswith", {"suffix"}, EndsWithMethod},
      {"find", {"sub"}, Find},
      {"isdigit", {}, IsDigit},
      {"join", {"iterable"}, Join},
      {"lower", {}, Recase<LowerAscii>},
      {"lstrip", {"chars"}, Strip<true, false>},
      {"removeprefix", {"prefix"}, RemovePrefix},
      {"removesuffix", {"suffix"}, RemoveSuffix},
      {"replace", {"old", "new", "count"}, Replace},
      {"rstrip", {"chars"}, Strip<false, true>},
      {"split", {"sep", "maxsplit"}, Split},
      {"startswith", {"prefix"}, StartsWithMethod},
      {"strip", {"chars"}, Strip<true, true>},
      {"title", {}, Recase<TitleAscii>},
      {"upper", {}, Recase<UpperAscii>},
  };
  return *methods;
}

const std::vector<Method>& DictMethods() {
  static const auto* const methods = new std::vector<Method>{
      {"get", {"key", "default"}, Get},
      {"items", {}, Items},
      {"keys", {}, Keys},
      {"values", {}, Values},
  };
  return *methods;
}

const std::vector<Method>& MethodsOf(const Value& subject) {
  static const auto* const none = new std::vector<Method>();
  if (subject.Is(Kind::kString)) return StringMethods();
  return subject.Is(Kind::kDict) ? DictMethods() : *none;
}

// loop.cycle(a, b ...): one after the other.
absl::StatusOr<Value> Cycle(const LoopState& loop, const Arguments& arguments) {
  const auto& choices = arguments.positional;
  if (choices.empty() || !arguments.named.empty()) {
    return Error("loop.cycle() needs values to choose from");
  }
  return choices[loop.index % choices.size()];
}

}  // namespace

bool HasMethod(absl::string_view name, const Value& subject) {
  for (const Method& method : MethodsOf(subject)) {
    if (method.name == name) return true;
  }
  return false;
}

absl::StatusOr<Value> CallMethod(absl::string_view name, const Value& subject,
                                 const Arguments& arguments, Budget* budget) {
  if (subject.Is(Kind::kUndefined)) {
    return Error(absl::StrCat("'", subject.undefined_what(),
                              "' is undefined and has no method '", name, "'"));
  }
  if (subject.Is(Kind::kLoop) && name == "cycle") {
    return Cycle(subject.loop(), arguments);
  }
  for (const Method& method : MethodsOf(subject)) {
    if (method.name != name) continue;
    absl::StatusOr<Value> result = [&]() -> absl::StatusOr<Value> {
      ASSIGN_OR_RETURN(const Bound args,
                       BindArguments(arguments, method.parameters));
      return method.call(subject, args, budget);
    }();
    if (result.ok()) return result;
    return Error(
        absl::StrCat("method '", name, "': ", result.status().message()));
  }
  if (name == "append" || name == "update" || name == "pop" ||
      name == "insert" || name == "extend") {
    return Error(absl::StrCat("method '", name,
                              "': values do not change; join lists with +"));
  }
  return Error(
      absl::StrCat(subject.KindName(), " has no method '", name, "' here"));
}

}  // namespace jinja
}  // namespace tern
