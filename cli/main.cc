// tern: the command line of a Tern cluster.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/arguments.h"
#include "cli/batch.h"
#include "cli/bench.h"
#include "cli/chat.h"
#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/drain.h"
#include "cli/generate.h"
#include "cli/health.h"
#include "cli/model_tools.h"
#include "cli/models.h"
#include "cli/report.h"
#include "cli/status.h"
#include "cli/tokenize.h"
#include "util/flags_help.h"
#include "util/server_main.h"

namespace tern {
namespace {

constexpr char kExitCodes[] = R"(
Exit codes: 0 done; 1 the cluster refused or failed it; 2 wrong command line;
3 UNAVAILABLE, worth trying again; 4 DEADLINE_EXCEEDED; 130 interrupted.
)";

void PrintOverview(const std::vector<Command>& commands) {
  std::cout << "usage: tern COMMAND [FLAGS] [ARGUMENTS]\n\n"
               "Talks to a Tern cluster.\n\n";
  for (const Command& command : commands) {
    std::cout << absl::StrFormat("  %-12s%s\n", command.name, command.summary);
  }
  std::cout << "  help        say more about a command\n"
            << "\nWorks without a cluster.\n\n";
  for (const ModelTool& tool : ModelTools()) {
    std::cout << absl::StrFormat("  %-12s%s\n", tool.name, tool.summary);
  }
  std::cout << absl::StrFormat("  %-12s%s\n", "bench",
                               "measure this machine's speed")
            << "\n"
            << "`tern help COMMAND` shows the command's flags.\n"
            << kExitCodes;
}

void PrintHelp(const Command& command) {
  std::cout << command.usage << "\nFlags, with their defaults:\n"
            << FlagsHelp(command.flag_files) << kExitCodes;
}

const Command* Find(const std::vector<Command>& commands,
                    const std::string& name) {
  for (const Command& command : commands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

ExitCode Main(std::vector<std::string> words) {
  const std::vector<Command> commands = {
      GenerateCommand(), ChatCommand(),   BatchCommand(),
      StatusCommand(),   ModelsCommand(), DrainCommand(),
      TokenizeCommand(), DoctorCommand(), HealthCommand()};
  if (words.empty()) {
    PrintOverview(commands);
    return kExitUsage;
  }
  std::string name = words[0];
  words.erase(words.begin());
  bool help = false;
  if (name == "help" || name == "--help" || name == "-h") {
    if (words.empty()) {
      PrintOverview(commands);
      return kExitOk;
    }
    name = words[0];
    help = true;
  }
  if (IsModelTool(name)) {
    words.insert(words.begin(), name);
    if (help) words.insert(words.begin(), "help");
    return RunModelTool(words);
  }
  if (name == "bench") {
    if (help) words.erase(words.begin());
    return RunBench(words, help);
  }
  const Command* command = Find(commands, name);
  if (command == nullptr) {
    return ReportUsage("", absl::StrCat("there is no command \"", name, "\""));
  }
  if (help) {
    PrintHelp(*command);
    return kExitOk;
  }
  const auto arguments = ParseArguments(words, command->flag_files);
  if (!arguments.ok()) {
    return ReportUsage(name, std::string(arguments.status().message()));
  }
  if (arguments->help) {
    PrintHelp(*command);
    return kExitOk;
  }
  return command->run(*arguments);
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  // Before any other thread starts.
  tern::BlockShutdownSignals();
  // gRPC's own log lines would stand between those of the answer; a status
  // says the same. Whoever sets the variable gets them.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return tern::Main(std::vector<std::string>(argv + 1, argv + argc));
}
