#ifndef CLI_BENCH_H_
#define CLI_BENCH_H_

#include <string>
#include <vector>

#include "cli/command.h"

namespace tern {

// `tern bench WHAT [FLAGS]`: becomes one of the programs of bench/. `words` are
// what follows `bench`; `help` asks for the flags instead.
ExitCode RunBench(const std::vector<std::string>& words, bool help);

}  // namespace tern

#endif  // CLI_BENCH_H_
