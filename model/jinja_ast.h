#ifndef MODEL_JINJA_AST_H_
#define MODEL_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/jinja_text.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kConcat,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

// A node of an expression. `operands` holds, by kind:
struct Expression {
  enum class Kind {
    kConstant,     // -; `constant`
    kName,         // -; `name`
    kList,         // the items
    kDict,         // key, value, key, value ...
    kAttribute,    // the subject; `name`
    kItem,         // subject, key
    kSlice,        // subject, begin, end, step; the bounds may be null
    kCall,         // callee, positional arguments ...; `named`
    kFilter,       // subject, positional arguments ...; `name`, `named`
    kTest,         // the same
    kNot,          // one
    kNegate,       // one
    kPlus,         // one
    kAnd,          // two
    kOr,           // two
    kBinary,       // two; operators[0]
    kCompare,      // n + 1; n operators
    kConditional,  // value, condition, other value, which may be null
  };

  Kind kind;
  int line;
  int depth;  // of the tree below, from 1
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<Operator> operators;
};

// What `set` and `for` bind: names, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  bool unpacks = false;   // a list of as many items as names
  std::string attribute;  // of the namespace names[0], unless empty
};

struct Statement;
using Block = std::vector<Statement>;

// name(parameters) of a macro.
struct MacroDefinition {
  struct Parameter {
    std::string name;
    ExpressionPtr fallback;  // may be null
  };
  std::string name;
  std::vector<Parameter> parameters;
  std::vector<Statement> body;
};

struct Statement {
  enum class Kind {
    kText,      // `text`
    kOutput,    // `expression`
    kIf,        // conditions[i] for blocks[i]; one block more is the else
    kFor,       // blocks[0], blocks[1] when there are no items; `expression`
                // is gone through, `conditions[0]`, if there, filters it
    kSet,       // `target` to `expression`
    kSetBlock,  // `target` to what blocks[0] prints, through `expression`,
                // filters upon a missing subject, unless null
    kMacro,     // `macro`
    kScope,     // blocks[0]
    kBreak,
    kContinue,
  };

  Kind kind;
  int line;
  Text text;
  ExpressionPtr expression;
  Target target;
  std::vector<ExpressionPtr> conditions;
  std::vector<Block> blocks;
  std::unique_ptr<const MacroDefinition> macro;
};

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_AST_H_
