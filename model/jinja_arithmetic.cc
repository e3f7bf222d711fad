#include "model/jinja_arithmetic.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/jinja_error.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;

absl::string_view Symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    default:
      return "~";
  }
}

absl::Status TooLarge() { return Error("an integer needs more than 64 bits"); }

absl::StatusOr<Value> CalculateIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    default:
      break;
  }
  if (b == 0) return Error("cannot divide by 0");
  if (op == Operator::kDivide) {
    return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  }
  if (b == -1 && a == std::numeric_limits<int64_t>::min()) return TooLarge();
  // Towards minus infinity; the remainder has the sign of the divisor.
  const bool adjusts = a % b != 0 && (a < 0) != (b < 0);
  if (op == Operator::kFloorDivide) return Value::Int(a / b - adjusts);
  return Value::Int(a % b + (adjusts ? b : 0));
}

absl::StatusOr<Value> CalculateFloats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    default:
      break;
  }
  if (b == 0) return Error("cannot divide by 0");
  if (op == Operator::kDivide) return Value::Float(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == Operator::kModulo) return Value::Float(remainder);
  return Value::Float(std::floor((a - remainder) / b + 0.5));
}

absl::StatusOr<Value> Join(const Text& a, const Text& b, Budget* budget) {
  Text out;
  RETURN_IF_ERROR(AppendText(a, &out, budget));
  RETURN_IF_ERROR(AppendText(b, &out, budget));
  return Value::String(std::move(out));
}

absl::Status CheckRepeated(size_t size, int64_t count, int64_t limit) {
  if (count <= limit / static_cast<int64_t>(size)) return absl::OkStatus();
  return Error(absl::StrCat(size, " times ", count, " is too long; at most ",
                            limit, " are allowed"));
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count,
                             Budget* budget) {
  const Limits& limits = budget->limits();
  if (value.Is(Kind::kString)) {
    Text out;
    if (value.text().empty() || count <= 0) return Value::String(out);
    RETURN_IF_ERROR(
        CheckRepeated(value.text().size(), count, limits.text_bytes_max));
    // Short pieces cost more than their bytes.
    RETURN_IF_ERROR(budget->Spend(count / 16));
    for (; count > 0; --count) {
      RETURN_IF_ERROR(AppendText(value.text(), &out, budget));
    }
    return Value::String(std::move(out));
  }
  List items;
  if (value.list().empty() || count <= 0) return Value::MakeList({}, budget);
  RETURN_IF_ERROR(
      CheckRepeated(value.list().size(), count, limits.list_items_max));
  for (; count > 0; --count) {
    items.insert(items.end(), value.list().begin(), value.list().end());
  }
  return Value::MakeList(std::move(items), budget);
}

bool IsRepeatable(const Value& value) {
  return value.Is(Kind::kString) || value.Is(Kind::kList);
}

}  // namespace

absl::StatusOr<Value> Calculate(Operator op, const Value& a, const Value& b,
                                Budget* budget) {
  if (op == Operator::kConcat) {
    ASSIGN_OR_RETURN(const Text left, ToText(a));
    ASSIGN_OR_RETURN(const Text right, ToText(b));
    return Join(left, right, budget);
  }
  if (a.IsInteger() && b.IsInteger()) {
    return CalculateIntegers(op, a.integer(), b.integer());
  }
  if (a.IsNumber() && b.IsNumber()) {
    return CalculateFloats(op, a.number(), b.number());
  }
  if (op == Operator::kAdd && a.Is(Kind::kString) && b.Is(Kind::kString)) {
    return Join(a.text(), b.text(), budget);
  }
  if (op == Operator::kAdd && a.Is(Kind::kList) && b.Is(Kind::kList)) {
    List items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    return Value::MakeList(std::move(items), budget);
  }
  if (op == Operator::kMultiply && IsRepeatable(a) && b.IsInteger()) {
    return Repeat(a, b.integer(), budget);
  }
  if (op == Operator::kMultiply && a.IsInteger() && IsRepeatable(b)) {
    return Repeat(b, a.integer(), budget);
  }
  for (const Value* value : {&a, &b}) {
    if (!value->Is(Kind::kUndefined)) continue;
    return Error(absl::StrCat("'", value->undefined_what(),
                              "' is undefined beside ", Symbol(op)));
  }
  return Error(absl::StrCat("the operator ", Symbol(op), " does not take ",
                            a.KindName(), " and ", b.KindName()));
}

absl::StatusOr<Value> Negate(const Value& a) {
  if (a.IsInteger()) {
    return CalculateIntegers(Operator::kSubtract, 0, a.integer());
  }
  if (a.IsNumber()) return Value::Float(-a.number());
  return Error(absl::StrCat("the operator - does not take ", a.KindName()));
}

absl::StatusOr<bool> Compare(Operator op, const Value& a, const Value& b,
                             Budget* budget) {
  if (op == Operator::kIn) return Contains(b, a, budget);
  if (op == Operator::kNotIn) {
    ASSIGN_OR_RETURN(const bool is_in, Contains(b, a, budget));
    return !is_in;
  }
  if (op == Operator::kEqual) return Equals(a, b, budget);
  if (op == Operator::kNotEqual) {
    ASSIGN_OR_RETURN(const bool is_same, Equals(a, b, budget));
    return !is_same;
  }
  ASSIGN_OR_RETURN(const int order, Order(a, b, budget));
  switch (op) {
    case Operator::kLess:
      return order < 0;
    case Operator::kLessEqual:
      return order <= 0;
    case Operator::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

}  // namespace jinja
}  // namespace tern
