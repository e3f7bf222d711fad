#include "model/jinja.h"

#include "model/jinja_interpreter.h"
#include "model/jinja_parser.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {

absl::StatusOr<Template> Template::Parse(absl::string_view source,
                                         const Limits& limits) {
  ASSIGN_OR_RETURN(Block block, ParseTemplate(source, limits));
  return Template(std::move(block), limits);
}

absl::StatusOr<Text> Template::Render(const Variables& variables) const {
  Interpreter interpreter(limits_);
  for (const auto& [name, value] : variables) interpreter.Define(name, value);
  return interpreter.Run(*block_);
}

}  // namespace jinja
}  // namespace tern
