#include "coordinator/request_validation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/os_random.h"
#include "model/chat_template.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr absl::Duration kMaxResumeWindow = absl::Minutes(10);
constexpr int kMaxStopStrings = 16;
constexpr size_t kMaxStopStringBytes = 256;
constexpr int kMaxStopTokenIds = 64;
constexpr int kMaxLogitBiases = 1024;
constexpr int kDefaultMaxOutputTokens = 256;

template <typename T>
absl::Status OutOfRange(absl::string_view field, T value,
                        absl::string_view range) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be in ", range));
}

// Written so that NaN fails.
bool InRange(float value, float low, float high) {
  return value >= low && value <= high;
}

absl::Status CheckLogitBias(const v1::SamplingParameters& in, int vocab_size,
                            SamplerParameters* out) {
  if (in.logit_bias().size() > kMaxLogitBiases) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.logit_bias has ", in.logit_bias().size(),
                     " entries; at most ", kMaxLogitBiases, " are taken"));
  }
  for (const auto& [id, bias] : in.logit_bias()) {
    if (id < 0 || id >= vocab_size) {
      return OutOfRange("an id of sampling.logit_bias", id,
                        absl::StrCat("[0, ", vocab_size, ")"));
    }
    if (!InRange(bias, -100, 100)) {
      return OutOfRange(absl::StrCat("sampling.logit_bias[", id, "]"), bias,
                        "[-100, 100]");
    }
    out->logit_bias.emplace_back(id, bias);
  }
  std::sort(out->logit_bias.begin(), out->logit_bias.end());
  return absl::OkStatus();
}

absl::Status CheckSampling(const v1::SamplingParameters& in, int vocab_size,
                           SamplerParameters* out) {
  if (in.has_temperature()) {
    if (!InRange(in.temperature(), 0, 100)) {
      return OutOfRange("sampling.temperature", in.temperature(), "[0, 100]");
    }
    out->temperature = in.temperature();
  }
  if (in.has_top_k()) {
    if (in.top_k() < 0) {
      return OutOfRange("sampling.top_k", in.top_k(),
                        "[1, 2147483647], or 0 to keep all");
    }
    out->top_k = in.top_k();
  }
  if (in.has_top_p()) {
    if (!InRange(in.top_p(), 0, 1) || in.top_p() == 0) {
      return OutOfRange("sampling.top_p", in.top_p(), "(0, 1]");
    }
    out->top_p = in.top_p();
  }
  if (in.has_min_p()) {
    if (!InRange(in.min_p(), 0, 1)) {
      return OutOfRange("sampling.min_p", in.min_p(), "[0, 1]");
    }
    out->min_p = in.min_p();
  }
  if (in.has_repetition_penalty()) {
    const float penalty = in.repetition_penalty();
    if (!InRange(penalty, 0, 10) || penalty == 0) {
      return OutOfRange("sampling.repetition_penalty", penalty, "(0, 10]");
    }
    out->repetition_penalty = penalty;
  }
  if (in.has_frequency_penalty()) {
    const float penalty = in.frequency_penalty();
    if (!InRange(penalty, -2, 2)) {
      return OutOfRange("sampling.frequency_penalty", penalty, "[-2, 2]");
    }
    out->frequency_penalty = penalty;
  }
  if (in.has_presence_penalty()) {
    const float penalty = in.presence_penalty();
    if (!InRange(penalty, -2, 2)) {
      return OutOfRange("sampling.presence_penalty", penalty, "[-2, 2]");
    }
    out->presence_penalty = penalty;
  }
  return CheckLogitBias(in, vocab_size, out);
}

