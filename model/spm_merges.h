#ifndef MODEL_SPM_MERGES_H_
#define MODEL_SPM_MERGES_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/piece_encoder.h"

namespace tern {

struct ScoredToken {
  absl::string_view bytes;  // UTF-8
  int32_t id;
  float score;  // finite
};

// Longest token, in bytes, that AddSpmMerges() takes: its time grows with the
// square.
inline constexpr size_t kSpmTokenBytesMax = 1024;

// Gives `encoder` the merges of SentencePiece's BPE: two neighbours merge when
// together they are a token, the pair with the token of highest score first,
// the leftmost among equals. These are all ways to cut a token into two symbols
// (tokens or single characters), ranked by its score.
//
// REQUIRES: the tokens were added to `encoder` before, each of them once, and
// it is not byte-level.
void AddSpmMerges(absl::Span<const ScoredToken> tokens, PieceEncoder* encoder);

}  // namespace tern

#endif  // MODEL_SPM_MERGES_H_
