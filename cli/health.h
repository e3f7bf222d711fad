#ifndef CLI_HEALTH_H_
#define CLI_HEALTH_H_

#include "cli/command.h"

namespace tern {

// tern health: asks a server's health service, for probes of containers.
Command HealthCommand();

}  // namespace tern

#endif  // CLI_HEALTH_H_
