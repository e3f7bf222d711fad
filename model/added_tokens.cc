#include "model/added_tokens.h"

#include <algorithm>

#include "model/unicode_space.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
void AddedTokens::Finish() {
  std::sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) {
    return a.spelling != b.spelling ? a.spelling < b.spelling : a.id < b.id;
  });
  for (const Token& token : tokens_) {
    CHECK(!token.spelling.empty());
    first_bytes_[static_cast<uint8_t>(token.spelling[0])] = true;
    has_plain_ |= !token.is_special;
  }
}

// `tokens_` is sorted, so that those with a common start are neighbours: each
// further byte narrows the range, whatever the number and the length of the
// tokens.
const AddedTokens::Token* AddedTokens::Longest(absl::string_view text,
                                               bool parse_special) const {
  const Token* longest = nullptr;
  auto begin = tokens_.begin();
  auto end = tokens_.end();
  for (size_t depth = 0; begin != end; ++depth) {
    // Those that end here come first, the lowest id before all.
    for (; begin != end && begin->spelling.size() == depth; ++begin) {
      const bool is_allowed = parse_special || !begin->is_special;
      const bool is_first =
          longest == nullptr || longest->spelling.size() < depth;
      if (is_allowed && is_first) longest = &*begin;
    }
    if (depth == text.size()) break;
    const auto at_depth = [depth](const Token& token) {
      return static_cast<uint8_t>(token.spelling[depth]);
    };
    const uint8_t byte = text[depth];
    begin = std::lower_bound(
        begin, end, byte,
        [&](const Token& token, uint8_t b) { return at_depth(token) < b; });
    end = std::upper_bound(
        begin, end, byte,
        [&](uint8_t b, const Token& token) { return b < at_depth(token); });
  }
  return longest;
}

absl::Status AddedTokens::Cut(
    absl::string_view text, absl::Span<const TextRange> special_ranges,
    absl::FunctionRef<absl::Status(absl::string_view, int32_t)> take) const {
  size_t begin = 0;  // of the piece that is being read
  if (special_ranges.empty() ? has_plain_ : !tokens_.empty()) {
    auto range = special_ranges.begin();  // the first that ends behind `pos`
    for (size_t pos = 0; pos < text.size();) {
      while (range != special_ranges.end() && range->end <= pos) ++range;
      const Token* token = nullptr;
      if (first_bytes_[static_cast<uint8_t>(text[pos])]) {
        size_t end = text.size();  // where a token must end
        bool parse_special = false;
        if (range != special_ranges.end()) {
          parse_special = pos >= range->begin;
          end = parse_special ? range->end : range->begin;
        }
        token = Longest(text.substr(pos, end - pos), parse_special);
      }
      if (token == nullptr) {
        ++pos;
        continue;
      }
      size_t first = pos;
      pos += token->spelling.size();
      if (token->takes_left) {
        first -= SpacesAtEnd(text.substr(begin, first - begin));
      }
      if (token->takes_right) pos += SpacesAtStart(text.substr(pos));
      if (first > begin) {
        RETURN_IF_ERROR(take(text.substr(begin, first - begin), -1));
      }
      RETURN_IF_ERROR(take(absl::string_view(), token->id));
      begin = pos;
    }
  }
  if (begin == text.size()) return absl::OkStatus();
  return take(text.substr(begin), -1);
}

}  // namespace tern
