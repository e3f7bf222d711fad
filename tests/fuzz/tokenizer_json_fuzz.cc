#include "tests/fuzz/tokenizer_json_fuzz.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr int kVocabSize = 300;

void ExerciseText(const Tokenizer& tokenizer, absl::string_view text) {
  for (bool parse_special : {false, true}) {
    auto ids = tokenizer.Encode(text, {true, parse_special});
    if (!ids.ok()) {
      CHECK(absl::IsInvalidArgument(ids.status()) ||
            absl::IsResourceExhausted(ids.status()))
          << ids.status();
      continue;
    }
    IncrementalDecoder decoder(&tokenizer, /*begins_text=*/true);
    std::string pieces;
    for (TokenId id : *ids) {
      CHECK(id >= 0 && id < tokenizer.vocab_size());
      const std::string piece = decoder.Next(id);
      CHECK(FindInvalidUtf8(piece) == absl::string_view::npos);
      pieces += piece;
    }
    pieces += decoder.Finish();
    CHECK(pieces == tokenizer.Decode(*ids, /*keep_special=*/false));
  }
}

}  // namespace

bool ExerciseTokenizerJson(absl::Span<const uint8_t> bytes) {
  const absl::string_view all(reinterpret_cast<const char*>(bytes.data()),
                              bytes.size());
  const size_t zero = all.find('\0');
  const absl::string_view config =
      zero == absl::string_view::npos ? "" : all.substr(zero + 1);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::FromJson(all.substr(0, zero), config, kVocabSize);
  if (!tokenizer.ok()) {
    CHECK(absl::IsInvalidArgument(tokenizer.status()) ||
          absl::IsUnimplemented(tokenizer.status()) ||
          absl::IsResourceExhausted(tokenizer.status()))
        << tokenizer.status();
    return false;
  }
  CHECK((*tokenizer)->vocab_size() == kVocabSize);
  for (TokenId id : (*tokenizer)->end_ids()) CHECK(id >= 0 && id < kVocabSize);
  if ((*tokenizer)->adds_bos()) CHECK((*tokenizer)->bos_id() >= 0);
  ExerciseText(**tokenizer, "The king's 1234 </s> \n\n élan 😀 aab<x>  ");
  ExerciseText(**tokenizer, "");
  // The file itself is text that its author chose.
  ExerciseText(**tokenizer, all.substr(0, 2000));
  return true;
}

}  // namespace tern
