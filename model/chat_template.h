#ifndef MODEL_CHAT_TEMPLATE_H_
#define MODEL_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/jinja.h"
#include "model/model_source.h"
#include "model/tokenizer.h"

namespace tern {

// One turn of a conversation.
struct ChatMessage {
  // "system", "user", "assistant" or "tool".
  std::string role;
  // UTF-8.
  std::string content;
};

// A conversation as the text that a model goes on from.
//
// Special tokens that the template writes are spelled out, so the text must be
// tokenised with special tokens recognised, in the pieces of the template only:
// a message that spells one is text. Tokenise the whole text at once and
// not piece by piece, or words at the seams fall into other tokens.
struct ChatPrompt {
  struct Piece {
    std::string text;   // not empty
    bool is_from_user;  // comes out of the content of a message
  };

  // In order. Neighbours are of different origin.
  std::vector<Piece> pieces;
  // Whether the template wrote the beginning-of-sequence token in front. If it
  // did not, the tokenizer adds one where the model wants it.
  bool starts_with_bos = false;

  std::string Text() const;
};

// Puts conversations into the form that a model was trained on, by a template
// in the Jinja language (docs/chat_templates.md).
//
// Pure: the same messages give the same text, on any day. Immutable and
// thread-safe.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT with the line.
  static absl::StatusOr<ChatTemplate> Parse(absl::string_view source);

  // The template that comes with a model, of whatever format.
  //
  // For the architectures "bitnet-b1.58" and "bitnet-25" Tern's own template
  // for BitNet b1.58 2B-4T stands in for the wrong one that the published file
  // holds, known by its "Human: " and "BITNETAssistant", and where there is
  // none, if <|eot_id|> is one of the tokens that end the model's texts.
  // NOT_FOUND when there is no template: a model that continues text and does
  // not chat. INVALID_ARGUMENT when the template cannot be read.
  static absl::StatusOr<ChatTemplate> ForModel(const ModelSource& model,
                                               const Tokenizer& tokenizer);

  // The text of a conversation. `add_generation_prompt` opens the turn of the
  // assistant behind the last message. The tokens are the spellings of the
  // model's own, or empty.
  //
  // INVALID_ARGUMENT when there is no message or there are too many, a role or
  // content is not as ChatMessage says, the template refuses the conversation
  // (many want user and assistant to alternate), or fails.
  absl::StatusOr<std::string> Apply(absl::Span<const ChatMessage> messages,
                                    bool add_generation_prompt,
                                    absl::string_view bos_token,
                                    absl::string_view eos_token) const;

  // The same, with the origin of every byte.
  absl::StatusOr<ChatPrompt> ApplyToPieces(
      absl::Span<const ChatMessage> messages, bool add_generation_prompt,
      absl::string_view bos_token, absl::string_view eos_token) const;

 private:
  explicit ChatTemplate(jinja::Template source) : template_(source) {}

  jinja::Template template_;
};

}  // namespace tern

#endif  // MODEL_CHAT_TEMPLATE_H_
