#ifndef CLI_DRAIN_H_
#define CLI_DRAIN_H_

#include "cli/command.h"

namespace tern {

// `tern drain`: takes workers out of service, or puts them back.
Command DrainCommand();

}  // namespace tern

#endif  // CLI_DRAIN_H_
