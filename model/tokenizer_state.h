#ifndef MODEL_TOKENIZER_STATE_H_
#define MODEL_TOKENIZER_STATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/added_tokens.h"
#include "model/piece_encoder.h"
#include "model/pretokenizer.h"
#include "model/text_normalizer.h"
#include "model/text_range.h"
#include "model/tokenizer.h"

namespace tern {

// What a tokenizer is made of, whatever file it was read from. Text goes
//   added -> normalizer -> normalized_added -> pretokenizer -> encoder.
struct Tokenizer::State {
  // What there is to say of a token beside its bytes.
  enum class Kind : uint8_t {
    kText,     // gives its bytes
    kControl,  // stands for no text
  };

  // Bytes of all tokens, and where each begins; one more offset ends the last.
  std::string bytes;
  std::vector<size_t> offsets = {0};
  std::vector<Kind> kinds;

  AddedTokens added;  // in text as it comes
  TextNormalizer normalizer;
  AddedTokens normalized_added;  // in normalized text
  Pretokenizer pretokenizer;
  // Its keys lie in `encoder_keys`, which stays where it is.
  std::string encoder_keys;
  std::unique_ptr<PieceEncoder> encoder;

  TokenId bos = -1;
  TokenId eos = -1;
  bool adds_bos = false;
  std::vector<TokenId> end_ids;

  // At the start of a decoded text, as many times as this, the text `droppable`
  // is dropped; from the first token alone if so said.
  std::string droppable;
  int n_droppable = 0;
  bool drops_from_first_token_only = false;

  // Appends the token of next id.
  void AddToken(absl::string_view token_bytes, Kind kind);
  int vocab_size() const { return static_cast<int>(kinds.size()); }
  absl::string_view BytesOf(TokenId id) const;
  // Takes an id for the end of a sequence, once; -1 is none.
  void AddEnd(TokenId id);
  // Takes the special tokens that end a turn of a chat, whether or not anything
  // else says so: <|eot_id|>, and with it <|end_of_text|>.
  void AddEndsByName();

  struct Scratch {
    std::string normalized;
    PieceEncoder::Scratch pieces;
  };
  // The ids of `text`, in `special_ranges` of which special tokens are
  // recognised.
  absl::StatusOr<std::vector<TokenId>> Encode(
      absl::string_view text, bool add_bos,
      const TextRanges& special_ranges) const;
  // Of what lies between tokens of `added`.
  absl::Status EncodePlain(absl::string_view text, bool begins_text,
                           TextRanges special_ranges, Scratch* scratch,
                           std::vector<TokenId>* out) const;
};

}  // namespace tern

#endif  // MODEL_TOKENIZER_STATE_H_
