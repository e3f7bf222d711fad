#include "model/named_splits.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/regex.h"
#include "util/logging.h"

namespace tern {
namespace {

// (?i:) ignores case as Unicode has it, so that U+017F, the long s, counts as
// an s. The patterns are as published.
#define TERN_LLAMA3_SPLIT(numbers)                                    \
  R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" numbers \
  R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"

#define TERN_GPT2_SPLIT                                             \
  R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)" \
  R"(|\s+(?!\S)|\s+)"

#define TERN_SIGNS R"([\p{P}$+<=>^~|`]+)"

constexpr char kLlama3[] = TERN_LLAMA3_SPLIT(R"(\p{N}{1,3})");
constexpr char kQwen2[] = TERN_LLAMA3_SPLIT(R"(\p{N})");
constexpr char kThreeDigits[] = "[0-9][0-9][0-9]";

const std::vector<NamedSplit>& Splits() {
  static const auto* const kSplits = new std::vector<NamedSplit>{
      {"llama-bpe", {kLlama3}, true, true},
      {"llama3", {kLlama3}, true, true},
      {"llama-v3", {kLlama3}, true, true},
      {"falcon3", {kLlama3}, true, true},
      {"qwen2", {kQwen2}, false, false},
      {"gpt-2", {kGpt2Pattern}, false, false},
      {"falcon", {TERN_SIGNS, kGpt2Pattern, kThreeDigits}, false, false},
      {"default",
       {TERN_SIGNS, kGpt2Pattern, R"(\p{N}+)", kThreeDigits},
       false,
       false},
  };
  return *kSplits;
}

}  // namespace

const char kGpt2Pattern[] = TERN_GPT2_SPLIT;

const NamedSplit* FindNamedSplit(absl::string_view name) {
  for (const NamedSplit& split : Splits()) {
    if (split.name == name) return &split;
  }
  return nullptr;
}

const NamedSplit* FindSplitOfPatterns(absl::Span<const std::string> patterns,
                                      bool ignores_merges) {
  for (const NamedSplit& split : Splits()) {
    std::vector<absl::string_view> own;
    for (absl::string_view pattern : split.patterns) {
      if (!pattern.empty()) own.push_back(pattern);
    }
    if (split.ignores_merges == ignores_merges &&
        std::equal(own.begin(), own.end(), patterns.begin(), patterns.end())) {
      return &split;
    }
  }
  return nullptr;
}

std::string NamedSplitList() {
  return absl::StrJoin(Splits(), ", ",
                       [](std::string* out, const NamedSplit& split) {
                         absl::StrAppend(out, split.name);
                       });
}

void AddNamedSplit(const NamedSplit& split, Pretokenizer* pretokenizer) {
  for (absl::string_view pattern : split.patterns) {
    if (pattern.empty()) break;
    absl::StatusOr<std::unique_ptr<Regex>> regex =
        Regex::CompileOniguruma(pattern);
    CHECK(regex.ok()) << regex.status();
    pretokenizer->AddSplit(*std::move(regex), Pretokenizer::Behavior::kIsolated,
                           /*invert=*/false);
  }
  pretokenizer->AddByteLevel();
}

}  // namespace tern
