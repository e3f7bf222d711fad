#include "model/jinja_parser.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "model/jinja_cursor.h"
#include "model/jinja_error.h"
#include "model/jinja_expression_parser.h"
#include "model/jinja_lexer.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Statement::Kind;

class Parser {
 public:
  Parser(std::vector<Token> tokens, int nesting_max)
      : cursor_(std::move(tokens)),
        expressions_(&cursor_, nesting_max),
        nesting_max_(nesting_max) {}

  absl::StatusOr<Block> Run();

 private:
  // Up to a tag whose first word is one of `ends`; that word is the next token.
  absl::StatusOr<Block> ParseBlock(absl::Span<const absl::string_view> ends);
  // The same, and takes the word.
  absl::StatusOr<Block> ParseBlockAndEnd(absl::string_view end);
  // From the word of the tag to the end of the statement.
  absl::StatusOr<Statement> ParseStatement();
  absl::Status ParseIf(Statement* statement);
  absl::Status ParseFor(Statement* statement);
  absl::Status ParseSet(Statement* statement);
  absl::Status ParseMacro(Statement* statement);
  absl::Status ParseFilterBlock(Statement* statement);
  absl::Status ParseTarget(bool allows_attribute, Target* target);
  absl::Status EndTag() { return cursor_.Expect(TokenKind::kBlockEnd); }

  TokenCursor cursor_;
  ExpressionParser expressions_;
  const int nesting_max_;
  int nesting_ = 0;
  int loops_ = 0;
  bool is_in_macro_ = false;
};

// What block filters work on: the name that no template can spell.
ExpressionPtr BlockSubject(int line) {
  auto node = std::make_unique<Expression>();
  node->kind = Expression::Kind::kName;
  node->line = line;
  node->depth = 1;
  return node;
}

absl::StatusOr<Block> Parser::Run() {
  ASSIGN_OR_RETURN(Block block, ParseBlock({}));
  if (!cursor_.Is(TokenKind::kEnd)) {
    return cursor_.FailExpecting("the end of the template");
  }
  return block;
}

absl::StatusOr<Block> Parser::ParseBlock(
    absl::Span<const absl::string_view> ends) {
  if (++nesting_ > nesting_max_) {
    return cursor_.Fail(
        absl::StrCat("blocks are nested deeper than ", nesting_max_));
  }
  Block block;
  for (;;) {
    Statement statement;
    statement.line = cursor_.current().line;
    if (cursor_.Is(TokenKind::kText)) {
      statement.kind = Kind::kText;
      statement.text = Text(cursor_.current().text);
      cursor_.Advance();
    } else if (cursor_.Is(TokenKind::kOutputBegin)) {
      statement.kind = Kind::kOutput;
      cursor_.Advance();
      ASSIGN_OR_RETURN(statement.expression, expressions_.ParseTuple(true));
      RETURN_IF_ERROR(cursor_.Expect(TokenKind::kOutputEnd));
    } else if (cursor_.Is(TokenKind::kBlockBegin)) {
      cursor_.Advance();
      for (absl::string_view end : ends) {
        if (!cursor_.IsName(end)) continue;
        --nesting_;
        return block;
      }
      ASSIGN_OR_RETURN(statement, ParseStatement());
    } else if (ends.empty()) {
      --nesting_;
      return block;
    } else {
      return cursor_.FailExpecting(absl::StrCat("'", ends.back(), "'"));
    }
    block.push_back(std::move(statement));
  }
}

absl::StatusOr<Block> Parser::ParseBlockAndEnd(absl::string_view end) {
  ASSIGN_OR_RETURN(Block block, ParseBlock({end}));
  cursor_.Advance();
  return block;
}

absl::StatusOr<Statement> Parser::ParseStatement() {
  Statement statement;
  statement.line = cursor_.current().line;
  ASSIGN_OR_RETURN(const std::string word, cursor_.ExpectAnyName());
  if (word == "if") {
    RETURN_IF_ERROR(ParseIf(&statement));
  } else if (word == "for") {
    RETURN_IF_ERROR(ParseFor(&statement));
  } else if (word == "set") {
    RETURN_IF_ERROR(ParseSet(&statement));
  } else if (word == "macro") {
    RETURN_IF_ERROR(ParseMacro(&statement));
  } else if (word == "filter") {
    RETURN_IF_ERROR(ParseFilterBlock(&statement));
  } else if (word == "generation") {
    // Marks what a model said, for training. Here it is a block.
    RETURN_IF_ERROR(EndTag());
    statement.kind = Kind::kScope;
    ASSIGN_OR_RETURN(Block body, ParseBlockAndEnd("endgeneration"));
    statement.blocks.push_back(std::move(body));
  } else if (word == "break" || word == "continue") {
    if (loops_ == 0) {
      return ErrorAt(statement.line,
                     absl::StrCat("'", word, "' stands outside of a loop"));
    }
    statement.kind = word == "break" ? Kind::kBreak : Kind::kContinue;
  } else {
    return ErrorAt(statement.line,
                   absl::StrCat("the statement '", word.substr(0, 40),
                                "' is not offered"));
  }
  RETURN_IF_ERROR(EndTag());
  return statement;
}

absl::Status Parser::ParseIf(Statement* statement) {
  statement->kind = Kind::kIf;
  for (;;) {
    ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.ParseTuple(true));
    statement->conditions.push_back(std::move(condition));
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(Block body, ParseBlock({"elif", "else", "endif"}));
    statement->blocks.push_back(std::move(body));
    if (!cursor_.TakeName("elif")) break;
  }
  if (cursor_.TakeName("else")) {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(Block body, ParseBlock({"endif"}));
    statement->blocks.push_back(std::move(body));
  }
  return cursor_.ExpectName("endif");
}

