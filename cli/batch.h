#ifndef CLI_BATCH_H_
#define CLI_BATCH_H_

#include "cli/command.h"

namespace tern {

// tern batch: answers a file of prompts, each once, however often it is
// interrupted.
Command BatchCommand();

}  // namespace tern

#endif  // CLI_BATCH_H_
