#ifndef MODEL_JINJA_ERROR_H_
#define MODEL_JINJA_ERROR_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace jinja {

// INVALID_ARGUMENT, for whatever a template or a conversation does wrong.
absl::Status Error(absl::string_view message);

// The same: "chat template, line 3: <message>".
absl::Status ErrorAt(int line, absl::string_view message);

// `status` with the line, unless it is OK or has one already.
absl::Status WithLine(int line, const absl::Status& status);

}  // namespace jinja
}  // namespace tern

#endif  // MODEL_JINJA_ERROR_H_
