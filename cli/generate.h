#ifndef CLI_GENERATE_H_
#define CLI_GENERATE_H_

#include "cli/command.h"

namespace tern {

// tern generate: streams a model's answer to a prompt.
Command GenerateCommand();

}  // namespace tern

#endif  // CLI_GENERATE_H_
