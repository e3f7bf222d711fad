// engine_bench: what `tern bench engine` runs. See kUsage.

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/engine_rows.h"
#include "cli/command.h"
#include "cli/report.h"
#include "util/server_main.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, rows, "",
          "Rows to measure, separated by commas. Empty: all.");
ABSL_FLAG(std::string, model_file, "",
          "Model of the rows with real workers, a GGUF file or a directory. "
          "Empty: the demo model.");
ABSL_FLAG(std::string, mock_model_file,
          "models/demo/shakespeare-demo-i2_s.gguf",
          "The demo model: rows with mock workers read its headers and its "
          "tokenizer.");
ABSL_FLAG(absl::Duration, duration, absl::Seconds(10),
          "How long a load of mock workers counts, after a warm-up of up to "
          "3s.");
ABSL_FLAG(int, requests, 3,
          "Requests that each client of real workers sends, one after the "
          "other.");
ABSL_FLAG(int, rounds, 3,
          "Times that what is compared is measured, in turns; medians count.");
ABSL_FLAG(std::string, held_streams, "5000,20000",
          "Numbers of streams to try to hold at once, ascending.");
ABSL_FLAG(absl::Duration, wait, absl::Minutes(3),
          "How long to wait for workers that load the model.");
ABSL_FLAG(std::string, json, "", "File for the results. Empty: none.");

namespace tern {
namespace {

constexpr char kUsage[] =
    R"(usage: tern bench engine [--rows=ROW,ROW...] [--model_file=FILE] [FLAGS]

Measures what serving costs beside the arithmetic, row after row, each on
clusters of its own on this machine, and shows the figures beside what is
wanted of them and what the machine allows.

Rows with mock workers, which wait instead of computing:
  cpu        CPU time of the coordinator for each token of 256 streams
  held       streams that are held at once, none lost
  idle       share of time that 4 equal stages idle while work waits
  mocks      throughput of 16 copies of a model against that of one
  journal    throughput of 256 streams that outlive the coordinator against
             that of streams that do not
Rows of the pure core:
  plan       planning one step of 256 sequences
  prefix     looking a prefix up, per block
Rows with real workers:
  depth      two stages of one thread against one of two, 16 streams
  serve      throughput with 1, 4 and 16 clients, and latencies at 16
  replicas   two workers on a core each against one on one
  arrival    gaps of 4 streams while prompts of 3,000 tokens arrive

Each figure is shown as it comes, and all of them in a table at the end.
`met` says "yes" where a figure is what it has to be, "aim" where it is what it
should be. On a busy machine figures are worse than the programs: the load
average is shown, and the limits are measured before and after the rows.
)";

absl::Status Wrong(absl::string_view flag, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " ", what));
}

absl::StatusOr<std::set<std::string>> RowsFromFlag() {
  const std::vector<std::string> names = EngineBench::Names();
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

absl::StatusOr<EngineBench::Options> OptionsFromFlags() {
  EngineBench::Options options;
  options.rounds = absl::GetFlag(FLAGS_rounds);
  options.requests = absl::GetFlag(FLAGS_requests);
  options.duration = absl::GetFlag(FLAGS_duration);
  options.wait = absl::GetFlag(FLAGS_wait);
  options.mock_model_file = absl::GetFlag(FLAGS_mock_model_file);
  options.model_file = absl::GetFlag(FLAGS_model_file);
  if (options.model_file.empty()) options.model_file = options.mock_model_file;
  if (options.rounds < 1 || options.rounds > 100) {
    return Wrong("rounds", absl::StrCat("is ", options.rounds,
                                        "; it must be in [1, 100]"));
  }
  if (options.requests < 1) {
    return Wrong("requests", "must be at least 1");
  }
  if (options.duration < absl::Milliseconds(100)) {
    return Wrong("duration", "must be at least 100ms");
  }
  options.held_streams.clear();
  for (const absl::string_view word :
       absl::StrSplit(absl::GetFlag(FLAGS_held_streams), ',')) {
    int n = 0;
    if (!absl::SimpleAtoi(word, &n) || n < 1 || n > 50000) {
      return Wrong("held_streams", absl::StrCat("has \"", word,
                                                "\"; numbers in [1, 50000] "
                                                "are separated by commas"));
    }
    options.held_streams.push_back(n);
  }
  for (const std::string& path :
       {options.model_file, options.mock_model_file}) {
    if (access(path.c_str(), R_OK) == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("there is no model at ", path,
                     "; run this in the source tree, or give --model_file and "
                     "--mock_model_file"));
  }
  return options;
}

absl::Status Run() {
  ASSIGN_OR_RETURN(const std::set<std::string> rows, RowsFromFlag());
  const absl::StatusOr<EngineBench::Options> options = OptionsFromFlags();
  RETURN_IF_ERROR(options.status());
  const std::string json = absl::GetFlag(FLAGS_json);
  RETURN_IF_ERROR(CheckJsonFile(json));
  ASSIGN_OR_RETURN(const EngineReport report, EngineBench(*options).Run(rows));
  return Publish(report, json);
}

ExitCode Main() {
  const absl::Status status = Run();
  if (absl::IsInvalidArgument(status)) {
    return ReportUsage("bench engine", std::string(status.message()));
  }
  return Report(status, "a cluster of its own");
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  // Before any other thread starts.
  tern::BlockShutdownSignals();
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  tern::ParseServerFlags(argc, argv, tern::kUsage, {"bench/engine_bench.cc"});
  return tern::Main();
}