absl::Status CheckStopping(const v1::StoppingParameters& in,
                           const ServedModel& model, bool is_chat,
                           CheckedRequest* out) {
  SequenceParameters& parameters = out->parameters;
  parameters.max_output_tokens = kDefaultMaxOutputTokens;
  if (in.has_max_output_tokens()) {
    if (in.max_output_tokens() < 1) {
      return OutOfRange("stopping.max_output_tokens", in.max_output_tokens(),
                        "[1, 2147483647]");
    }
    parameters.max_output_tokens = in.max_output_tokens();
  }
  if (in.has_min_output_tokens()) {
    if (in.min_output_tokens() < 0) {
      return OutOfRange("stopping.min_output_tokens", in.min_output_tokens(),
                        "[0, 2147483647]");
    }
    if (in.min_output_tokens() > parameters.max_output_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("stopping.min_output_tokens is ", in.min_output_tokens(),
                       "; it must not exceed max_output_tokens, which is ",
                       parameters.max_output_tokens));
    }
    parameters.min_output_tokens = in.min_output_tokens();
  }
  if (in.stop_strings_size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.stop_strings has ", in.stop_strings_size(),
                     " entries; at most ", kMaxStopStrings, " are taken"));
  }
  for (const std::string& stop : in.stop_strings()) {
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("stopping.stop_strings has an entry of ", stop.size(),
                       " bytes; each must have 1 to ", kMaxStopStringBytes));
    }
    out->stop_strings.push_back(stop);
  }
  if (in.stop_token_ids_size() > kMaxStopTokenIds) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.stop_token_ids has ", in.stop_token_ids_size(),
                     " entries; at most ", kMaxStopTokenIds, " are taken"));
  }
  for (int32_t id : in.stop_token_ids()) {
    if (id < 0 || id >= model.config.vocab_size) {
      return OutOfRange("an id of stopping.stop_token_ids", id,
                        absl::StrCat("[0, ", model.config.vocab_size, ")"));
    }
    parameters.stop_token_ids.push_back(id);
  }
  if (!in.ignore_end_of_sequence()) {
    const std::vector<TokenId>& end_ids = is_chat && model.chat != nullptr
                                              ? model.chat->turn_end_ids()
                                              : model.tokenizer->end_ids();
    for (int32_t id : end_ids) parameters.stop_token_ids.push_back(id);
  }
  std::vector<int32_t>& stops = parameters.stop_token_ids;
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  if (parameters.min_output_tokens > 0 &&
      stops.size() >= static_cast<size_t>(model.config.vocab_size)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stopping.min_output_tokens is ", parameters.min_output_tokens,
        ", but every token of the vocabulary is a stop token"));
  }
  return absl::OkStatus();
}

// REQUIRES: `out` has the prompt and the rest of its parameters.
absl::Status CheckLogprobs(const v1::ResponseOptions& in, CheckedRequest* out) {
  SequenceParameters& parameters = out->parameters;
  int64_t n_logprobs = 0;
  if (in.has_logprobs()) {
    if (in.logprobs() < 0 || in.logprobs() > 20) {
      return OutOfRange("response_options.logprobs", in.logprobs(), "[0, 20]");
    }
    n_logprobs = int64_t{parameters.max_output_tokens} * out->sample_count *
                 (1 + in.logprobs());
    if (n_logprobs > kMaxLogprobs) {
      return absl::InvalidArgumentError(absl::StrCat(
          "response_options.logprobs is ", in.logprobs(), ": up to ",
          parameters.max_output_tokens, " tokens of ", out->sample_count,
          out->sample_count == 1 ? " answer" : " answers",
          ", each with its alternatives, make ", n_logprobs,
          " log-probabilities; at most ", kMaxLogprobs,
          " are returned: lower max_output_tokens, sample_count or logprobs"));
    }
    parameters.sampler.logprobs = in.logprobs();
  }
  if (!in.has_prompt_logprobs()) return absl::OkStatus();
  if (in.prompt_logprobs() < 0 || in.prompt_logprobs() > 20) {
    return OutOfRange("response_options.prompt_logprobs", in.prompt_logprobs(),
                      "[0, 20]");
  }
  const int64_t n_prompt = static_cast<int64_t>(parameters.prompt.size());
  const int64_t n_of_prompt = n_prompt * (1 + in.prompt_logprobs());
  if (n_of_prompt + n_logprobs > kMaxLogprobs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "response_options.prompt_logprobs is ", in.prompt_logprobs(), ": the ",
        n_prompt, " tokens of the prompt, each with its alternatives, make ",
        n_of_prompt, " log-probabilities, and the answer's ", n_logprobs,
        "; at most ", kMaxLogprobs,
        " are returned: lower prompt_logprobs, or shorten the prompt"));
  }
  parameters.sampler.prompt_logprobs = in.prompt_logprobs();
  return absl::OkStatus();
}

