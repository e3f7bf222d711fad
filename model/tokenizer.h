#ifndef MODEL_TOKENIZER_H_
#define MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf_reader.h"
#include "util/utf8.h"  // IWYU pragma: export

namespace tern {

using TokenId = int32_t;

// Turns text into token ids and back: byte-level BPE, and BPE over characters
// as SentencePiece and tokenizer.json have it (docs/formats.md).
//
// Immutable and thread-safe after construction; it keeps no view of what it was
// made from.
class Tokenizer {
 public:
  struct EncodeOptions {
    bool add_bos = true;         // only where the model wants one
    bool parse_special = false;  // recognise spellings of special tokens
  };

  // Reads tokenizer.ggml.*. INVALID_ARGUMENT names the key and what is wrong
  // with it; UNIMPLEMENTED a tokenizer or split that Tern does not know.
  // `vocab_size` is the model's; the token list must have as many entries.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(
      const GgufReader& file, int vocab_size);

  // Reads the text of a tokenizer.json, and of the tokenizer_config.json beside
  // it, which may be empty. INVALID_ARGUMENT names the place and what is wrong
  // there; UNIMPLEMENTED a part that Tern does not know. `vocab_size` is the
  // model's; ids that the tokens do not reach are unused.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(
      absl::string_view tokenizer_json, absl::string_view tokenizer_config_json,
      int vocab_size);

  ~Tokenizer();

  // Text to ids. INVALID_ARGUMENT, with the offset of the first bad byte, when
  // `text` is not UTF-8, or is too long; RESOURCE_EXHAUSTED when splitting it
  // takes more work than any text should.
  absl::StatusOr<std::vector<TokenId>> Encode(
      absl::string_view text, const EncodeOptions& options) const;

  // A part of a text, and whether special tokens are recognised in it.
  struct Piece {
    absl::string_view text;
    bool parse_special;
  };

  // The ids of the one text that `pieces` make together: words and merges go
  // across them, but a special token is recognised only where neighbouring
  // pieces that allow it spell it out: not one byte of it may come from
  // another. For prompts made of trusted and of foreign text. Errors as above.
  absl::StatusOr<std::vector<TokenId>> EncodePieces(
      absl::Span<const Piece> pieces, bool add_bos) const;

  // The bytes a token stands for; special tokens are spelled out.
  // REQUIRES: 0 <= id < vocab_size().
  absl::string_view TokenBytes(TokenId id) const;

  // Whether the token is a control token, not text.
  bool IsSpecial(TokenId id) const;

  // Ids to UTF-8 text: bytes joined, what is not UTF-8 replaced by U+FFFD.
  // Special tokens are dropped unless `keep_special`. The ids are those of a
  // whole text: the space that Encode() puts before one, where the model wants
  // it, is dropped again.
  std::string Decode(absl::Span<const TokenId> ids, bool keep_special) const;

  int vocab_size() const;
  TokenId bos_id() const;  // -1 if there is none
  TokenId eos_id() const;  // the one the file calls so; -1 if there is none
  bool adds_bos() const;
  // Ids that end a sequence: eos, eot, and <|eot_id|> where it exists, with
  // <|end_of_text|>. May be empty.
  const std::vector<TokenId>& end_ids() const;

  // What a tokenizer is made of; model/tokenizer_state.h.
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);

 private:
  friend class IncrementalDecoder;

  // Appends a token's bytes, less what is to be dropped at the start of a text.
  // `*n_droppable` is how much that may still be, and is kept up to date.
  void AppendBytes(TokenId id, int* n_droppable, std::string* bytes) const;
  int n_droppable() const;

  const std::unique_ptr<const State> state_;
};

// Turns a stream of tokens into text, never giving out half a UTF-8 character:
// bytes wait until their character is complete. Not thread-safe.
class IncrementalDecoder {
 public:
  // `tokenizer` outlives the decoder. The tokens go on from a prompt, unless
  // `begins_text` says that they are a text from its beginning, as Decode()
  // takes them: a word that follows a prompt keeps the space before it.
  explicit IncrementalDecoder(const Tokenizer* tokenizer,
                              bool begins_text = false)
      : tokenizer_(tokenizer),
        n_droppable_(begins_text ? tokenizer->n_droppable() : 0) {}

  // Takes the next token and returns the text that is complete now; invalid
  // bytes become U+FFFD as soon as they are known to be invalid. Special tokens
  // give no text.
  std::string Next(TokenId id);

  // Ends the stream: what is still incomplete becomes one U+FFFD.
  std::string Finish();

 private:
  const Tokenizer* const tokenizer_;
  int n_droppable_;      // see Tokenizer::AppendBytes
  std::string pending_;  // at most 3 bytes: the start of a character
};

}  // namespace tern

#endif  // MODEL_TOKENIZER_H_
