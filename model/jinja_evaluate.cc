// The half of Interpreter that evaluates expressions.

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/jinja_access.h"
#include "model/jinja_arithmetic.h"
#include "model/jinja_error.h"
#include "model/jinja_interpreter.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Expression::Kind;

}  // namespace

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression,
                                            const Scope& scope) {
  // Most nodes of a template.
  if (expression.kind == Kind::kConstant) return expression.constant;
  const int nesting = nesting_;
  RETURN_IF_ERROR(WithLine(expression.line, Enter()));
  absl::StatusOr<Value> value = EvaluateKind(expression, scope);
  nesting_ = nesting;
  if (!value.ok()) return WithLine(expression.line, value.status());
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expression& expression,
                                                const Scope& scope) {
  const auto& operands = expression.operands;
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return EvaluateName(expression, scope);
    case Kind::kList:
      return EvaluateList(expression, scope);
    case Kind::kDict:
      return EvaluateDict(expression, scope);
    case Kind::kAttribute: {
      ASSIGN_OR_RETURN(const Value subject, Evaluate(*operands[0], scope));
      ASSIGN_OR_RETURN(Value value,
                       GetAttribute(subject, expression.name, &budget_));
      // There, but good for calls only.
      if (value.Is(Value::Kind::kUndefined) &&
          HasMethod(expression.name, subject)) {
        return Value::Function();
      }
      return value;
    }
    case Kind::kItem: {
      ASSIGN_OR_RETURN(const Value subject, Evaluate(*operands[0], scope));
      ASSIGN_OR_RETURN(const Value key, Evaluate(*operands[1], scope));
      return GetItem(subject, key, &budget_);
    }
    case Kind::kSlice:
      return EvaluateSlice(expression, scope);
    case Kind::kCall:
      return EvaluateCall(expression, scope);
    case Kind::kFilter: {
      ASSIGN_OR_RETURN(const Value subject, Evaluate(*operands[0], scope));
      ASSIGN_OR_RETURN(const Arguments arguments,
                       EvaluateArguments(expression, scope));
      return ApplyFilter(expression.name, subject, arguments, &budget_);
    }
    case Kind::kTest: {
      ASSIGN_OR_RETURN(const Value subject, Evaluate(*operands[0], scope));
      ASSIGN_OR_RETURN(const Arguments arguments,
                       EvaluateArguments(expression, scope));
      ASSIGN_OR_RETURN(const bool holds, ApplyTest(expression.name, subject,
                                                   arguments, &budget_));
      return Value::Bool(holds);
    }
    case Kind::kNot: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*operands[0], scope));
      return Value::Bool(!value.IsTrue());
    }
    case Kind::kNegate: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*operands[0], scope));
      return Negate(value);
    }
    case Kind::kPlus: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*operands[0], scope));
      return Calculate(Operator::kAdd, Value::Int(0), value, &budget_);
    }
    case Kind::kAnd:
    case Kind::kOr: {
      // The value that decided, as in Python.
      ASSIGN_OR_RETURN(Value left, Evaluate(*operands[0], scope));
      if (left.IsTrue() == (expression.kind == Kind::kOr)) return left;
      return Evaluate(*operands[1], scope);
    }
    case Kind::kBinary:
      return EvaluateBinary(expression, scope);
    case Kind::kCompare:
      return EvaluateCompare(expression, scope);
    case Kind::kConditional: {
      ASSIGN_OR_RETURN(const Value condition, Evaluate(*operands[1], scope));
      if (condition.IsTrue()) return Evaluate(*operands[0], scope);
      if (operands[2] == nullptr) return Value::Undefined("if without else");
      return Evaluate(*operands[2], scope);
    }
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression,
                                                const Scope& scope) {
  ASSIGN_OR_RETURN(const Value* value, Find(expression.name, scope));
  if (value != nullptr) return *value;
  if (IsFunction(expression.name)) return Value::Function();
  return Value::Undefined(expression.name);
}

absl::StatusOr<Value> Interpreter::EvaluateList(const Expression& expression,
                                                const Scope& scope) {
  List items;
  for (const ExpressionPtr& operand : expression.operands) {
    ASSIGN_OR_RETURN(Value item, Evaluate(*operand, scope));
    items.push_back(std::move(item));
  }
  return Value::MakeList(std::move(items), &budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression,
                                                const Scope& scope) {
  Dict items;
  for (size_t i = 0; i < expression.operands.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Evaluate(*expression.operands[i], scope));
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1], scope));
    items.push_back({std::move(key), std::move(value)});
  }
  return Value::MakeDict(std::move(items), &budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression,
                                                 const Scope& scope) {
  ASSIGN_OR_RETURN(const Value subject,
                   Evaluate(*expression.operands[0], scope));
  Value bounds[3] = {Value::None(), Value::None(), Value::None()};
  for (int i = 0; i < 3; ++i) {
    const ExpressionPtr& bound = expression.operands[i + 1];
    if (bound == nullptr) continue;
    ASSIGN_OR_RETURN(bounds[i], Evaluate(*bound, scope));
  }
  return GetSlice(subject, bounds[0], bounds[1], bounds[2], &budget_);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(
    const Expression& expression, const Scope& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i], scope));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, operand] : expression.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*operand, scope));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression,
                                                const Scope& scope) {
  const Expression& callee = *expression.operands[0];
  if (callee.kind == Kind::kAttribute) {
    ASSIGN_OR_RETURN(const Value subject, Evaluate(*callee.operands[0], scope));
    ASSIGN_OR_RETURN(const Arguments arguments,
                     EvaluateArguments(expression, scope));
    return CallMethod(callee.name, subject, arguments, &budget_);
  }
  if (callee.kind != Kind::kName) {
    return Error("only functions, methods and macros can be called");
  }
  ASSIGN_OR_RETURN(const Arguments arguments,
                   EvaluateArguments(expression, scope));
  ASSIGN_OR_RETURN(const Value* value, Find(callee.name, scope));
  if (value == nullptr) {
    return CallFunction(callee.name, arguments, &budget_);
  }
  if (!value->Is(Value::Kind::kMacro)) {
    return Error(absl::StrCat("'", callee.name, "' is ", value->KindName(),
                              " and cannot be called"));
  }
  return CallMacro(*value->macro(), arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const Expression& expression,
                                                  const Scope& scope) {
  ASSIGN_OR_RETURN(const Value left, Evaluate(*expression.operands[0], scope));
  ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.operands[1], scope));
  return Calculate(expression.operators[0], left, right, &budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression,
                                                   const Scope& scope) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0], scope));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1], scope));
    ASSIGN_OR_RETURN(const bool holds,
                     Compare(expression.operators[i], left, right, &budget_));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

}  // namespace jinja
}  // namespace tern
