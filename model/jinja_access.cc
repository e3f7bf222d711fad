#include "model/jinja_access.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/jinja_error.h"
#include "model/jinja_text.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;

// Offsets of the characters of `text` and of its end.
std::vector<size_t> CharacterOffsets(absl::string_view text) {
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.size(); at += CharacterBytes(text[at])) {
    offsets.push_back(at);
  }
  offsets.push_back(text.size());
  return offsets;
}

absl::StatusOr<int64_t> SliceBound(const Value& bound, int64_t otherwise) {
  if (bound.Is(Kind::kNone)) return otherwise;
  if (!bound.IsInteger()) {
    return Error(
        absl::StrCat("a slice needs integers, not ", bound.KindName()));
  }
  return bound.integer();
}

// The indices that a slice of `size` items takes, in order.
absl::StatusOr<std::vector<int64_t>> SliceIndices(int64_t size,
                                                  const Value& begin,
                                                  const Value& end,
                                                  const Value& step) {
  ASSIGN_OR_RETURN(int64_t by, SliceBound(step, 1));
  if (by == 0) return Error("the step of a slice cannot be 0");
  // Steps beyond the length take one item, as the length itself does.
  by = std::clamp(by, -size - 1, size + 1);
  const auto clamped = [&](int64_t at) {
    if (at < 0) at = at < -size ? -1 : at + size;
    return by > 0 ? std::clamp<int64_t>(at, 0, size)
                  : std::clamp<int64_t>(at, -1, size - 1);
  };
  int64_t from = by > 0 ? 0 : size - 1;
  int64_t to = by > 0 ? size : -1;
  if (!begin.Is(Kind::kNone)) {
    ASSIGN_OR_RETURN(from, SliceBound(begin, 0));
    from = clamped(from);
  }
  if (!end.Is(Kind::kNone)) {
    ASSIGN_OR_RETURN(to, SliceBound(end, 0));
    to = clamped(to);
  }
  std::vector<int64_t> indices;
  for (int64_t i = from; by > 0 ? i < to : i > to; i += by) {
    indices.push_back(i);
  }
  return indices;
}

absl::StatusOr<Value> LoopAttribute(const LoopState& loop,
                                    absl::string_view name) {
  const List& items = loop.items.list();
  const int64_t size = items.size();
  if (name == "index") return Value::Int(loop.index + 1);
  if (name == "index0") return Value::Int(loop.index);
  if (name == "revindex") return Value::Int(size - loop.index);
  if (name == "revindex0") return Value::Int(size - loop.index - 1);
  if (name == "first") return Value::Bool(loop.index == 0);
  if (name == "last") return Value::Bool(loop.index == size - 1);
  if (name == "length") return Value::Int(size);
  // Jinja counts the depth of recursive loops, which are not offered.
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem" && loop.index > 0) return items[loop.index - 1];
  if (name == "nextitem" && loop.index + 1 < size) return items[loop.index + 1];
  return Value::Undefined(absl::StrCat("loop.", name));
}

}  // namespace

absl::StatusOr<Value> ToList(const Value& value, Budget* budget) {
  switch (value.kind()) {
    case Kind::kList:
      return value;
    case Kind::kUndefined:
      return Value::MakeList({}, budget);
    case Kind::kString: {
      const Text& text = value.text();
      // Before the items are there, not after.
      RETURN_IF_ERROR(budget->Spend(text.size()));
      List items;
      for (size_t at = 0; at < text.size();) {
        const size_t size = CharacterBytes(text.bytes()[at]);
        items.push_back(Value::String(text.Substr(at, at + size)));
        at += size;
      }
      return Value::MakeList(std::move(items), budget);
    }
    case Kind::kDict: {
      List items;
      for (const DictItem& item : value.dict()) items.push_back(item.key);
      return Value::MakeList(std::move(items), budget);
    }
    default:
      return Error(absl::StrCat("cannot go through ", value.KindName()));
  }
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& key,
                              Budget* budget) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return Error(absl::StrCat("'", value.undefined_what(),
                                "' is undefined and has no items"));
    case Kind::kDict: {
      ASSIGN_OR_RETURN(const Value* found, FindKey(value.dict(), key, budget));
      if (found != nullptr) return *found;
      break;
    }
    case Kind::kList: {
      if (!key.IsInteger()) break;
      const int64_t size = value.list().size();
      const int64_t at = key.integer();
      if (at >= -size && at < size) {
        return value.list()[at < 0 ? at + size : at];
      }
      break;
    }
    case Kind::kString: {
      if (!key.IsInteger()) break;
      // Counted once and walked once.
      RETURN_IF_ERROR(budget->SpendBytes(3 * value.text().size()));
      int64_t at = key.integer();
      const absl::string_view bytes = value.text().bytes();
      const int64_t size = CountCharacters(bytes);
      if (at < -size || at >= size) break;
      if (at < 0) at += size;
      size_t offset = 0;
      while (at-- > 0) offset += CharacterBytes(bytes[offset]);
      return Value::String(
          value.text().Substr(offset, offset + CharacterBytes(bytes[offset])));
    }
    default:
      break;
  }
  // Jinja looks for attributes where it finds no item.
  if (key.Is(Kind::kString) && !value.Is(Kind::kDict)) {
    return GetAttribute(value, key.text().bytes(), budget);
  }
  return Value::Undefined("item");
}

absl::StatusOr<Value> GetAttribute(const Value& value, absl::string_view name,
                                   Budget* budget) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return Error(absl::StrCat("'", value.undefined_what(),
                                "' is undefined and has no attribute '", name,
                                "'"));
    case Kind::kDict:
      for (const DictItem& item : value.dict()) {
        RETURN_IF_ERROR(budget->Spend(1));
        if (item.key.Is(Kind::kString) && item.key.text().bytes() == name) {
          return item.value;
        }
      }
      break;
    case Kind::kNamespace:
      for (const auto& [key, attribute] : *value.name_space()) {
        RETURN_IF_ERROR(budget->Spend(1));
        if (key == name) return attribute;
      }
      break;
    case Kind::kLoop:
      return LoopAttribute(value.loop(), name);
    default:
      break;
  }
  return Value::Undefined(name);
}

absl::StatusOr<Value> GetSlice(const Value& value, const Value& begin,
                               const Value& end, const Value& step,
                               Budget* budget) {
  if (value.Is(Kind::kList)) {
    RETURN_IF_ERROR(budget->Spend(value.list().size()));
    ASSIGN_OR_RETURN(const std::vector<int64_t> indices,
                     SliceIndices(value.list().size(), begin, end, step));
    List items;
    for (int64_t i : indices) items.push_back(value.list()[i]);
    return Value::MakeList(std::move(items), budget);
  }
  if (value.Is(Kind::kString)) {
    const Text& text = value.text();
    RETURN_IF_ERROR(budget->Spend(text.size() / 8));
    const std::vector<size_t> offsets = CharacterOffsets(text.bytes());
    ASSIGN_OR_RETURN(const std::vector<int64_t> indices,
                     SliceIndices(offsets.size() - 1, begin, end, step));
    Text out;
    for (int64_t i : indices) out.AppendRange(text, offsets[i], offsets[i + 1]);
    return Value::String(std::move(out));
  }
  if (value.Is(Kind::kUndefined)) {
    return Error(absl::StrCat("'", value.undefined_what(),
                              "' is undefined and has no items"));
  }
  return Error(absl::StrCat(value.KindName(), " cannot be sliced"));
}

}  // namespace jinja
}  // namespace tern
