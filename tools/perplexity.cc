#include "tools/perplexity.h"

#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/report.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "tools/progress.h"
#include "tools/report_status.h"
#include "tools/scorer.h"
#include "tools/shared_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, text, "", "File with the text, UTF-8. Required.");
ABSL_FLAG(int, window, 0, "Tokens of a window. 0: the model's context.");
ABSL_FLAG(int64_t, windows, 0, "Windows to read, from the first. 0: all.");
ABSL_FLAG(std::string, head_mode, "stored",
          "How the output head is computed: stored, as the file has it, or "
          "int8.");
ABSL_FLAG(bool, compare_heads, false,
          "Also compute the other head mode and say how far it is.");
ABSL_FLAG(std::string, isa, "auto",
          "Instruction set: auto, ref, avx2, avxvnni, avx512vnni256, "
          "avx512vnni, neon, neon_dotprod or neon_i8mm. Changes the speed and "
          "no result.");

namespace tern {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  return text;
}

absl::StatusOr<Scorer::Options> OptionsFromFlags() {
  Scorer::Options options;
  const std::string mode = absl::GetFlag(FLAGS_head_mode);
  if (!ParseHeadMode(mode, &options.head_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--head_mode is \"", mode, "\"; there are stored and int8"));
  }
  const std::string isa = absl::GetFlag(FLAGS_isa);
  options.isa = BestKernels().isa;
  if (isa != "auto" &&
      (!ParseIsa(isa, &options.isa) || !IsaSupported(options.isa))) {
    std::vector<absl::string_view> names = {"auto"};
    for (Isa each : SupportedIsas()) names.push_back(IsaName(each));
    return absl::InvalidArgumentError(absl::StrCat("--isa is \"", isa,
                                                   "\"; this machine has ",
                                                   absl::StrJoin(names, ", ")));
  }
  ASSIGN_OR_RETURN(options.n_threads, ThreadsFromFlag());
  options.window_tokens = absl::GetFlag(FLAGS_window);
  options.windows_max = absl::GetFlag(FLAGS_windows);
  options.compare_heads = absl::GetFlag(FLAGS_compare_heads);
  if (options.windows_max < 0) {
    return absl::InvalidArgumentError("--windows cannot be negative");
  }
  return options;
}

absl::Status Measure(const std::string& path, const std::string& text_path,
                     const Scorer::Options& options) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(text_path));
  std::unique_ptr<Scorer> scorer;
  {
    ProgressBar bar("loading", "B");
    ASSIGN_OR_RETURN(
        scorer, Scorer::Load(path, options, [&](int64_t done, int64_t total) {
          return bar.Update(done, total);
        }));
  }
  const absl::Time start = absl::Now();
  TextScore score;
  {
    ProgressBar bar("scoring", "tokens");
    ASSIGN_OR_RETURN(score,
                     scorer->Score(text, [&](int64_t done, int64_t total) {
                       return bar.Update(done, total);
                     }));
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::cout << absl::StrFormat(
      "tokens         %d in %d windows of %d\n"
      "nll            %.6f nats a token\n"
      "perplexity     %.4f\n"
      "bits per byte  %.4f\n"
      "head           %s\n"
      "speed          %.0f tokens/s (%s, %d threads, %d windows together)\n",
      score.n_tokens, score.n_windows, scorer->window_tokens(),
      score.mean_nll(), score.perplexity(), score.bits_per_byte(),
      HeadModeName(options.head_mode), score.n_tokens / seconds,
      IsaName(options.isa), options.n_threads, scorer->together());
  if (options.compare_heads) {
    std::cout << absl::StrFormat(
        "other head     divergence %.3g nats a token, same choice for %.3f "
        "%%\n",
        score.divergence / score.n_tokens,
        100.0 * score.n_same_choice / score.n_tokens);
  }
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  const auto usage = [](const std::string& message) {
    return ReportUsage("perplexity", message);
  };
  if (arguments.positional.size() != 1) {
    return usage("perplexity takes one path, the model");
  }
  const std::string text = absl::GetFlag(FLAGS_text);
  if (text.empty()) return usage("--text is missing");
  const auto options = OptionsFromFlags();
  if (!options.ok()) return usage(std::string(options.status().message()));
  return ReportStatus(Measure(arguments.positional[0], text, *options));
}

}  // namespace

Command PerplexityCommand() {
  return {"perplexity",
          "measure how well a model predicts a text",
          R"(usage: tern perplexity PATH --text FILE [FLAGS]

Runs the model on a text, as a worker would, and prints how likely it finds it:
the mean of -ln(probability) over the text's tokens, its exponential (the
perplexity), and bits per byte of text, which models with different tokenizers
can be compared by.

The text becomes tokens as a whole and is cut into windows of --window tokens,
the last one shorter. Each window stands alone, behind a BOS token, and every
token in it is predicted from the BOS and the tokens before it in the window.
Nothing overlaps: tokens early in a window have little to go by, so that longer
windows give smaller numbers. Compare numbers of equal windows only. Without a
BOS in the tokenizer the first token of a window is not counted.
)",
          {"tools/perplexity.cc", kThreadsFlagFile},
          &Run};
}

}  // namespace tern
