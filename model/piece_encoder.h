#ifndef MODEL_PIECE_ENCODER_H_
#define MODEL_PIECE_ENCODER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "model/bpe.h"

namespace tern {

// Turns one piece of text into token ids by merging: from bytes (byte-level
// BPE) or from characters (as SentencePiece does), which fall back to bytes
// where they are no tokens.
//
// Set up by AddToken(), then AddMerge(), then Finish(); then immutable and
// thread-safe.
class PieceEncoder {
 public:
  struct Options {
    // Merging begins with bytes, not with characters.
    bool is_byte_level = true;
    // A piece that is a token is that token, whatever the merges say.
    bool ignores_merges = false;
    // Neighbouring characters that are unknown become one token.
    bool fuses_unknown = true;
  };

  // Room that calls of Encode() share, one caller at a time.
  struct Scratch {
    std::vector<int32_t> symbols;
    std::vector<int32_t> merged;
    BpeMerges::Scratch merging;
  };

  // What merges are made of: a token's id, or a character that is no token by
  // itself.
  using Symbol = int32_t;

  explicit PieceEncoder(const Options& options) : options_(options) {}

  // A token that text can become. `bytes` outlives the encoder. False when
  // there is one of these bytes already, which stays.
  bool AddToken(absl::string_view bytes, int32_t id);

  // The token for a byte of a character that is no token. All 256, or the
  // unknown token, must be there at the end; of a byte-level encoder AddToken()
  // sets them.
  void SetByteToken(uint8_t byte, int32_t id) { byte_tokens_[byte] = id; }
  void SetUnknownToken(int32_t id) { unknown_ = id; }

  bool has_unknown_token() const { return unknown_ >= 0; }

  // The first byte that needs a token and has none, -1 if there is none such.
  // Of a byte-level encoder control characters other than tab, line feed and
  // carriage return, and bytes that no assigned character has in UTF-8, need
  // none; of others all bytes do.
  int FirstByteWithoutToken() const;

  // Room for so many.
  void Reserve(size_t n_tokens, size_t n_merges);

  // The token of these bytes, -1 if there is none.
  int32_t Find(absl::string_view bytes) const;

  // The token of these bytes, or the one character that they are; false if they
  // are neither. Of a byte-level encoder, tokens alone.
  bool FindSymbol(absl::string_view bytes, Symbol* symbol) const;

  // Adds a merge of `left`, which ends in `left_bytes`, and `right`. Lower
  // ranks go first, the leftmost of equal ones. False when the pair is there
  // already. REQUIRES: `joined` is a token, its bytes those of both.
  bool AddMerge(absl::string_view left_bytes, Symbol left,
                absl::string_view right_bytes, Symbol right, int32_t joined,
                uint32_t rank);

  // Ends the set-up.
  void Finish();

  // Appends the tokens of `piece`. False, with *out half done, when the encoder
  // is byte-level and has no token for one of the bytes. Takes O(n log n).
  // REQUIRES: valid UTF-8 unless the encoder is byte-level; fewer than 2^31
  // bytes.
  bool Encode(absl::string_view piece, Scratch* scratch,
              std::vector<int32_t>* out) const;

 private:
  // Two characters that some merge joins, or bytes.
  static uint64_t Seam(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
           static_cast<uint32_t>(right);
  }
  bool IsSeam(int32_t left, int32_t right) const;

  void EncodeCharacters(absl::string_view piece, Scratch* scratch,
                        std::vector<int32_t>* out) const;
  bool Merge(absl::string_view part, Scratch* scratch,
             std::vector<Symbol>* out) const;
  bool AppendUnknown(int32_t character, bool after_unknown,
                     std::vector<int32_t>* out) const;
  Symbol SymbolOf(int32_t character) const;

  template <size_t n>
  static std::array<int32_t, n> NoTokens() {
    std::array<int32_t, n> none;
    none.fill(-1);
    return none;
  }

  const Options options_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  // Whether a token is what its own bytes merge to, so that a piece of these
  // bytes need not be merged. By id.
  std::vector<bool> is_whole_;
  std::array<int32_t, 256> byte_tokens_ = NoTokens<256>();
  int32_t unknown_ = -1;
  // Tokens of one character: below 128, and above.
  std::array<int32_t, 128> ascii_ = NoTokens<128>();
  absl::flat_hash_map<int32_t, int32_t> characters_;
  absl::flat_hash_set<uint64_t> seams_;
  std::array<std::array<bool, 128>, 128> ascii_seams_{};
  BpeMerges merges_;
};

}  // namespace tern

#endif  // MODEL_PIECE_ENCODER_H_
