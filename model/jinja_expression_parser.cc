#include "model/jinja_expression_parser.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "model/jinja_error.h"
#include "model/jinja_lexer.h"
#include "model/jinja_value.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Expression::Kind;

// Chains of one operator, such as a + b + c, are as deep as they are long.
constexpr int kChainFactor = 2;

std::unique_ptr<Expression> NewNode(Kind kind, int line) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  node->depth = 1;
  return node;
}

absl::optional<Operator> ComparisonOf(const Token& token) {
  if (token.kind != TokenKind::kOperator) return absl::nullopt;
  if (token.text == "==") return Operator::kEqual;
  if (token.text == "!=") return Operator::kNotEqual;
  if (token.text == "<") return Operator::kLess;
  if (token.text == "<=") return Operator::kLessEqual;
  if (token.text == ">") return Operator::kGreater;
  if (token.text == ">=") return Operator::kGreaterEqual;
  return absl::nullopt;
}

}  // namespace

absl::Status ExpressionParser::Enter() {
  // What fails here ends the whole parse, so nobody leaves.
  if (++nesting_ > nesting_max_) {
    return cursor_.Fail(
        absl::StrCat("an expression is nested deeper than ", nesting_max_));
  }
  return absl::OkStatus();
}

ExpressionParser::Result ExpressionParser::Finish(
    std::unique_ptr<Expression> node) const {
  int depth = 0;
  for (const ExpressionPtr& operand : node->operands) {
    if (operand != nullptr) depth = std::max(depth, operand->depth);
  }
  for (const auto& [name, operand] : node->named) {
    depth = std::max(depth, operand->depth);
  }
  node->depth = depth + 1;
  if (node->depth > kChainFactor * nesting_max_) {
    return ErrorAt(node->line, absl::StrCat("an expression is deeper than ",
                                            kChainFactor * nesting_max_));
  }
  return ExpressionPtr(std::move(node));
}

