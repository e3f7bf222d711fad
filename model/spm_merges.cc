#include "model/spm_merges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "util/logging.h"
#include "util/utf8.h"

namespace tern {

void AddSpmMerges(absl::Span<const ScoredToken> tokens, PieceEncoder* encoder) {
  std::vector<float> scores;
  scores.reserve(tokens.size());
  for (const ScoredToken& token : tokens) scores.push_back(token.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

  for (const ScoredToken& token : tokens) {
    CHECK(token.bytes.size() <= kSpmTokenBytesMax);
    const uint32_t rank =
        static_cast<uint32_t>(std::lower_bound(scores.begin(), scores.end(),
                                               token.score, std::greater<>()) -
                              scores.begin());
    size_t cut = 0;
    NextCharacter(token.bytes, &cut);
    while (cut < token.bytes.size()) {
      const absl::string_view left = token.bytes.substr(0, cut);
      const absl::string_view right = token.bytes.substr(cut);
      PieceEncoder::Symbol left_symbol, right_symbol;
      if (encoder->FindSymbol(left, &left_symbol) &&
          encoder->FindSymbol(right, &right_symbol)) {
        CHECK(encoder->AddMerge(left, left_symbol, right, right_symbol,
                                token.id, rank));
      }
      NextCharacter(token.bytes, &cut);
    }
  }
}

}  // namespace tern
