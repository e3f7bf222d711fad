#include "tests/fuzz/jinja_fuzz.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/jinja.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"
#include "util/logging.h"
#include "util/utf8.h"

namespace tern {
namespace {

using jinja::Origin;
using jinja::Text;
using jinja::Value;

// Characters that no template of ASCII can make by itself, so that where one
// stands is known to be from a message.
constexpr char kUserText[] = " é\u3000<|ü|>\n\"😀\\ ñ ";

jinja::Limits SmallLimits() {
  jinja::Limits limits;
  limits.steps_max = 20000;
  limits.text_bytes_max = 1 << 16;
  limits.list_items_max = 2000;
  return limits;
}

jinja::Variables FuzzVariables(const jinja::Limits& limits) {
  jinja::Budget budget(limits);
  jinja::List messages;
  for (const char* role : {"system", "user", "assistant"}) {
    messages.push_back(
        *Value::MakeDict({{Value::String("role"), Value::String(role)},
                          {Value::String("content"),
                           Value::String(Text(kUserText, Origin::kUser))}},
                         &budget));
  }
  return {{"messages", *Value::MakeList(messages, &budget)},
          {"bos_token", Value::String("<s>")},
          {"eos_token", Value::String("</s>")},
          {"add_generation_prompt", Value::Bool(true)},
          {"tools", Value::None()},
          {"t", Value::String(Text(kUserText, Origin::kUser))},
          {"n", Value::Int(3)}};
}

bool IsAscii(absl::string_view text) {
  for (char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return false;
  }
  return true;
}

void CheckText(const Text& text, bool is_ascii_source,
               const jinja::Limits& limits) {
  CHECK(text.size() <= static_cast<size_t>(limits.text_bytes_max));
  CHECK(FindInvalidUtf8(text.bytes()) == absl::string_view::npos);
  size_t begin = 0;
  const Text::Run* last = nullptr;
  for (const Text::Run& run : text.runs()) {
    CHECK(run.end > begin);
    CHECK(last == nullptr || last->origin != run.origin);
    if (is_ascii_source && run.origin == Origin::kTemplate) {
      CHECK(IsAscii(text.bytes().substr(begin, run.end - begin)))
          << "text of a message passes as the template's";
    }
    begin = run.end;
    last = &run;
  }
  CHECK(begin == text.size());
}

}  // namespace

JinjaDepth ExerciseJinja(absl::string_view source) {
  const jinja::Limits limits = SmallLimits();
  const absl::StatusOr<jinja::Template> parsed =
      jinja::Template::Parse(source, limits);
  if (!parsed.ok()) {
    CHECK(absl::IsInvalidArgument(parsed.status())) << parsed.status();
    return JinjaDepth::kRefused;
  }
  const jinja::Variables variables = FuzzVariables(limits);
  const absl::StatusOr<Text> text = parsed->Render(variables);
  const absl::StatusOr<Text> again = parsed->Render(variables);
  CHECK(text.status() == again.status());
  if (!text.ok()) {
    CHECK(absl::IsInvalidArgument(text.status())) << text.status();
    CHECK(FindInvalidUtf8(text.status().message()) == absl::string_view::npos);
    return JinjaDepth::kParsed;
  }
  CHECK(text->bytes() == again->bytes() && text->runs() == again->runs());
  // An escape in a string can spell any character.
  const bool is_plain =
      IsAscii(source) && source.find('\\') == absl::string_view::npos;
  CheckText(*text, is_plain, limits);
  return JinjaDepth::kRendered;
}

}  // namespace tern
