#include "tools/synth.h"

#include <cstdint>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/report.h"
#include "cli/text_table.h"
#include "model/weights.h"
#include "tools/presets.h"
#include "tools/progress.h"
#include "tools/random_model.h"
#include "tools/report_status.h"
#include "tools/shared_flags.h"
#include "util/status_macros.h"
#include "worker/thread_pool.h"

ABSL_FLAG(std::string, preset, "nano", "Which shape; see above.");
ABSL_FLAG(std::string, out, "", "File to write. Required.");
ABSL_FLAG(std::string, embd, "f16",
          "Type of embedding and head: f16, f32, bf16 or q8_0.");
ABSL_FLAG(uint64_t, seed, 1, "Other seeds give other weights.");
ABSL_FLAG(int, layers, 0, "Layers. 0: those of the preset.");
ABSL_FLAG(int, vocab, 0, "Tokens of the vocabulary. 0: those of the preset.");
ABSL_FLAG(int, context, 0, "Tokens of the context. 0: those of the preset.");

namespace tern {
namespace {

absl::StatusOr<DenseEncoding> DenseFromFlag() {
  const std::string name = absl::GetFlag(FLAGS_embd);
  if (name == "f16") return DenseEncoding::kF16;
  if (name == "f32") return DenseEncoding::kF32;
  if (name == "bf16") return DenseEncoding::kBF16;
  if (name == "q8_0") return DenseEncoding::kQ8_0;
  return absl::InvalidArgumentError(absl::StrCat(
      "--embd is \"", name, "\"; there are f16, f32, bf16 and q8_0"));
}

absl::StatusOr<RandomModelOptions> OptionsFromFlags() {
  const std::string name = absl::GetFlag(FLAGS_preset);
  const Preset* preset = FindPreset(name);
  if (preset == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no preset \"", name, "\""));
  }
  RandomModelOptions options;
  options.config = preset->config;
  ASSIGN_OR_RETURN(options.type, TypeFromFlag());
  ASSIGN_OR_RETURN(options.dense, DenseFromFlag());
  options.seed = absl::GetFlag(FLAGS_seed);
  options.overwrite = absl::GetFlag(FLAGS_force);
  const auto override = [](int value, int* setting) {
    if (value != 0) *setting = value;
  };
  override(absl::GetFlag(FLAGS_layers), &options.config.n_layers);
  override(absl::GetFlag(FLAGS_vocab), &options.config.vocab_size);
  override(absl::GetFlag(FLAGS_context), &options.config.context_length);
  options.config.name =
      absl::StrCat("random-", preset->name, "-seed", options.seed);
  return options;
}

absl::Status Synthesize(const RandomModelOptions& options, int threads,
                        const std::string& out) {
  ThreadPool pool(threads);
  const absl::Time start = absl::Now();
  int64_t bytes;
  {
    ProgressBar bar("writing", "B");
    ASSIGN_OR_RETURN(bytes, WriteRandomModel(out, options, &pool,
                                             [&](int64_t done, int64_t total) {
                                               return bar.Update(done, total);
                                             }));
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::cout << absl::StrFormat("%s: %s in %.1f s, %.0f MB/s\n", out,
                               FormatBytes(bytes), seconds,
                               bytes / seconds / 1e6);
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  const std::string out = absl::GetFlag(FLAGS_out);
  const auto usage = [](const std::string& message) {
    return ReportUsage("synth", message);
  };
  if (!arguments.positional.empty()) {
    return usage("synth takes flags alone; the file is --out");
  }
  if (out.empty()) return usage("--out is missing");
  const auto options = OptionsFromFlags();
  if (!options.ok()) return usage(std::string(options.status().message()));
  const auto threads = ThreadsFromFlag();
  if (!threads.ok()) return usage(std::string(threads.status().message()));
  return ReportStatus(Synthesize(*options, *threads, out));
}

std::string Usage() {
  std::string text =
      R"(usage: tern synth --preset NAME --out FILE [FLAGS]

Writes a GGUF model of random ternary weights, to try out sizes and measure
speeds without a trained model. It answers in made-up words. The same flags give
the same file on every machine. Memory stays small whatever the size.

Presets:
)";
  for (const Preset& preset : Presets()) {
    absl::StrAppend(&text,
                    absl::StrFormat("  %-6s%s\n", preset.name, preset.summary));
  }
  return text;
}

}  // namespace

Command SynthCommand() {
  return {"synth",
          "write a model of random weights",
          Usage(),
          {"tools/synth.cc", kOutputFlagsFile, kThreadsFlagFile},
          &Run};
}

}  // namespace tern
