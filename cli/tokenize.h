#ifndef CLI_TOKENIZE_H_
#define CLI_TOKENIZE_H_

#include "cli/command.h"

namespace tern {

// tern tokenize: shows a text as a model's tokens.
Command TokenizeCommand();

}  // namespace tern

#endif  // CLI_TOKENIZE_H_
