// survival_bench: what `tern bench survival` runs. See kUsage.

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/survival_rows.h"
#include "cli/command.h"
#include "cli/report.h"
#include "util/server_main.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, rows, "",
          "Rows to measure, separated by commas. Empty: all.");
ABSL_FLAG(std::string, model_file, "",
          "The model, a GGUF file or a directory. Empty: the demo model.");
ABSL_FLAG(int, rounds, 5, "Times that each figure is measured; medians count.");
ABSL_FLAG(int, prompt_tokens, 400,
          "Length of the prompts of streams whose worker is lost.");
ABSL_FLAG(int, streams, 32, "Streams on the worker that leaves, up to 64.");
ABSL_FLAG(absl::Duration, wait, absl::Minutes(3),
          "How long to wait for workers that load the model, and for answers.");
ABSL_FLAG(std::string, json, "", "File for the results. Empty: none.");

namespace tern {
namespace {

constexpr char kUsage[] =
    R"(usage: tern bench survival [--rows=ROW,ROW...] [--model_file=FILE] [FLAGS]

Measures what a lost, hung or leaving worker costs the streams on it, row after
row, each on a cluster of real processes of its own on this machine, and shows
the figures beside what is wanted of them.

Rows:
  death        a worker's process is killed: noticed, and the stream goes on
  hang         a worker stands still (SIGSTOP): the same
  replay       what replaying a lost sequence costs, beside its prompt
  drain        a worker gets SIGTERM while it has --streams streams
  join         a worker starts: its first token
  both         both workers of a pipeline are killed at once, another serves
  coordinator  it is killed and started again, with its journal

The last line says whether every stream had the tokens of one that nothing
disturbed.
)";

constexpr char kDemoModel[] = "models/demo/shakespeare-demo-i2_s.gguf";

absl::Status Wrong(absl::string_view flag, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " ", what));
}

absl::StatusOr<std::set<std::string>> RowsFromFlag() {
  const std::vector<std::string> names = SurvivalBench::Names();
  const std::string flag = absl::GetFlag(FLAGS_rows);
  if (flag.empty()) return std::set<std::string>(names.begin(), names.end());
  std::set<std::string> rows;
  for (const std::string& row :
       std::vector<std::string>(absl::StrSplit(flag, ','))) {
    if (std::find(names.begin(), names.end(), row) == names.end()) {
      return Wrong("rows", absl::StrCat("has \"", row, "\"; there are ",
                                        absl::StrJoin(names, ", ")));
    }
    rows.insert(row);
  }
  return rows;
}

absl::StatusOr<SurvivalBench::Options> OptionsFromFlags() {
  SurvivalBench::Options options;
  options.model_file = absl::GetFlag(FLAGS_model_file);
  options.own_model = !options.model_file.empty();
  if (!options.own_model) options.model_file = kDemoModel;
  options.rounds = absl::GetFlag(FLAGS_rounds);
  options.prompt_tokens = absl::GetFlag(FLAGS_prompt_tokens);
  options.streams = absl::GetFlag(FLAGS_streams);
  options.wait = absl::GetFlag(FLAGS_wait);
  if (options.rounds < 1 || options.rounds > 100) {
    return Wrong("rounds", absl::StrCat("is ", options.rounds,
                                        "; it must be in [1, 100]"));
  }
  if (options.prompt_tokens < 1) {
    return Wrong("prompt_tokens", "must be at least 1");
  }
  if (options.streams < 1 || options.streams > 64) {
    return Wrong("streams", absl::StrCat("is ", options.streams,
                                         "; it must be in [1, 64]"));
  }
  if (access(options.model_file.c_str(), R_OK) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no model at ", options.model_file,
                     "; run this in the source tree, or give --model_file"));
  }
  return options;
}

absl::Status Run() {
  ASSIGN_OR_RETURN(const std::set<std::string> rows, RowsFromFlag());
  ASSIGN_OR_RETURN(const SurvivalBench::Options options, OptionsFromFlags());
  const std::string json = absl::GetFlag(FLAGS_json);
  RETURN_IF_ERROR(CheckJsonFile(json));
  ASSIGN_OR_RETURN(const EngineReport report, SurvivalBench(options).Run(rows));
  return Publish(report, json);
}

ExitCode Main() {
  const absl::Status status = Run();
  if (absl::IsInvalidArgument(status)) {
    return ReportUsage("bench survival", std::string(status.message()));
  }
  return Report(status, "a cluster of its own");
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  // Before any other thread starts.
  tern::BlockShutdownSignals();
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  tern::ParseServerFlags(argc, argv, tern::kUsage, {"bench/survival_bench.cc"});
  return tern::Main();
}
