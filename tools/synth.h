#ifndef TOOLS_SYNTH_H_
#define TOOLS_SYNTH_H_

#include "cli/command.h"

namespace tern {

// tern synth: writes a model of random weights.
Command SynthCommand();

}  // namespace tern

#endif  // TOOLS_SYNTH_H_
