#ifndef MODEL_JINJA_EXPRESSION_PARSER_H_
#define MODEL_JINJA_EXPRESSION_PARSER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/jinja_ast.h"
#include "model/jinja_cursor.h"

namespace tern {
namespace jinja {

// Reads expressions, as Jinja binds their operators.
class ExpressionParser {
 public:
  // `cursor` outlives the parser. No expression is deeper than `nesting_max`
  // brackets or operators of different rank.
  ExpressionParser(TokenCursor* cursor, int nesting_max)
      : cursor_(*cursor), nesting_max_(nesting_max) {}

  absl::StatusOr<ExpressionPtr> Parse();
  // An expression, or several with commas: a list. Without
  // `allows_conditional` an `if` behind it belongs to somebody else.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool allows_conditional);
  // `subject | filter | filter`, from the first filter's bar on.
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr subject);

 private:
  using Result = absl::StatusOr<ExpressionPtr>;
  using Step = Result (ExpressionParser::*)();

  Result ParseConditional();
  Result ParseOr();
  Result ParseAnd();
  Result ParseNot();
  Result ParseComparison();
  Result ParseSum();
  Result ParseConcat();
  Result ParseProduct();
  Result ParseUnary(bool with_filters);
  Result ParsePrimary();
  Result ParsePostfix(ExpressionPtr subject);
  Result ParseFiltersAndTests(ExpressionPtr subject);
  Result ParseFilter(ExpressionPtr subject);
  Result ParseTest(ExpressionPtr subject);
  Result ParseSubscript(ExpressionPtr subject);
  Result ParseParenthesized();
  Result ParseListLiteral();
  Result ParseDictLiteral();
  // From "(" to ")", onto the operands and named ones of `call`.
  absl::Status ParseArguments(Expression* call);
  absl::Status Enter();
  Result Finish(std::unique_ptr<Expression> node) const;
  Result Binary(Expression::Kind kind, ExpressionPtr left, ExpressionPtr right,
                std::vector<Operator> operators, int line) const;

  TokenCursor& cursor_;
  const int nesting_max_;
  int nesting_ = 0;
};

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_EXPRESSION_PARSER_H_
