#ifndef TOOLS_SHARED_FLAGS_H_
#define TOOLS_SHARED_FLAGS_H_

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/ternary_codec.h"

// Flags that several commands take.
ABSL_DECLARE_FLAG(bool, force);

namespace tern {

inline constexpr char kOutputFlagsFile[] = "tools/output_flags.cc";
inline constexpr char kThreadsFlagFile[] = "tools/threads_flag.cc";

// --type. INVALID_ARGUMENT for another name.
absl::StatusOr<TernaryFormat> TypeFromFlag();

// --threads, or all processors that the process may use. INVALID_ARGUMENT for a
// number that cannot be.
absl::StatusOr<int> ThreadsFromFlag();

}  // namespace tern

#endif  // TOOLS_SHARED_FLAGS_H_