// REQUIRES: `out` has everything else.
absl::Status CheckResponseOptions(const v1::GenerateRequest& request,
                                  const ServedModel& model,
                                  CheckedRequest* out) {
  const v1::ResponseOptions& in = request.response_options();
  out->return_token_ids = in.return_token_ids();
  RETURN_IF_ERROR(CheckLogprobs(in, out));
  if (in.echo()) {
    out->echo = request.prompt_case() == v1::GenerateRequest::kText
                    ? request.text()
                    : model.tokenizer->Decode(out->parameters.prompt,
                                              /*keep_special=*/false);
    if (out->echo.size() * out->sample_count > kMaxEchoBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "response_options.echo is set: the prompt of ", out->echo.size(),
          " bytes in front of ", out->sample_count,
          " answers exceeds the limit of ", kMaxEchoBytes, " bytes"));
    }
  }
  return absl::OkStatus();
}

// As chat templates call it; empty for a role that there is none of.
absl::string_view RoleName(v1::ChatRole role) {
  switch (role) {
    case v1::CHAT_ROLE_SYSTEM:
      return "system";
    case v1::CHAT_ROLE_USER:
      return "user";
    case v1::CHAT_ROLE_ASSISTANT:
      return "assistant";
    case v1::CHAT_ROLE_TOOL:
      return "tool";
    default:
      return "";
  }
}

absl::StatusOr<std::vector<int32_t>> ChatIds(const v1::ChatPrompt& chat,
                                             const ServedModel& model) {
  if (model.chat == nullptr) {
    return absl::FailedPreconditionError(model.no_chat);
  }
  if (chat.messages().empty()) {
    return absl::InvalidArgumentError(
        "chat.messages is empty; a conversation has at least 1 message");
  }
  std::vector<ChatMessage> messages;
  messages.reserve(chat.messages_size());
  size_t n_bytes = 0;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    const absl::string_view role = RoleName(message.role());
    if (role.empty()) {
      return OutOfRange(absl::StrCat("chat.messages[", i, "].role"),
                        static_cast<int>(message.role()),
                        "[1, 4]: system, user, assistant or tool");
    }
    n_bytes += message.content().size();
    messages.push_back({std::string(role), message.content()});
  }
  if (n_bytes > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the messages of chat have ", n_bytes, " bytes of content; at most ",
        kMaxTextBytes, " are taken: leave out early ones"));
  }
  return model.chat->Encode(messages, chat.has_add_generation_prompt()
                                          ? chat.add_generation_prompt()
                                          : true);
}

absl::StatusOr<std::vector<int32_t>> PromptOf(
    const v1::GenerateRequest& request, const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText: {
      if (request.text().empty()) {
        return absl::InvalidArgumentError(
            "text is empty; a prompt has at least 1 byte");
      }
      RETURN_IF_ERROR(CheckText("text", request.text()));
      return model.tokenizer->Encode(request.text(), {});
    }
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = request.token_ids().ids();
      if (ids.empty()) {
        return absl::InvalidArgumentError(
            "token_ids is empty; a prompt has at least 1 id");
      }
      for (int i = 0; i < ids.size(); ++i) {
        if (ids[i] >= 0 && ids[i] < model.config.vocab_size) continue;
        return OutOfRange(absl::StrCat("token_ids.ids[", i, "]"), ids[i],
                          absl::StrCat("[0, ", model.config.vocab_size, ")"));
      }
      return std::vector<int32_t>(ids.begin(), ids.end());
    }
    case v1::GenerateRequest::kChat:
      return ChatIds(request.chat(), model);
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the request has no prompt; set text, token_ids or chat");
}

}  // namespace

absl::Status CheckModelName(absl::string_view name, const ServedModel& model) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  if (name.size() > 255) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model has ", name.size(), " bytes; a name has at most 255"));
  }
  return absl::NotFoundError(
      absl::StrCat("no model ", name, "; this cluster serves ", model.name));
}

absl::Status CheckRequestId(absl::string_view request_id) {
  if (!request_id.empty() && request_id.size() <= 128 &&
      std::all_of(request_id.begin(), request_id.end(),
                  [](char c) { return c >= 0x20 && c < 0x7f; })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("request_id has ", request_id.size(),
                   " bytes; it must be 1 to 128 printable ASCII characters"));
}

