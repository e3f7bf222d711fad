#include "tools/convert.h"

#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "cli/report.h"
#include "cli/text_table.h"
#include "tools/convert_model.h"
#include "tools/convert_options.h"
#include "tools/progress.h"
#include "tools/report_status.h"
#include "tools/shared_flags.h"
#include "util/status_macros.h"
#include "worker/thread_pool.h"

ABSL_FLAG(bool, allow_rounding, false,
          "Rounds scales of matrices to float16 where the output's type keeps "
          "them so; otherwise a model that would change is refused.");

namespace tern {
namespace {

absl::Status Convert(const std::string& in, const std::string& out,
                     const ConvertOptions& options, int threads) {
  ThreadPool pool(threads);
  ConvertResult result;
  {
    ProgressBar bar("converting", "B");
    ASSIGN_OR_RETURN(result, ConvertModel(in, out, options, &pool,
                                          [&](int64_t done, int64_t total) {
                                            return bar.Update(done, total);
                                          }));
  }
  if (result.rounded > 0) {
    std::cerr << absl::StrFormat(
        "warning: the scales of %d matrices were rounded to float16, by up to "
        "%.2g of their value: answers can differ from those of %s\n",
        result.rounded, result.rounding_max, in);
  }
  std::cout << absl::StrFormat("%s: %s, %d matrices converted to %s\n", out,
                               FormatBytes(result.file_bytes), result.converted,
                               TernaryFormatName(options.type));
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  const auto usage = [](const std::string& message) {
    return ReportUsage("convert", message);
  };
  if (arguments.positional.size() != 2) {
    return usage("convert takes two paths, the model and the file to write");
  }
  if (!arguments.Has("type")) return usage("--type is missing");
  ConvertOptions options;
  const auto type = TypeFromFlag();
  if (!type.ok()) return usage(std::string(type.status().message()));
  const auto threads = ThreadsFromFlag();
  if (!threads.ok()) return usage(std::string(threads.status().message()));
  options.type = *type;
  options.allow_rounding = absl::GetFlag(FLAGS_allow_rounding);
  options.overwrite = absl::GetFlag(FLAGS_force);
  return ReportStatus(Convert(arguments.positional[0], arguments.positional[1],
                              options, *threads));
}

}  // namespace

Command ConvertCommand() {
  return {"convert",
          "write a model as a GGUF file, with matrices in a type",
          R"(usage: tern convert IN OUT --type i2_s|tq1_0|tq2_0 [FLAGS]

Writes the model IN to the GGUF file OUT, with its ternary matrices in the type
that --type names. IN is a GGUF file (of a split set the first part), of which
all else stays as it is, or a directory with config.json, *.safetensors and
tokenizer.json. The weights are the same; scales are too, unless
--allow_rounding is given and needed. OUT appears when it is complete, or not at
all.
)",
          {"tools/convert.cc", kOutputFlagsFile, kThreadsFlagFile},
          &Run};
}

}  // namespace tern
