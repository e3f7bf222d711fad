// tern_model: the commands of `tern` that work on model files. `tern` runs it.

#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/report.h"
#include "tools/convert.h"
#include "tools/inspect.h"
#include "tools/interrupt.h"
#include "tools/perplexity.h"
#include "tools/synth.h"
#include "util/flags_help.h"

namespace tern {
namespace {

constexpr char kExitCodes[] = R"(
Exit codes: 0 done; 1 it failed; 2 wrong command line; 130 interrupted.
)";

void PrintOverview(const std::vector<Command>& commands) {
  std::cout << "usage: tern COMMAND [FLAGS] [ARGUMENTS]\n\n"
               "Works on model files.\n\n";
  for (const Command& command : commands) {
    std::cout << absl::StrFormat("  %-12s%s\n", command.name, command.summary);
  }
  std::cout << "  help        say more about a command\n" << kExitCodes;
}

void PrintHelp(const Command& command) {
  std::cout << command.usage << "\nFlags, with their defaults:\n"
            << FlagsHelp(command.flag_files) << kExitCodes;
}

ExitCode Main(std::vector<std::string> words) {
  const std::vector<Command> commands = {InspectCommand(), ConvertCommand(),
                                         SynthCommand(), PerplexityCommand()};
  bool help = !words.empty() &&
              (words[0] == "help" || words[0] == "--help" || words[0] == "-h");
  if (help) words.erase(words.begin());
  if (words.empty()) {
    PrintOverview(commands);
    return help ? kExitOk : kExitUsage;
  }
  const std::string name = words[0];
  words.erase(words.begin());
  for (const Command& command : commands) {
    if (command.name != name) continue;
    if (help) {
      PrintHelp(command);
      return kExitOk;
    }
    const auto arguments = ParseArguments(words, command.flag_files);
    if (!arguments.ok()) {
      return ReportUsage(name, std::string(arguments.status().message()));
    }
    if (arguments->help) {
      PrintHelp(command);
      return kExitOk;
    }
    return command.run(*arguments);
  }
  return ReportUsage("", absl::StrCat("there is no command \"", name, "\""));
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  tern::CatchInterrupts();
  return tern::Main(std::vector<std::string>(argv + 1, argv + argc));
}
