#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/chunked_write.h"
#include "tools/shared_flags.h"

ABSL_FLAG(bool, force, false, "Replaces the output file if there is one.");
ABSL_FLAG(std::string, type, "i2_s",
          "Type of ternary matrices in the output: i2_s, tq1_0 or tq2_0.");

namespace tern {

absl::StatusOr<TernaryFormat> TypeFromFlag() {
  const std::string name = absl::GetFlag(FLAGS_type);
  TernaryFormat format;
  if (!ParseTernaryFormat(name, &format)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--type is \"", name, "\"; there are i2_s, tq1_0 and tq2_0"));
  }
  return format;
}

}  // namespace tern
