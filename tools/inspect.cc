#include "tools/inspect.h"

#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "cli/report.h"
#include "kernels/ternary_layout.h"
#include "tools/model_report.h"
#include "tools/report_status.h"

ABSL_FLAG(bool, json, false, "Prints one JSON object instead of tables.");
ABSL_FLAG(int, stages, 1, "Stages of the pipeline that the model is cut into.");
ABSL_FLAG(std::string, weights_packing, "2bit",
          "How ternary weights lie in memory, as for `worker`: 2bit, base3, "
          "tl2 or tl1.");
ABSL_FLAG(bool, tensors, false, "Lists every tensor, not sums by type alone.");

namespace tern {
namespace {

ExitCode Run(const Arguments& arguments) {
  if (arguments.positional.size() != 1) {
    return ReportUsage("inspect", "inspect takes one path");
  }
  const std::string packing_name = absl::GetFlag(FLAGS_weights_packing);
  TernaryPacking packing;
  if (!ParseTernaryPacking(packing_name, &packing)) {
    return ReportUsage("inspect",
                       absl::StrCat("there is no packing \"", packing_name,
                                    "\" of weights; see --weights_packing"));
  }
  const auto report = MakeModelReport(arguments.positional[0],
                                      absl::GetFlag(FLAGS_stages), packing);
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
