#include "model/jinja_error.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tern {
namespace jinja {
namespace {

constexpr char kPrefix[] = "chat template, line ";

}  // namespace

absl::Status Error(absl::string_view message) {
  return absl::InvalidArgumentError(message);
}

absl::Status ErrorAt(int line, absl::string_view message) {
  return Error(absl::StrCat(kPrefix, line, ": ", message));
}

absl::Status WithLine(int line, const absl::Status& status) {
  if (status.ok() || absl::StartsWith(status.message(), kPrefix)) return status;
  return ErrorAt(line, status.message());
}

}  // namespace jinja
}  // namespace tern
