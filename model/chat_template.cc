#include "model/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

using jinja::Value;

constexpr size_t kMessagesMax = 4096;

// BitNet b1.58 2B-4T as it was trained: "User: Hi<|eot_id|>Assistant: ". The
// beginning-of-sequence token comes from the tokenizer.
constexpr char kBitnetTemplate[] =
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim"
    " + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

bool IsBitnet(absl::string_view architecture) {
  return architecture == "bitnet-b1.58" || architecture == "bitnet-25";
}

// The one that a converter of the published file put in; the model never saw
// such turns.
bool IsWrongBitnetTemplate(absl::string_view source) {
  return absl::StrContains(source, "BITNETAssistant") &&
         absl::StrContains(source, "Human: ");
}

bool HasTurnToken(const Tokenizer& tokenizer) {
  const std::vector<TokenId>& ids = tokenizer.end_ids();
  return std::any_of(ids.begin(), ids.end(), [&](TokenId id) {
    return tokenizer.TokenBytes(id) == "<|eot_id|>";
  });
}

// Roles are the server's words once they are one of these: templates build
// special tokens of them ('<|' + role + '|>').
absl::StatusOr<Value> RoleValue(const ChatMessage& message, size_t index) {
  for (absl::string_view known : {"system", "user", "assistant", "tool"}) {
    if (message.role == known) return Value::String(known);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("message ", index,
                   " has a role that is none of system, user, assistant and "
                   "tool"));
}

absl::StatusOr<Value> MessageValues(absl::Span<const ChatMessage> messages) {
  // Outside of the template's own budget.
  jinja::Budget budget{jinja::Limits()};
  jinja::List list;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    ASSIGN_OR_RETURN(Value role, RoleValue(message, i));
    const size_t invalid = FindInvalidUtf8(message.content);
    if (invalid != absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the content of message ", i,
                       " is not UTF-8 at byte offset ", invalid));
    }
    Value content =
        Value::String(jinja::Text(message.content, jinja::Origin::kUser));
    ASSIGN_OR_RETURN(
        Value dict,
        Value::MakeDict({{Value::String("role"), std::move(role)},
                         {Value::String("content"), std::move(content)}},
                        &budget));
    list.push_back(std::move(dict));
  }
  return Value::MakeList(std::move(list), &budget);
}

}  // namespace

std::string ChatPrompt::Text() const {
  std::string text;
  for (const Piece& piece : pieces) text += piece.text;
  return text;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(absl::string_view source) {
  ASSIGN_OR_RETURN(jinja::Template parsed, jinja::Template::Parse(source));
  return ChatTemplate(std::move(parsed));
}

absl::StatusOr<ChatTemplate> ChatTemplate::ForModel(
    const ModelSource& model, const Tokenizer& tokenizer) {
  std::string source = model.chat_template().value_or("");
  if (IsBitnet(model.config().architecture) &&
      (source.empty() || IsWrongBitnetTemplate(source))) {
    source = HasTurnToken(tokenizer) ? kBitnetTemplate : "";
  }
  if (source.empty()) {
    return absl::NotFoundError(
        "the model comes without a chat template: it continues text");
  }
  return Parse(source);
}

absl::StatusOr<std::string> ChatTemplate::Apply(
    absl::Span<const ChatMessage> messages, bool add_generation_prompt,
    absl::string_view bos_token, absl::string_view eos_token) const {
  ASSIGN_OR_RETURN(
      const ChatPrompt prompt,
      ApplyToPieces(messages, add_generation_prompt, bos_token, eos_token));
  return prompt.Text();
}

absl::StatusOr<ChatPrompt> ChatTemplate::ApplyToPieces(
    absl::Span<const ChatMessage> messages, bool add_generation_prompt,
    absl::string_view bos_token, absl::string_view eos_token) const {
  if (messages.empty()) {
    return absl::InvalidArgumentError(
        "a conversation needs at least one message");
  }
  if (messages.size() > kMessagesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the conversation has ", messages.size(),
                     " messages; at most ", kMessagesMax, " are allowed"));
  }
  ASSIGN_OR_RETURN(Value list, MessageValues(messages));
  // What Hugging Face's tokenizers hand to a template.
  ASSIGN_OR_RETURN(
      const jinja::Text text,
      template_.Render({
          {"messages", std::move(list)},
          {"add_generation_prompt", Value::Bool(add_generation_prompt)},
          {"bos_token", Value::String(bos_token)},
          {"eos_token", Value::String(eos_token)},
          {"tools", Value::None()},
          {"documents", Value::None()},
      }));
  ChatPrompt prompt;
  size_t begin = 0;
  for (const jinja::Text::Run& run : text.runs()) {
    prompt.pieces.push_back(
        {std::string(text.bytes().substr(begin, run.end - begin)),
         run.origin == jinja::Origin::kUser});
    begin = run.end;
  }
  prompt.starts_with_bos = !bos_token.empty() && !prompt.pieces.empty() &&
                           !prompt.pieces[0].is_from_user &&
                           absl::StartsWith(prompt.pieces[0].text, bos_token);
  return prompt;
}

}  // namespace tern
