#ifndef TOOLS_CONVERT_H_
#define TOOLS_CONVERT_H_

#include "cli/command.h"

namespace tern {

// tern convert: writes a model again with other ternary types.
Command ConvertCommand();

}  // namespace tern

#endif  // TOOLS_CONVERT_H_