absl::Status Parser::ParseFor(Statement* statement) {
  statement->kind = Kind::kFor;
  RETURN_IF_ERROR(ParseTarget(false, &statement->target));
  RETURN_IF_ERROR(cursor_.ExpectName("in"));
  ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple(false));
  if (cursor_.TakeName("if")) {
    ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.Parse());
    statement->conditions.push_back(std::move(condition));
  }
  if (cursor_.IsName("recursive")) {
    return cursor_.Fail("recursive loops are not offered");
  }
  RETURN_IF_ERROR(EndTag());
  ++loops_;
  ASSIGN_OR_RETURN(Block body, ParseBlock({"else", "endfor"}));
  --loops_;
  statement->blocks.push_back(std::move(body));
  Block otherwise;
  if (cursor_.TakeName("else")) {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(otherwise, ParseBlock({"endfor"}));
  }
  statement->blocks.push_back(std::move(otherwise));
  return cursor_.ExpectName("endfor");
}

absl::Status Parser::ParseSet(Statement* statement) {
  RETURN_IF_ERROR(ParseTarget(true, &statement->target));
  if (cursor_.TakeOperator("=")) {
    statement->kind = Kind::kSet;
    ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple(true));
    return absl::OkStatus();
  }
  statement->kind = Kind::kSetBlock;
  if (cursor_.IsOperator("|")) {
    ASSIGN_OR_RETURN(statement->expression,
                     expressions_.ParseFilters(BlockSubject(statement->line)));
  }
  RETURN_IF_ERROR(EndTag());
  ASSIGN_OR_RETURN(Block body, ParseBlockAndEnd("endset"));
  statement->blocks.push_back(std::move(body));
  return absl::OkStatus();
}

absl::Status Parser::ParseMacro(Statement* statement) {
  // Elsewhere they would have to remember the variables around them.
  if (loops_ > 0 || is_in_macro_) {
    return cursor_.Fail("a macro cannot be defined in a loop or a macro");
  }
  statement->kind = Kind::kMacro;
  auto macro = std::make_unique<MacroDefinition>();
  ASSIGN_OR_RETURN(macro->name, cursor_.ExpectAnyName());
  RETURN_IF_ERROR(cursor_.ExpectOperator("("));
  while (!cursor_.IsOperator(")")) {
    MacroDefinition::Parameter parameter;
    ASSIGN_OR_RETURN(parameter.name, cursor_.ExpectAnyName());
    if (cursor_.TakeOperator("=")) {
      ASSIGN_OR_RETURN(parameter.fallback, expressions_.Parse());
    } else if (!macro->parameters.empty() &&
               macro->parameters.back().fallback != nullptr) {
      return cursor_.Fail("parameters without a default come before others");
    }
    macro->parameters.push_back(std::move(parameter));
    if (!cursor_.TakeOperator(",")) break;
  }
  RETURN_IF_ERROR(cursor_.ExpectOperator(")"));
  RETURN_IF_ERROR(EndTag());
  is_in_macro_ = true;
  ASSIGN_OR_RETURN(macro->body, ParseBlock({"endmacro"}));
  is_in_macro_ = false;
  cursor_.Advance();
  statement->macro = std::move(macro);
  return absl::OkStatus();
}

// {% filter f %}...{% endfilter %}: sets the unspeakable name, prints it.
absl::Status Parser::ParseFilterBlock(Statement* statement) {
  const int line = statement->line;
  auto node = std::make_unique<Expression>();
  node->kind = Expression::Kind::kFilter;
  node->line = line;
  node->depth = 2;
  node->operands.push_back(BlockSubject(line));
  ASSIGN_OR_RETURN(node->name, cursor_.ExpectAnyName());
  RETURN_IF_ERROR(EndTag());
  Statement set;
  set.kind = Kind::kSetBlock;
  set.line = line;
  set.target.names.push_back("");
  ASSIGN_OR_RETURN(Block body, ParseBlockAndEnd("endfilter"));
  set.blocks.push_back(std::move(body));
  Statement print;
  print.kind = Kind::kOutput;
  print.line = line;
  print.expression = std::move(node);
  statement->kind = Kind::kScope;
  statement->blocks.emplace_back();
  statement->blocks[0].push_back(std::move(set));
  statement->blocks[0].push_back(std::move(print));
  return absl::OkStatus();
}

absl::Status Parser::ParseTarget(bool allows_attribute, Target* target) {
  const bool has_parenthesis = cursor_.TakeOperator("(");
  do {
    ASSIGN_OR_RETURN(std::string name, cursor_.ExpectAnyName());
    if (name == "true" || name == "false" || name == "none" || name == "True" ||
        name == "False" || name == "None" || name == "loop") {
      return cursor_.Fail(absl::StrCat("'", name, "' cannot be set"));
    }
    target->names.push_back(std::move(name));
    if (allows_attribute && target->names.size() == 1 &&
        cursor_.TakeOperator(".")) {
      ASSIGN_OR_RETURN(target->attribute, cursor_.ExpectAnyName());
      return absl::OkStatus();
    }
  } while (cursor_.TakeOperator(",") && (target->unpacks = true));
  return has_parenthesis ? cursor_.ExpectOperator(")") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<Block> ParseTemplate(absl::string_view source,
                                    const Limits& limits) {
  if (source.size() > static_cast<size_t>(limits.source_bytes_max)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the chat template has ", source.size(), " bytes; at most ",
        limits.source_bytes_max, " are allowed"));
  }
  const size_t invalid = FindInvalidUtf8(source);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the chat template is not UTF-8 at byte offset ", invalid));
  }
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens), limits.nesting_max).Run();
}

}  // namespace jinja
}  // namespace tern