absl::Status CheckText(absl::string_view field, absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", text.size(), " bytes; at most ",
                     kMaxTextBytes, " are taken"));
  }
  // Protobuf checks this too where it parses; not every caller comes that way.
  const size_t bad = FindInvalidUtf8(text);
  if (bad == absl::string_view::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is not UTF-8 at byte ", bad));
}

absl::StatusOr<absl::Duration> CheckResumeWindow(
    const google::protobuf::Duration& window) {
  const absl::Duration value =
      absl::Seconds(window.seconds()) + absl::Nanoseconds(window.nanos());
  if (value > absl::ZeroDuration() && value <= kMaxResumeWindow) return value;
  return OutOfRange("resume_window", absl::FormatDuration(value),
                    absl::StrCat("(0, ", absl::FormatDuration(kMaxResumeWindow),
                                 "], or left out"));
}

absl::StatusOr<std::vector<int>> CheckFromTokens(
    const v1::ResumeGenerateRequest& resume, const CheckedRequest& request) {
  const bool has_several = resume.from_tokens_size() > 0;
  if (has_several && resume.from_tokens_size() != request.sample_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "from_tokens has ", resume.from_tokens_size(),
        " entries; the request has ", request.sample_count, " candidates"));
  }
  if (resume.from_token() != 0 && (has_several || request.sample_count > 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "from_token is ", resume.from_token(), "; the request has ",
        request.sample_count, " candidates: set from_tokens alone"));
  }
  std::vector<int> from(request.sample_count, resume.from_token());
  if (has_several) {
    from.assign(resume.from_tokens().begin(), resume.from_tokens().end());
  }
  for (const int n : from) {
    if (n < 0 || n > request.parameters.max_output_tokens) {
      return OutOfRange(
          has_several ? "an entry of from_tokens" : "from_token", n,
          absl::StrCat("[0, ", request.parameters.max_output_tokens,
                       "], the most that the answer may have"));
    }
  }
  return from;
}

absl::StatusOr<CheckedRequest> CheckRequest(const v1::GenerateRequest& request,
                                            const ServedModel& model) {
  RETURN_IF_ERROR(CheckModelName(request.model(), model));
  CheckedRequest checked;
  checked.request_id = request.request_id();
  if (checked.request_id.empty()) {
    checked.request_id =
        absl::StrCat("tern-", absl::Hex(OsRandom(), absl::kZeroPad16),
                     absl::Hex(OsRandom(), absl::kZeroPad16));
  } else {
    RETURN_IF_ERROR(CheckRequestId(checked.request_id));
  }
  SequenceParameters& parameters = checked.parameters;
  RETURN_IF_ERROR(CheckSampling(request.sampling(), model.config.vocab_size,
                                &parameters.sampler));
  if (request.sampling().has_sample_count()) {
    checked.sample_count = request.sampling().sample_count();
    if (checked.sample_count < 1 || checked.sample_count > 16) {
      return OutOfRange("sampling.sample_count", checked.sample_count,
                        "[1, 16]");
    }
  }
  RETURN_IF_ERROR(
      CheckStopping(request.stopping(), model, request.has_chat(), &checked));
  if (request.has_priority()) {
    if (request.priority() < -100 || request.priority() > 100) {
      return OutOfRange("priority", request.priority(), "[-100, 100]");
    }
    parameters.priority = request.priority();
  }
  // Drawn seeds are not negative: easier to copy around.
  checked.seed = request.sampling().has_seed()
                     ? request.sampling().seed()
                     : static_cast<int64_t>(OsRandom() >> 1);
  parameters.sampler.seed = static_cast<uint64_t>(checked.seed);

  ASSIGN_OR_RETURN(parameters.prompt, PromptOf(request, model));
  const int n_prompt = static_cast<int>(parameters.prompt.size());
  if (n_prompt == 0) {
    return absl::InvalidArgumentError("the prompt has no tokens");
  }
  const int room = model.config.context_length - n_prompt;
  if (room < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        request.has_chat() ? "the conversation" : "prompt", " has ", n_prompt,
        " tokens; this model takes at most ", model.config.context_length - 1,
        " with at least one token of output",
        request.has_chat() ? ": leave out early messages" : ""));
  }
  parameters.max_output_tokens = std::min(parameters.max_output_tokens, room);
  RETURN_IF_ERROR(CheckResponseOptions(request, model, &checked));
  return checked;
}

}  // namespace tern
