#include "model/jinja_interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "model/jinja_access.h"
#include "model/jinja_error.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

// Evaluations in one another: a few for each bracket or block of a template, so
// that its own depth and some macros fit, and the thread's stack is not needed
// beyond a few hundred kilobytes.
constexpr int kNestingFactor = 4;

constexpr size_t kNamespaceAttributesMax = 256;

}  // namespace

absl::Status Interpreter::Enter() {
  // What fails here ends the whole rendering, so nobody leaves.
  if (++nesting_ > kNestingFactor * budget_.limits().nesting_max) {
    return Error("macros and expressions are nested too deep");
  }
  return budget_.Spend(1);
}

void Interpreter::Define(absl::string_view name, Value value) {
  Set(name, std::move(value), &globals_);
}

absl::StatusOr<Text> Interpreter::Run(const Block& block) {
  // As in Jinja the template's own variables hide those that are given.
  Text out;
  RETURN_IF_ERROR(ExecuteBlock(block, &globals_, &out).status());
  return out;
}

void Interpreter::Set(absl::string_view name, Value value, Scope* scope) {
  for (auto& [known, old] : scope->variables) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  scope->variables.emplace_back(name, std::move(value));
}

absl::StatusOr<const Value*> Interpreter::Find(absl::string_view name,
                                               const Scope& scope) {
  for (const Scope* s = &scope; s != nullptr; s = s->outer) {
    RETURN_IF_ERROR(budget_.Spend(s->variables.size() / 16));
    for (const auto& [known, value] : s->variables) {
      if (known == name) return &value;
    }
  }
  return static_cast<const Value*>(nullptr);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteBlock(const Block& block,
                                                            Scope* scope,
                                                            Text* out) {
  for (const Statement& statement : block) {
    ASSIGN_OR_RETURN(const Flow flow, Execute(statement, scope, out));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(
    const Statement& statement, Scope* scope, Text* out) {
  const auto at_line = [&](const absl::Status& status) {
    return WithLine(statement.line, status);
  };
  RETURN_IF_ERROR(at_line(Enter()));
  const absl::Cleanup leave = [this] { --nesting_; };
  switch (statement.kind) {
    case Statement::Kind::kText:
      RETURN_IF_ERROR(at_line(AppendText(statement.text, out, &budget_)));
      return Flow::kOn;
    case Statement::Kind::kOutput: {
      ASSIGN_OR_RETURN(const Value value,
                       Evaluate(*statement.expression, *scope));
      const absl::StatusOr<Text> text = ToText(value);
      RETURN_IF_ERROR(at_line(text.status()));
      RETURN_IF_ERROR(at_line(AppendText(*text, out, &budget_)));
      return Flow::kOn;
    }
    case Statement::Kind::kIf:
      return ExecuteIf(statement, scope, out);
    case Statement::Kind::kFor:
      return ExecuteFor(statement, scope, out);
    case Statement::Kind::kSet: {
      ASSIGN_OR_RETURN(const Value value,
                       Evaluate(*statement.expression, *scope));
      RETURN_IF_ERROR(at_line(Bind(statement.target, value, scope)));
      return Flow::kOn;
    }
    case Statement::Kind::kSetBlock:
      RETURN_IF_ERROR(ExecuteSetBlock(statement, scope));
      return Flow::kOn;
    case Statement::Kind::kMacro:
      Set(statement.macro->name, Value::Macro(statement.macro.get()), scope);
      return Flow::kOn;
    case Statement::Kind::kScope: {
      Scope inner = {scope, {}};
      return ExecuteBlock(statement.blocks[0], &inner, out);
    }
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(
    const Statement& statement, Scope* scope, Text* out) {
  size_t chosen = 0;
  for (; chosen < statement.conditions.size(); ++chosen) {
    ASSIGN_OR_RETURN(const Value value,
                     Evaluate(*statement.conditions[chosen], *scope));
    if (value.IsTrue()) break;
  }
  if (chosen == statement.blocks.size()) return Flow::kOn;
  return ExecuteBlock(statement.blocks[chosen], scope, out);
}

absl::StatusOr<Value> Interpreter::LoopItems(const Statement& statement,
                                             Scope* scope) {
  ASSIGN_OR_RETURN(const Value iterable,
                   Evaluate(*statement.expression, *scope));
  absl::StatusOr<Value> items = ToList(iterable, &budget_);
  RETURN_IF_ERROR(WithLine(statement.line, items.status()));
  if (statement.conditions.empty()) return items;
  List kept;
  Scope inner = {scope, {}};
  for (const Value& item : items->list()) {
    inner.variables.clear();
    RETURN_IF_ERROR(
        WithLine(statement.line, Bind(statement.target, item, &inner)));
    ASSIGN_OR_RETURN(const Value condition,
                     Evaluate(*statement.conditions[0], inner));
    if (condition.IsTrue()) kept.push_back(item);
  }
  items = Value::MakeList(std::move(kept), &budget_);
  RETURN_IF_ERROR(WithLine(statement.line, items.status()));
  return items;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(
    const Statement& statement, Scope* scope, Text* out) {
  ASSIGN_OR_RETURN(const Value items, LoopItems(statement, scope));
  Scope inner = {scope, {}};
  if (items.list().empty()) {
    return ExecuteBlock(statement.blocks[1], &inner, out);
  }
  const int64_t size = items.list().size();
  for (int64_t i = 0; i < size; ++i) {
    // What an iteration sets ends with it.
    inner.variables.clear();
    Set("loop", Value::Loop({items, i}), &inner);
    RETURN_IF_ERROR(WithLine(statement.line,
                             Bind(statement.target, items.list()[i], &inner)));
    ASSIGN_OR_RETURN(const Flow flow,
                     ExecuteBlock(statement.blocks[0], &inner, out));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kOn;
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& statement,
                                          Scope* scope) {
  Text text;
  Scope inner = {scope, {}};
  ASSIGN_OR_RETURN(const Flow flow,
                   ExecuteBlock(statement.blocks[0], &inner, &text));
  if (flow != Flow::kOn) {
    return ErrorAt(statement.line, "a loop cannot be left from within a set");
  }
  Value value = Value::String(std::move(text));
  if (statement.expression != nullptr) {
    Scope with_subject = {scope, {{"", value}}};
    ASSIGN_OR_RETURN(value, Evaluate(*statement.expression, with_subject));
  }
  return WithLine(statement.line, Bind(statement.target, value, scope));
}

absl::Status Interpreter::Bind(const Target& target, const Value& value,
                               Scope* scope) {
  RETURN_IF_ERROR(budget_.Spend(scope->variables.size() / 16));
  if (!target.attribute.empty()) return BindAttribute(target, value, *scope);
  if (!target.unpacks) {
    Set(target.names[0], value, scope);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Value items, ToList(value, &budget_));
  if (items.list().size() != target.names.size()) {
    return Error(absl::StrCat(items.list().size(), " values for ",
                              target.names.size(), " names"));
  }
  for (size_t i = 0; i < target.names.size(); ++i) {
    Set(target.names[i], items.list()[i], scope);
  }
  return absl::OkStatus();
}

absl::Status Interpreter::BindAttribute(const Target& target,
                                        const Value& value,
                                        const Scope& scope) {
  ASSIGN_OR_RETURN(const Value* subject, Find(target.names[0], scope));
  if (subject == nullptr || !subject->Is(Value::Kind::kNamespace)) {
    return Error(absl::StrCat("'", target.names[0],
                              "' is no namespace, so no attribute of it can "
                              "be set"));
  }
  // A namespace within a namespace could hold itself.
  if (!value.IsData()) {
    return Error(
        absl::StrCat(value.KindName(), " cannot be put into a namespace"));
  }
  Namespace& attributes = *subject->name_space();
  RETURN_IF_ERROR(budget_.Spend(attributes.size() / 16));
  for (auto& [name, old] : attributes) {
    if (name != target.attribute) continue;
    old = value;
    return absl::OkStatus();
  }
  if (attributes.size() == kNamespaceAttributesMax) {
    return Error(absl::StrCat("a namespace has more than ",
                              kNamespaceAttributesMax, " attributes"));
  }
  attributes.emplace_back(target.attribute, value);
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroDefinition& macro,
                                             const Arguments& arguments) {
  std::vector<absl::string_view> names;
  for (const auto& parameter : macro.parameters) {
    names.push_back(parameter.name);
  }
  ASSIGN_OR_RETURN(const std::vector<const Value*> bound,
                   BindArguments(arguments, names));
  // It sees the template's variables, not those of its caller.
  Scope scope = {&globals_, {}};
  for (size_t i = 0; i < names.size(); ++i) {
    const ExpressionPtr& fallback = macro.parameters[i].fallback;
    Value value = Value::Undefined(names[i]);
    if (bound[i] != nullptr) {
      value = *bound[i];
    } else if (fallback != nullptr) {
      ASSIGN_OR_RETURN(value, Evaluate(*fallback, scope));
    }
    Set(names[i], std::move(value), &scope);
  }
  Text out;
  RETURN_IF_ERROR(ExecuteBlock(macro.body, &scope, &out).status());
  return Value::String(std::move(out));
}

}  // namespace jinja
}  // namespace tern
