#ifndef MODEL_ADDED_TOKENS_H_
#define MODEL_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/text_range.h"

namespace tern {

// Tokens that are recognised by their spelling, before anything is split.
//
// Filled by Add(), then Finish(); then immutable and thread-safe.
class AddedTokens {
 public:
  struct Token {
    std::string spelling;  // UTF-8, not empty
    int32_t id;
    bool is_special = false;   // recognised where allowed only
    bool takes_left = false;   // and the white space before it
    bool takes_right = false;  // and the white space behind it
  };

  void Add(Token token) { tokens_.push_back(std::move(token)); }
  void Finish();

  const std::vector<Token>& tokens() const { return tokens_; }

  // Cuts `text` at the tokens in it: the leftmost first, of several the
  // longest, of equal ones the lowest id. Calls `take` with each piece between
  // them, with its place in `text` and id -1, and with each token's id and an
  // empty piece. Pieces are not empty. Stops at the first error and returns it.
  //
  // Special tokens are recognised within `special_ranges` alone, and no token
  // across an end of one: what stands outside can neither make a token of bytes
  // inside nor take bytes away from one.
  // REQUIRES: `text` is valid UTF-8; the ranges lie in it.
  absl::Status Cut(
      absl::string_view text, absl::Span<const TextRange> special_ranges,
      absl::FunctionRef<absl::Status(absl::string_view piece, int32_t id)> take)
      const;

 private:
  const Token* Longest(absl::string_view text, bool parse_special) const;

  std::vector<Token> tokens_;            // after Finish() in order of spelling
  std::array<bool, 256> first_bytes_{};  // whether one starts with this byte
  bool has_plain_ = false;               // whether one is not special
};

}  // namespace tern

#endif  // MODEL_ADDED_TOKENS_H_
