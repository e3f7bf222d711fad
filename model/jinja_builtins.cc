#include "model/jinja_builtins.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "model/jinja_access.h"
#include "model/jinja_error.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;

// Members of a set of characters to trim are looked for one by one.
constexpr size_t kTrimSetBytesMax = 64;

absl::StatusOr<Value> MakeRange(const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const std::vector<const Value*> args,
                   BindArguments(arguments, {"start", "stop", "step"}));
  int64_t bounds[3] = {0, 0, 1};
  for (int i = 0; i < 3; ++i) {
    if (args[i] == nullptr) continue;
    if (!args[i]->IsInteger()) {
      return Error(
          absl::StrCat("range() needs integers, not ", args[i]->KindName()));
    }
    bounds[i] = args[i]->integer();
  }
  if (args[0] == nullptr) return Error("range() needs a number");
  if (args[1] == nullptr) std::swap(bounds[0], bounds[1]);
  const auto [start, stop, step] = bounds;
  if (step == 0) return Error("the step of range() cannot be 0");
  List items;
  // Unsigned: the distance of two integers may be more than one holds.
  const uint64_t distance =
      step > 0 ? (stop > start ? uint64_t(stop) - uint64_t(start) : 0)
               : (start > stop ? uint64_t(start) - uint64_t(stop) : 0);
  const uint64_t stride = step > 0 ? uint64_t(step) : -uint64_t(step);
  const uint64_t count = distance / stride + (distance % stride != 0);
  const uint64_t limit = budget->limits().list_items_max;
  if (count > limit) {
    return Error(absl::StrCat("range() would have ", count, " items; at most ",
                              limit, " are allowed"));
  }
  for (uint64_t i = 0; i < count; ++i) {
    items.push_back(
        Value::Int(static_cast<int64_t>(uint64_t(start) + i * uint64_t(step))));
  }
  return Value::MakeList(std::move(items), budget);
}

absl::StatusOr<Value> MakeDictOf(const Arguments& arguments, Budget* budget) {
  Dict items;
  if (arguments.positional.size() > 1) {
    return Error("dict() takes one dict and named values");
  }
  for (const Value& base : arguments.positional) {
    if (!base.Is(Kind::kDict)) {
      return Error(absl::StrCat("dict() takes a dict, not ", base.KindName()));
    }
    items = base.dict();
  }
  for (const auto& [name, value] : arguments.named) {
    items.push_back({Value::String(name), value});
  }
  return Value::MakeDict(std::move(items), budget);
}

absl::StatusOr<Value> MakeNamespaceOf(const Arguments& arguments,
                                      Budget* budget) {
  if (!arguments.positional.empty()) {
    return Error("namespace() takes named values only");
  }
  Value value = Value::MakeNamespace();
  for (const auto& [name, attribute] : arguments.named) {
    if (!attribute.IsData()) {
      return Error(absl::StrCat(attribute.KindName(),
                                " cannot be put into a namespace"));
    }
    value.name_space()->emplace_back(name, attribute);
  }
  return value;
}

// The reason goes into a status: not without end, and no half character.
std::string Shortened(absl::string_view text) {
  constexpr size_t kBytesMax = 300;
  if (text.size() <= kBytesMax) return std::string(text);
  size_t end = 0;
  while (end + CharacterBytes(text[end]) <= kBytesMax) {
    end += CharacterBytes(text[end]);
  }
  return absl::StrCat(text.substr(0, end), "...");
}

}  // namespace

