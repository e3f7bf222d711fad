#ifndef CLI_GENERATION_FLAGS_H_
#define CLI_GENERATION_FLAGS_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/arguments.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// Fills in sampling and stopping of a request from the flags that every
// generating command has: --temperature, --seed, --max_tokens, --stop and their
// like. What the user left out is left out: the defaults are the cluster's.
// INVALID_ARGUMENT names the flag and what is wrong with it.
absl::Status SetGenerationParameters(const Arguments& arguments,
                                     v1::GenerateRequest* request);

// --wait: how long to wait for a cluster that is loading; zero not at all.
absl::Duration WaitFromFlag();

inline constexpr char kGenerationFlagsFile[] = "cli/generation_flags.cc";

}  // namespace tern

#endif  // CLI_GENERATION_FLAGS_H_
