#include "tools/inspect.h"

#include <iostream>

#include "absl/flags/flag.h"
#include "cli/report.h"
#include "tools/model_report.h"
#include "tools/report_status.h"

ABSL_FLAG(bool, json, false, "Prints one JSON object instead of tables.");
ABSL_FLAG(int, stages, 1, "Stages of the pipeline that the model is cut into.");
ABSL_FLAG(bool, tensors, false, "Lists every tensor, not sums by type alone.");

namespace tern {
namespace {

ExitCode Run(const Arguments& arguments) {
  if (arguments.positional.size() != 1) {
    return ReportUsage("inspect", "inspect takes one path");
  }
  const auto report =
      MakeModelReport(arguments.positional[0], absl::GetFlag(FLAGS_stages));
  if (!report.ok()) return ReportStatus(report.status());
  const bool all_tensors = absl::GetFlag(FLAGS_tensors);
  std::cout << (absl::GetFlag(FLAGS_json) ? ReportJson(*report, all_tensors)
                                          : ReportText(*report, all_tensors))
            << std::flush;
  return kExitOk;
}

}  // namespace

Command InspectCommand() {
  return {"inspect",
          "say what a model is and what it needs",
          R"(usage: tern inspect [FLAGS] PATH

Reads the header of a model and prints its shape, tokenizer and tensors, the
memory that it takes as one pipeline of --stages stages, for both ways to keep
the output head, and what is odd about it. Weights are not read.
)",
          {"tools/inspect.cc"},
          &Run};
}

}  // namespace tern