absl::StatusOr<std::vector<const Value*>> BindArguments(
    const Arguments& arguments, absl::Span<const absl::string_view> names) {
  std::vector<const Value*> bound(names.size(), nullptr);
  if (arguments.positional.size() > names.size()) {
    return Error(absl::StrCat("takes at most ", names.size(),
                              " arguments, not ", arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) {
      return Error(absl::StrCat("does not take an argument '", name, "'"));
    }
    const Value*& place = bound[it - names.begin()];
    if (place != nullptr) {
      return Error(absl::StrCat("takes the argument '", name, "' once"));
    }
    place = &value;
  }
  return bound;
}

bool IsFunction(absl::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" ||
         name == "raise_exception";
}

absl::StatusOr<Value> CallFunction(absl::string_view name,
                                   const Arguments& arguments, Budget* budget) {
  if (name == "range") return MakeRange(arguments, budget);
  if (name == "dict") return MakeDictOf(arguments, budget);
  if (name == "namespace") return MakeNamespaceOf(arguments, budget);
  if (name == "raise_exception") {
    ASSIGN_OR_RETURN(const std::vector<const Value*> args,
                     BindArguments(arguments, {"message"}));
    ASSIGN_OR_RETURN(const Text message,
                     args[0] == nullptr ? Text() : ToText(*args[0]));
    return Error(absl::StrCat("the template refuses this conversation: ",
                              Shortened(message.bytes())));
  }
  if (name == "strftime_now") {
    return Error(
        "strftime_now() is not offered: prompts do not depend on the "
        "time of day; put the date into a system message");
  }
  return Error(absl::StrCat("there is no function '", name, "'"));
}

absl::StatusOr<Value> Trimmed(const Text& text, const Value* set, bool left,
                              bool right, Budget* budget) {
  absl::optional<absl::string_view> characters;
  if (set != nullptr && !set->Is(Kind::kNone)) {
    if (!set->Is(Kind::kString)) {
      return Error(absl::StrCat("characters to trim are a string, not ",
                                set->KindName()));
    }
    characters = set->text().bytes();
    if (characters->size() > kTrimSetBytesMax) {
      return Error(absl::StrCat("characters to trim have ", characters->size(),
                                " bytes; at most ", kTrimSetBytesMax,
                                " are allowed"));
    }
  }
  RETURN_IF_ERROR(budget->SpendBytes(text.size()));
  const ByteRange range = TrimmedRange(text.bytes(), characters, left, right);
  return Value::String(text.Substr(range.begin, range.end));
}

absl::StatusOr<Value> Replaced(const Text& text, const Value* from,
                               const Value* to, const Value* count,
                               Budget* budget) {
  if (from == nullptr || !from->Is(Kind::kString) || to == nullptr ||
      !to->Is(Kind::kString)) {
    return Error("replace needs two strings");
  }
  if (from->text().empty()) return Error("replace needs something to look for");
  int64_t left = std::numeric_limits<int64_t>::max();
  if (count != nullptr && !count->Is(Kind::kNone)) {
    if (!count->IsInteger()) return Error("replace counts with an integer");
    if (count->integer() >= 0) left = count->integer();
  }
  RETURN_IF_ERROR(budget->SpendBytes(text.size()));
  const absl::string_view needle = from->text().bytes();
  Text out;
  size_t begin = 0;
  while (left-- > 0) {
    const size_t found = FindText(text.bytes(), needle, begin);
    if (found == absl::string_view::npos) break;
    RETURN_IF_ERROR(budget->Spend(1));
    RETURN_IF_ERROR(AppendText(text.Substr(begin, found), &out, budget));
    RETURN_IF_ERROR(AppendText(to->text(), &out, budget));
    begin = found + needle.size();
  }
  RETURN_IF_ERROR(AppendText(text.Substr(begin, text.size()), &out, budget));
  return Value::String(std::move(out));
}

absl::StatusOr<Value> Joined(const Value& items, const Text& separator,
                             Budget* budget) {
  ASSIGN_OR_RETURN(const Value list, ToList(items, budget));
  Text out;
  bool is_first = true;
  for (const Value& item : list.list()) {
    RETURN_IF_ERROR(budget->Spend(1));
    if (!is_first) RETURN_IF_ERROR(AppendText(separator, &out, budget));
    is_first = false;
    ASSIGN_OR_RETURN(const Text text, ToText(item));
    RETURN_IF_ERROR(AppendText(text, &out, budget));
  }
  return Value::String(std::move(out));
}

absl::StatusOr<Value> ItemsOf(const Value& dict, Budget* budget) {
  List items;
  for (const DictItem& item : dict.dict()) {
    ASSIGN_OR_RETURN(Value pair,
                     Value::MakeList({item.key, item.value}, budget));
    items.push_back(std::move(pair));
  }
  return Value::MakeList(std::move(items), budget);
}

absl::StatusOr<Value> Recased(const Text& text,
                              std::string (*change)(absl::string_view),
                              Budget* budget) {
  RETURN_IF_ERROR(budget->SpendBytes(text.size()));
  return Value::String(text.WithBytes(change(text.bytes())));
}

}  // namespace jinja
}  // namespace tern
