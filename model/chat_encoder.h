#ifndef MODEL_CHAT_ENCODER_H_
#define MODEL_CHAT_ENCODER_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace tern {

// Turns conversations into a model's token ids: template and tokenizer
// together. Immutable and thread-safe.
class ChatEncoder {
 public:
  // `tokenizer` outlives the encoder.
  ChatEncoder(ChatTemplate chat_template, const Tokenizer* tokenizer);

  // The ids of a conversation, with the model's beginning-of-sequence token in
  // front, once, where it wants one. Special tokens come from the template
  // alone: a message that spells one is text. Statuses as those of
  // ChatTemplate::Apply() and Tokenizer::Encode().
  absl::StatusOr<std::vector<TokenId>> Encode(
      absl::Span<const ChatMessage> messages, bool add_generation_prompt) const;

  // Ids that end the assistant's turn: those that end the model's texts, and
  // the special token that the template writes behind the content of an
  // assistant's message, if it does. Each once.
  const std::vector<TokenId>& turn_end_ids() const { return turn_end_ids_; }

 private:
  absl::StatusOr<ChatPrompt> Apply(absl::Span<const ChatMessage> messages,
                                   bool add_generation_prompt) const;
  TokenId TokenBehindAnswers() const;

  const ChatTemplate template_;
  const Tokenizer* const tokenizer_;
  std::vector<TokenId> turn_end_ids_;  // set by the constructor
};

}  // namespace tern

#endif  // MODEL_CHAT_ENCODER_H_
