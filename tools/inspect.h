#ifndef TOOLS_INSPECT_H_
#define TOOLS_INSPECT_H_

#include "cli/command.h"

namespace tern {

// tern inspect: says what a model is and needs.
Command InspectCommand();

}  // namespace tern

#endif  // TOOLS_INSPECT_H_