ExpressionParser::Result ExpressionParser::Binary(
    Kind kind, ExpressionPtr left, ExpressionPtr right,
    std::vector<Operator> operators, int line) const {
  auto node = NewNode(kind, line);
  node->operands.push_back(std::move(left));
  node->operands.push_back(std::move(right));
  node->operators = std::move(operators);
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::Parse() {
  return ParseConditional();
}

ExpressionParser::Result ExpressionParser::ParseTuple(bool allows_conditional) {
  const int line = cursor_.current().line;
  const Step one = allows_conditional ? &ExpressionParser::ParseConditional
                                      : &ExpressionParser::ParseOr;
  ASSIGN_OR_RETURN(ExpressionPtr first, (this->*one)());
  if (!cursor_.IsOperator(",")) return first;
  auto list = NewNode(Kind::kList, line);
  list->operands.push_back(std::move(first));
  while (cursor_.TakeOperator(",")) {
    // A comma may be the last thing.
    if (cursor_.Is(TokenKind::kBlockEnd) || cursor_.Is(TokenKind::kOutputEnd) ||
        cursor_.IsOperator(")")) {
      break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr item, (this->*one)());
    list->operands.push_back(std::move(item));
  }
  return Finish(std::move(list));
}

ExpressionParser::Result ExpressionParser::ParseConditional() {
  RETURN_IF_ERROR(Enter());
  const absl::Cleanup leave = [this] { --nesting_; };
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (cursor_.IsName("if")) {
    auto node = NewNode(Kind::kConditional, cursor_.current().line);
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr other;
    if (cursor_.TakeName("else")) {
      ASSIGN_OR_RETURN(other, ParseConditional());
    }
    node->operands.push_back(std::move(value));
    node->operands.push_back(std::move(condition));
    node->operands.push_back(std::move(other));
    ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  return value;
}

ExpressionParser::Result ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (cursor_.IsName("or")) {
    const int line = cursor_.current().line;
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    ASSIGN_OR_RETURN(
        left, Binary(Kind::kOr, std::move(left), std::move(right), {}, line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (cursor_.IsName("and")) {
    const int line = cursor_.current().line;
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    ASSIGN_OR_RETURN(
        left, Binary(Kind::kAnd, std::move(left), std::move(right), {}, line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseNot() {
  if (!cursor_.IsName("not")) return ParseComparison();
  RETURN_IF_ERROR(Enter());
  const absl::Cleanup leave = [this] { --nesting_; };
  auto node = NewNode(Kind::kNot, cursor_.current().line);
  cursor_.Advance();
  ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  node->operands.push_back(std::move(operand));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseComparison() {
  auto node = NewNode(Kind::kCompare, cursor_.current().line);
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  node->operands.push_back(std::move(first));
  for (;;) {
    const Token& token = cursor_.current();
    if (const auto comparison = ComparisonOf(token)) {
      node->operators.push_back(*comparison);
    } else if (cursor_.IsName("in")) {
      node->operators.push_back(Operator::kIn);
    } else if (cursor_.IsName("not") && cursor_.next().text == "in" &&
               cursor_.next().kind == TokenKind::kName) {
      node->operators.push_back(Operator::kNotIn);
      cursor_.Advance();
    } else {
      break;
    }
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    node->operands.push_back(std::move(operand));
  }
  if (node->operators.empty()) return std::move(node->operands[0]);
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseSum() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (cursor_.IsOperator("+") || cursor_.IsOperator("-")) {
    const int line = cursor_.current().line;
    const Operator sign =
        cursor_.IsOperator("+") ? Operator::kAdd : Operator::kSubtract;
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    ASSIGN_OR_RETURN(left, Binary(Kind::kBinary, std::move(left),
                                  std::move(right), {sign}, line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseConcat() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseProduct());
  while (cursor_.IsOperator("~")) {
    const int line = cursor_.current().line;
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseProduct());
    ASSIGN_OR_RETURN(left, Binary(Kind::kBinary, std::move(left),
                                  std::move(right), {Operator::kConcat}, line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseProduct() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
  for (;;) {
    const int line = cursor_.current().line;
    Operator op;
    if (cursor_.IsOperator("*")) {
      op = Operator::kMultiply;
    } else if (cursor_.IsOperator("/")) {
      op = Operator::kDivide;
    } else if (cursor_.IsOperator("//")) {
      op = Operator::kFloorDivide;
    } else if (cursor_.IsOperator("%")) {
      op = Operator::kModulo;
    } else if (cursor_.IsOperator("**")) {
      return cursor_.Fail("the operator ** is not offered");
    } else {
      return left;
    }
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
    ASSIGN_OR_RETURN(left, Binary(Kind::kBinary, std::move(left),
                                  std::move(right), {op}, line));
  }
}

ExpressionParser::Result ExpressionParser::ParseUnary(bool with_filters) {
  RETURN_IF_ERROR(Enter());
  const absl::Cleanup leave = [this] { --nesting_; };
  ExpressionPtr node;
  if (cursor_.IsOperator("-") || cursor_.IsOperator("+")) {
    auto sign = NewNode(cursor_.IsOperator("-") ? Kind::kNegate : Kind::kPlus,
                        cursor_.current().line);
    cursor_.Advance();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    sign->operands.push_back(std::move(operand));
    ASSIGN_OR_RETURN(node, Finish(std::move(sign)));
  } else {
    ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filters) return node;
  return ParseFiltersAndTests(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParsePrimary() {
  const Token& token = cursor_.current();
  auto node = NewNode(Kind::kConstant, token.line);
  switch (token.kind) {
    case TokenKind::kName:
      if (token.text == "true" || token.text == "True") {
        node->constant = Value::Bool(true);
      } else if (token.text == "false" || token.text == "False") {
        node->constant = Value::Bool(false);
      } else if (token.text == "none" || token.text == "None") {
        node->constant = Value::None();
      } else {
        node->kind = Kind::kName;
        node->name = token.text;
      }
      cursor_.Advance();
      return Finish(std::move(node));
    case TokenKind::kString: {
      std::string text;
      for (; cursor_.Is(TokenKind::kString); cursor_.Advance()) {
        text += cursor_.current().text;
      }
      node->constant = Value::String(text);
      return Finish(std::move(node));
    }
    case TokenKind::kInteger:
      node->constant = Value::Int(token.integer);
      cursor_.Advance();
      return Finish(std::move(node));
    case TokenKind::kFloat: {
      ASSIGN_OR_RETURN(node->constant, Value::Float(token.number));
      cursor_.Advance();
      return Finish(std::move(node));
    }
    case TokenKind::kOperator:
      if (token.text == "(") return ParseParenthesized();
      if (token.text == "[") return ParseListLiteral();
      if (token.text == "{") return ParseDictLiteral();
      break;
    default:
      break;
  }
  return cursor_.FailExpecting("an expression");
}

ExpressionParser::Result ExpressionParser::ParseParenthesized() {
  const int line = cursor_.current().line;
  cursor_.Advance();
  if (cursor_.TakeOperator(")")) return Finish(NewNode(Kind::kList, line));
  ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(true));
  RETURN_IF_ERROR(cursor_.ExpectOperator(")"));
  return inner;
}

ExpressionParser::Result ExpressionParser::ParseListLiteral() {
  auto list = NewNode(Kind::kList, cursor_.current().line);
  cursor_.Advance();
  while (!cursor_.IsOperator("]")) {
    ASSIGN_OR_RETURN(ExpressionPtr item, Parse());
    list->operands.push_back(std::move(item));
    if (!cursor_.TakeOperator(",")) break;
  }
  RETURN_IF_ERROR(cursor_.ExpectOperator("]"));
  return Finish(std::move(list));
}

ExpressionParser::Result ExpressionParser::ParseDictLiteral() {
  auto dict = NewNode(Kind::kDict, cursor_.current().line);
  cursor_.Advance();
  while (!cursor_.IsOperator("}")) {
    ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    RETURN_IF_ERROR(cursor_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    dict->operands.push_back(std::move(key));
    dict->operands.push_back(std::move(value));
    if (!cursor_.TakeOperator(",")) break;
  }
  RETURN_IF_ERROR(cursor_.ExpectOperator("}"));
  return Finish(std::move(dict));
}

ExpressionParser::Result ExpressionParser::ParsePostfix(ExpressionPtr subject) {
  for (;;) {
    const int line = cursor_.current().line;
    if (cursor_.TakeOperator(".")) {
      auto node = NewNode(Kind::kAttribute, line);
      node->operands.push_back(std::move(subject));
      if (cursor_.Is(TokenKind::kInteger)) {
        auto key = NewNode(Kind::kConstant, line);
        key->constant = Value::Int(cursor_.current().integer);
        node->kind = Kind::kItem;
        node->operands.push_back(std::move(key));
        cursor_.Advance();
      } else {
        ASSIGN_OR_RETURN(node->name, cursor_.ExpectAnyName());
      }
      ASSIGN_OR_RETURN(subject, Finish(std::move(node)));
    } else if (cursor_.IsOperator("[")) {
      ASSIGN_OR_RETURN(subject, ParseSubscript(std::move(subject)));
    } else if (cursor_.IsOperator("(")) {
      auto node = NewNode(Kind::kCall, line);
      node->operands.push_back(std::move(subject));
      RETURN_IF_ERROR(ParseArguments(node.get()));
      ASSIGN_OR_RETURN(subject, Finish(std::move(node)));
    } else {
      return subject;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseSubscript(
    ExpressionPtr subject) {
  auto node = NewNode(Kind::kItem, cursor_.current().line);
  node->operands.push_back(std::move(subject));
  cursor_.Advance();
  ExpressionPtr part;
  if (!cursor_.IsOperator(":")) {
    ASSIGN_OR_RETURN(part, Parse());
    if (!cursor_.IsOperator(":")) {
      node->operands.push_back(std::move(part));
      RETURN_IF_ERROR(cursor_.ExpectOperator("]"));
      return Finish(std::move(node));
    }
  }
  node->kind = Kind::kSlice;
  node->operands.push_back(std::move(part));
  for (int i = 0; i < 2; ++i) {
    ExpressionPtr bound;
    if (cursor_.TakeOperator(":") && !cursor_.IsOperator(":") &&
        !cursor_.IsOperator("]")) {
      ASSIGN_OR_RETURN(bound, Parse());
    }
    node->operands.push_back(std::move(bound));
  }
  RETURN_IF_ERROR(cursor_.ExpectOperator("]"));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseFiltersAndTests(
    ExpressionPtr subject) {
  for (;;) {
    if (cursor_.IsOperator("|")) {
      ASSIGN_OR_RETURN(subject, ParseFilter(std::move(subject)));
    } else if (cursor_.IsName("is")) {
      ASSIGN_OR_RETURN(subject, ParseTest(std::move(subject)));
    } else if (cursor_.IsOperator("(")) {
      auto node = NewNode(Kind::kCall, cursor_.current().line);
      node->operands.push_back(std::move(subject));
      RETURN_IF_ERROR(ParseArguments(node.get()));
      ASSIGN_OR_RETURN(subject, Finish(std::move(node)));
    } else {
      return subject;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseFilters(ExpressionPtr subject) {
  while (cursor_.IsOperator("|")) {
    ASSIGN_OR_RETURN(subject, ParseFilter(std::move(subject)));
  }
  return subject;
}

ExpressionParser::Result ExpressionParser::ParseFilter(ExpressionPtr subject) {
  auto node = NewNode(Kind::kFilter, cursor_.current().line);
  cursor_.Advance();
  // The subject of a block's filter is not there yet.
  node->operands.push_back(std::move(subject));
  ASSIGN_OR_RETURN(node->name, cursor_.ExpectAnyName());
  if (cursor_.IsOperator("(")) RETURN_IF_ERROR(ParseArguments(node.get()));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseTest(ExpressionPtr subject) {
  const int line = cursor_.current().line;
  cursor_.Advance();
  const bool is_negated = cursor_.TakeName("not");
  auto node = NewNode(Kind::kTest, line);
  node->operands.push_back(std::move(subject));
  ASSIGN_OR_RETURN(node->name, cursor_.ExpectAnyName());
  // `is divisibleby(3)`, `is divisibleby 3`.
  const bool ends = cursor_.IsName("else") || cursor_.IsName("or") ||
                    cursor_.IsName("and") || cursor_.IsName("if") ||
                    cursor_.IsName("not") || cursor_.IsName("in");
  if (cursor_.IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(node.get()));
  } else if (cursor_.IsName("is")) {
    return cursor_.Fail("tests cannot follow one another; use 'and'");
  } else if (!ends &&
             (cursor_.Is(TokenKind::kName) || cursor_.Is(TokenKind::kString) ||
              cursor_.Is(TokenKind::kInteger) ||
              cursor_.Is(TokenKind::kFloat) || cursor_.IsOperator("[") ||
              cursor_.IsOperator("{"))) {
    RETURN_IF_ERROR(Enter());
    const absl::Cleanup leave = [this] { --nesting_; };
    ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->operands.push_back(std::move(argument));
  }
  if (!is_negated) return Finish(std::move(node));
  auto negation = NewNode(Kind::kNot, line);
  ASSIGN_OR_RETURN(ExpressionPtr test, Finish(std::move(node)));
  negation->operands.push_back(std::move(test));
  return Finish(std::move(negation));
}

absl::Status ExpressionParser::ParseArguments(Expression* call) {
  RETURN_IF_ERROR(Enter());
  const absl::Cleanup leave = [this] { --nesting_; };
  RETURN_IF_ERROR(cursor_.ExpectOperator("("));
  while (!cursor_.IsOperator(")")) {
    if (cursor_.IsOperator("*") || cursor_.IsOperator("**")) {
      return cursor_.Fail("arguments by * and ** are not offered");
    }
    const bool is_named = cursor_.Is(TokenKind::kName) &&
                          cursor_.next().kind == TokenKind::kOperator &&
                          cursor_.next().text == "=";
    if (is_named) {
      ASSIGN_OR_RETURN(std::string name, cursor_.ExpectAnyName());
      RETURN_IF_ERROR(cursor_.ExpectOperator("="));
      ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      call->named.emplace_back(std::move(name), std::move(value));
    } else if (!call->named.empty()) {
      return cursor_.Fail("arguments without a name come before named ones");
    } else {
      ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      call->operands.push_back(std::move(value));
    }
    if (!cursor_.TakeOperator(",")) break;
  }
  return cursor_.ExpectOperator(")");
}

}  // namespace jinja
}  // namespace tern
