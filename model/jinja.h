#ifndef MODEL_JINJA_H_
#define MODEL_JINJA_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja_ast.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// A template in the part of the Jinja language that chat templates use
// (docs/chat_templates.md), set up as Hugging Face sets it up.
//
// Pure: no clock, no I/O, no state between renderings. Whatever the template
// and the variables are, it ends within the limits; everything wrong is
// INVALID_ARGUMENT, with the line of the template. Immutable and thread-safe.
class Template {
 public:
  static absl::StatusOr<Template> Parse(absl::string_view source,
                                        const Limits& limits = Limits());

  // The text that the template makes of `variables`. Bytes of strings keep the
  // marks of Text on their way through it.
  absl::StatusOr<Text> Render(const Variables& variables) const;

 private:
  Template(Block block, const Limits& limits)
      : block_(std::make_shared<const Block>(std::move(block))),
        limits_(limits) {}

  std::shared_ptr<const Block> block_;
  Limits limits_;
};

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_H_
