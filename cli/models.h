#ifndef CLI_MODELS_H_
#define CLI_MODELS_H_

#include "cli/command.h"

namespace tern {

// `tern models`: lists, loads and unloads models.
Command ModelsCommand();

}  // namespace tern

#endif  // CLI_MODELS_H_
