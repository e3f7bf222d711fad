#ifndef TOOLS_PERPLEXITY_H_
#define TOOLS_PERPLEXITY_H_

#include "cli/command.h"

namespace tern {

// tern perplexity: measures how well a model predicts a text.
Command PerplexityCommand();

}  // namespace tern

#endif  // TOOLS_PERPLEXITY_H_
