#ifndef CLI_CHAT_H_
#define CLI_CHAT_H_

#include "cli/command.h"

namespace tern {

// tern chat: a conversation with a model, at a terminal or through a pipe.
Command ChatCommand();

}  // namespace tern

#endif  // CLI_CHAT_H_
