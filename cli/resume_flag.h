#ifndef CLI_RESUME_FLAG_H_
#define CLI_RESUME_FLAG_H_

#include "client/client.h"

namespace tern {

// Has a stream resumed as --resume says, and says so on stderr.
void SetResume(CallOptions* call);

inline constexpr char kResumeFlagFile[] = "cli/resume_flag.cc";

}  // namespace tern

#endif  // CLI_RESUME_FLAG_H_
