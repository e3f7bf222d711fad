#include "cli/bench.h"

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "cli/report.h"
#include "cli/sibling_program.h"

namespace tern {
namespace {

struct Bench {
  absl::string_view name;
  absl::string_view program;
  absl::string_view summary;
};

constexpr Bench kBenches[] = {
    {"kernels", "kernels_bench", "every kernel, beside the machine's peaks"},
    {"stage", "stage_bench", "a model's prompts and decoding in one stage"},
    {"loading", "loading_bench",
     "hashing, fetching and packing weights at load"},
    {"scheduler", "scheduler_bench", "planning the steps of a pipeline"},
    {"engine", "engine_bench", "what serving costs, beside what is wanted"},
    {"survival", "survival_bench",
     "what lost workers cost, beside what is wanted"},
    {"serve", "serve_bench", "a cluster under load: latencies and throughput"},
    {"tokenizer", "tokenizer_bench", "encoding and streaming text"},
};

void PrintUsage() {
  std::cout << "usage: tern bench WHAT [FLAGS]\n\n"
               "Measures this machine; `serve` measures a cluster, or starts "
               "one, `engine` starts several.\n\n";
  for (const Bench& bench : kBenches) {
    std::cout << absl::StrFormat("  %-12s%s\n", bench.name, bench.summary);
  }
  std::cout << "\n`tern bench WHAT --help` shows the flags.\n";
}

}  // namespace

ExitCode RunBench(const std::vector<std::string>& words, bool help) {
  if (words.empty() || words[0] == "--help") {
    PrintUsage();
    return words.empty() && !help ? kExitUsage : kExitOk;
  }
  for (const Bench& bench : kBenches) {
    if (words[0] != bench.name) continue;
    std::vector<std::string> flags(words.begin() + 1, words.end());
    if (help) flags.push_back("--help");
    return RunSiblingProgram({bench.program, "bench"},
                             absl::StrCat("bench ", bench.name), flags);
  }
  return ReportUsage("bench",
                     absl::StrCat("there is nothing called \"", words[0],
                                  "\" to measure; `tern bench` lists what is"));
}

}  // namespace tern
