#include "model/chat_encoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"
#include "util/status_macros.h"

namespace tern {

ChatEncoder::ChatEncoder(ChatTemplate chat_template, const Tokenizer* tokenizer)
    : template_(std::move(chat_template)),
      tokenizer_(tokenizer),
      turn_end_ids_(tokenizer->end_ids()) {
  const TokenId behind = TokenBehindAnswers();
  if (behind >= 0 && std::find(turn_end_ids_.begin(), turn_end_ids_.end(),
                               behind) == turn_end_ids_.end()) {
    turn_end_ids_.push_back(behind);
  }
}

absl::StatusOr<ChatPrompt> ChatEncoder::Apply(
    absl::Span<const ChatMessage> messages, bool add_generation_prompt) const {
  const auto spelling = [this](TokenId id) {
    return id < 0 ? absl::string_view() : tokenizer_->TokenBytes(id);
  };
  return template_.ApplyToPieces(messages, add_generation_prompt,
                                 spelling(tokenizer_->bos_id()),
                                 spelling(tokenizer_->eos_id()));
}

absl::StatusOr<std::vector<TokenId>> ChatEncoder::Encode(
    absl::Span<const ChatMessage> messages, bool add_generation_prompt) const {
  ASSIGN_OR_RETURN(const ChatPrompt prompt,
                   Apply(messages, add_generation_prompt));
  std::vector<Tokenizer::Piece> pieces;
  pieces.reserve(prompt.pieces.size());
  for (const ChatPrompt::Piece& piece : prompt.pieces) {
    pieces.push_back({piece.text, !piece.is_from_user});
  }
  return tokenizer_->EncodePieces(pieces, !prompt.starts_with_bos);
}

// What the files call the end of a text is often not what the model was trained
// to end a turn with. The template knows: it writes that behind each answer.
TokenId ChatEncoder::TokenBehindAnswers() const {
  // A template may refuse even this; then nothing is known.
  const absl::StatusOr<ChatPrompt> prompt =
      Apply({{"user", "a"}, {"assistant", "b"}},
            /*add_generation_prompt=*/false);
  if (!prompt.ok() || prompt->pieces.size() < 2) return -1;
  const ChatPrompt::Piece& answer = prompt->pieces[prompt->pieces.size() - 2];
  const ChatPrompt::Piece& last = prompt->pieces.back();
  if (!answer.is_from_user || answer.text != "b" || last.is_from_user) {
    return -1;
  }
  const absl::string_view behind = absl::StripLeadingAsciiWhitespace(last.text);
  const auto ids = tokenizer_->EncodePieces({{behind, /*parse_special=*/true}},
                                            /*add_bos=*/false);
  if (!ids.ok() || ids->empty() || !tokenizer_->IsSpecial(ids->front()) ||
      ids->front() == tokenizer_->bos_id()) {
    return -1;
  }
  return ids->front();
}

}  // namespace tern
