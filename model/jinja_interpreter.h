#ifndef MODEL_JINJA_INTERPRETER_H_
#define MODEL_JINJA_INTERPRETER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_ast.h"
#include "model/jinja_builtins.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

// Runs a template once. Not thread-safe.
class Interpreter {
 public:
  explicit Interpreter(const Limits& limits) : budget_(limits) {}

  Budget* budget() { return &budget_; }
  // A variable that the template finds. `name` outlives the interpreter.
  void Define(absl::string_view name, Value value);
  // INVALID_ARGUMENT with the line. `block` outlives the interpreter.
  absl::StatusOr<Text> Run(const Block& block);

 private:
  // Variables of a block. Inner ones hide outer ones, and end with it.
  struct Scope {
    const Scope* outer;
    // Views into the syntax tree.
    std::vector<std::pair<absl::string_view, Value>> variables;
  };
  enum class Flow { kOn, kBreak, kContinue };

  absl::StatusOr<Flow> ExecuteBlock(const Block& block, Scope* scope,
                                    Text* out);
  absl::StatusOr<Flow> Execute(const Statement& statement, Scope* scope,
                               Text* out);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement, Scope* scope,
                                 Text* out);
  absl::StatusOr<Flow> ExecuteFor(const Statement& statement, Scope* scope,
                                  Text* out);
  absl::Status ExecuteSetBlock(const Statement& statement, Scope* scope);
  // What the loop goes through, its filter applied.
  absl::StatusOr<Value> LoopItems(const Statement& statement, Scope* scope);
  absl::Status Bind(const Target& target, const Value& value, Scope* scope);
  absl::Status BindAttribute(const Target& target, const Value& value,
                             const Scope& scope);
  static void Set(absl::string_view name, Value value, Scope* scope);
  // Null when there is none.
  absl::StatusOr<const Value*> Find(absl::string_view name, const Scope& scope);

  // With the line of the innermost expression that fails.
  absl::StatusOr<Value> Evaluate(const Expression& expression,
                                 const Scope& scope);
  // Each leaves the line to its caller, except for that of its operands.
  absl::StatusOr<Value> EvaluateList(const Expression& expression,
                                     const Scope& scope);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression,
                                     const Scope& scope);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression,
                                      const Scope& scope);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression,
                                     const Scope& scope);
  absl::StatusOr<Value> EvaluateBinary(const Expression& expression,
                                       const Scope& scope);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression,
                                        const Scope& scope);
  absl::StatusOr<Value> EvaluateName(const Expression& expression,
                                     const Scope& scope);
  absl::StatusOr<Value> EvaluateKind(const Expression& expression,
                                     const Scope& scope);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& expression,
                                              const Scope& scope);
  absl::StatusOr<Value> CallMacro(const MacroDefinition& macro,
                                  const Arguments& arguments);

  absl::Status Enter();

  Budget budget_;
  Scope globals_ = {nullptr, {}};
  int nesting_ = 0;
};

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_INTERPRETER_H_
