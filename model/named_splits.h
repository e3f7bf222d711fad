#ifndef MODEL_NAMED_SPLITS_H_
#define MODEL_NAMED_SPLITS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/pretokenizer.h"

namespace tern {

// A split of byte-level BPE that GGUF files have by name.
struct NamedSplit {
  absl::string_view name;
  // As tokenizer.json writes them (model/oniguruma.h), one after another; empty
  // from the last on.
  absl::string_view patterns[4];
  bool ignores_merges;  // a piece that is a token is that token
  bool adds_bos;        // unless the file says otherwise
};

// What tokenizer.ggml.pre calls `name`, or null.
const NamedSplit* FindNamedSplit(absl::string_view name);

// The first split of these patterns, one after another, or null.
const NamedSplit* FindSplitOfPatterns(absl::Span<const std::string> patterns,
                                      bool ignores_merges);

// The names, as a sentence lists them.
std::string NamedSplitList();

// GPT-2's pattern, likewise, which tokenizer.json only names.
extern const char kGpt2Pattern[];

// Adds the steps of a split to a pretokenizer.
void AddNamedSplit(const NamedSplit& split, Pretokenizer* pretokenizer);

}  // namespace tern

#endif  // MODEL_NAMED_SPLITS_H_
