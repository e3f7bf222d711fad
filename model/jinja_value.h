#ifndef MODEL_JINJA_VALUE_H_
#define MODEL_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_text.h"

namespace tern {
namespace jinja {

// What a template may use up. Beyond it everything is INVALID_ARGUMENT.
struct Limits {
  int source_bytes_max = 128 << 10;
  // Depth of blocks, of expressions, and of lists in lists; also of the
  // evaluation, macros that call macros included.
  int nesting_max = 64;
  // Steps of one rendering: one per statement and expression evaluated, per
  // item put into a list and per item compared, and one per 64 bytes of text
  // made or searched (8 changes of origin count as much). So it bounds memory,
  // too.
  int64_t steps_max = 1000000;
  // Bytes of any one text, the output included.
  int64_t text_bytes_max = 4 << 20;
  int64_t list_items_max = 100000;
};

// Counts what a rendering uses. Not thread-safe.
class Budget {
 public:
  explicit Budget(const Limits& limits)
      : limits_(limits), steps_left_(limits.steps_max) {}

  const Limits& limits() const { return limits_; }
  absl::Status Spend(int64_t steps);
  // For making or looking through that many bytes.
  absl::Status SpendBytes(int64_t bytes) { return Spend(bytes / 64); }

 private:
  const Limits limits_;
  int64_t steps_left_;
};

// Appends with both limits on text: work and size.
absl::Status AppendText(const Text& piece, Text* out, Budget* budget);

struct MacroDefinition;  // of the syntax tree
class Value;
using List = std::vector<Value>;
struct DictItem;
using Dict = std::vector<DictItem>;  // in order of insertion
// Attributes that `set` changes. The one thing that is not immutable.
using Namespace = std::vector<std::pair<std::string, Value>>;

// What `loop` is during one iteration.
struct LoopState;

// A value of the template language. Immutable, cheap to copy, safe to share
// between threads (namespaces aside, which never leave their rendering).
class Value {
 public:
  enum class Kind {  // in the order of the variant
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kDict,
    kNamespace,
    kLoop,
    kMacro,
    kFunction,
  };

  Value() : Value(Data(UndefinedType{nullptr})) {}
  // `what` is named when the value is used all the same.
  static Value Undefined(absl::string_view what);
  static Value None() { return Value(Data(NoneType())); }
  static Value Bool(bool value) { return Value(Data(value)); }
  static Value Int(int64_t value) { return Value(Data(value)); }
  static Value String(Text text);
  static Value String(absl::string_view bytes) { return String(Text(bytes)); }
  static Value Macro(const MacroDefinition* macro) {
    return Value(Data(macro));
  }
  static Value Loop(LoopState loop);
  // A function that every template knows. It is known by its name alone.
  static Value Function() { return Value(Data(FunctionType())); }
  // A new one, empty.
  static Value MakeNamespace();

  // Refuses infinities and NaN, which JSON and comparisons do not know.
  static absl::StatusOr<Value> Float(double value);
  // Refuse what is too long or too deep, and namespaces, loops and macros,
  // which cannot be put into anything.
  // A lazy list is what filters such as `map` give: true even without items, as
  // Python's generators are, until `list` makes it a list.
  static absl::StatusOr<Value> MakeList(List items, Budget* budget,
                                        bool is_lazy = false);
  static absl::StatusOr<Value> MakeDict(Dict items, Budget* budget);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool Is(Kind kind) const { return this->kind() == kind; }
  bool IsNumber() const {  // a bool is one, too
    return Is(Kind::kBool) || Is(Kind::kInt) || Is(Kind::kFloat);
  }
  bool IsInteger() const { return Is(Kind::kBool) || Is(Kind::kInt); }
  // May be put into lists, dicts and namespaces.
  bool IsData() const { return kind() <= Kind::kDict; }

  // REQUIRES: of the kind.
  absl::string_view undefined_what() const;
  bool bool_value() const { return std::get<bool>(data_); }
  int64_t integer() const;  // IsInteger()
  double number() const;    // IsNumber()
  const Text& text() const { return *std::get<TextPtr>(data_); }
  const List& list() const;
  const Dict& dict() const;
  Namespace* name_space() const;
  const LoopState& loop() const;
  const MacroDefinition* macro() const {
    return std::get<const MacroDefinition*>(data_);
  }

  bool IsLazy() const;  // REQUIRES: a list
  bool IsTrue() const;
  // For messages: "a string", "none", "undefined" ...
  absl::string_view KindName() const;

 private:
  struct UndefinedType {
    std::shared_ptr<const std::string> what;  // may be null
  };
  struct NoneType {};
  struct FunctionType {};
  struct ListType {
    List items;
    int depth;  // of lists and dicts in one another, from 1
    bool is_lazy;
  };
  struct DictType {
    Dict items;
    int depth;
  };
  using TextPtr = std::shared_ptr<const Text>;
  using Data =
      std::variant<UndefinedType, NoneType, bool, int64_t, double, TextPtr,
                   std::shared_ptr<const ListType>,
                   std::shared_ptr<const DictType>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const LoopState>, const MacroDefinition*,
                   FunctionType>;

  explicit Value(Data data) : data_(std::move(data)) {}
  int Depth() const;

  Data data_;
};

struct DictItem {
  Value key;
  Value value;
};

struct LoopState {
  Value items;    // a list
  int64_t index;  // from 0
};

// As Python compares: 1 == 1.0 == true, texts by their bytes.
absl::StatusOr<bool> Equals(const Value& a, const Value& b, Budget* budget);
// -1, 0 or 1. Numbers with numbers, strings with strings.
absl::StatusOr<int> Order(const Value& a, const Value& b, Budget* budget);
// `item in container`.
absl::StatusOr<bool> Contains(const Value& container, const Value& item,
                              Budget* budget);
// Null when there is none.
absl::StatusOr<const Value*> FindKey(const Dict& dict, const Value& key,
                                     Budget* budget);

// As it is printed. Lists and dicts are refused: they need `tojson`.
absl::StatusOr<Text> ToText(const Value& value);
}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_VALUE_H_
