#include "cli/chat.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/generation_flags.h"
#include "cli/interrupt.h"
#include "cli/model_flag.h"
#include "cli/readiness.h"
#include "cli/report.h"
#include "cli/resume_flag.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, system, "",
          "System message: instructions for the whole conversation.");

namespace tern {
namespace {

constexpr char kCommands[] =
    R"(/system TEXT   sets the system message; without TEXT there is none
/new           starts a new conversation with the same system message; so does
               /reset
/help          says this
/quit          ends the program; so does Ctrl-D
//...          a message that begins with one slash
)";

// A conversation from the user's side: prints answers as they come, and what
// else there is to say on stderr.
class Chat {
 public:
  // `request` has everything but the conversation. `client` outlives it.
  Chat(Client* client, v1::GenerateRequest request, int context_length)
      : client_(client),
        request_(std::move(request)),
        context_length_(context_length) {}

  void SetSystem(absl::string_view text) { system_ = std::string(text); }
  void StartAnew() { turns_.clear(); }

  // Sends a message and prints the answer. After an error the conversation is
  // as it was before; CANCELLED keeps what came of the answer.
  absl::Status Say(absl::string_view text) {
    turns_.push_back(MakeMessage(v1::CHAT_ROLE_USER, text));
    auto& messages = *request_.mutable_chat()->mutable_messages();
    messages.Clear();
    if (!system_.empty()) {
      *messages.Add() = MakeMessage(v1::CHAT_ROLE_SYSTEM, system_);
    }
    messages.Add(turns_.begin(), turns_.end());
    std::string answer;
    v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
    v1::Usage usage;
    absl::Status status;
    {
      InterruptibleCall interruptible;
      CallOptions call;
      call.cancellation = interruptible.cancellation();
      SetResume(&call);
      status = client_->StreamGenerate(
          request_,
          [&](const v1::StreamGenerateResponse& message) {
            if (message.has_usage()) usage = message.usage();
            if (message.delta().finish_reason() !=
                v1::FINISH_REASON_UNSPECIFIED) {
              finish_reason = message.delta().finish_reason();
            }
            answer += message.delta().text();
            std::cout << message.delta().text() << std::flush;
            return true;
          },
          call);
    }
    if (status.ok() || !answer.empty()) {
      if (!absl::EndsWith(answer, "\n")) std::cout << std::endl;
    }
    if (status.ok() || (absl::IsCancelled(status) && !answer.empty())) {
      turns_.push_back(MakeMessage(v1::CHAT_ROLE_ASSISTANT, answer));
    } else {
      turns_.pop_back();
    }
    RETURN_IF_ERROR(status);
    if (finish_reason == v1::FINISH_REASON_LENGTH) SayThatItWasCut(usage);
    return absl::OkStatus();
  }

  bool has_history() const { return !turns_.empty(); }

 private:
  static v1::ChatMessage MakeMessage(v1::ChatRole role,
                                     absl::string_view content) {
    v1::ChatMessage message;
    message.set_role(role);
    message.set_content(std::string(content));
    return message;
  }

  void SayThatItWasCut(const v1::Usage& usage) const {
    if (usage.prompt_token_count() + usage.output_token_count() >=
        context_length_) {
      std::cerr << "[The answer was cut: the conversation fills the model's "
                   "context of "
                << context_length_ << " tokens; /new starts another.]"
                << std::endl;
    } else {
      std::cerr << "[The answer was cut after " << usage.output_token_count()
                << " tokens; --max_tokens allows more.]" << std::endl;
    }
  }

  Client* const client_;
  v1::GenerateRequest request_;
  const int context_length_;
  std::string system_;                  // empty: none
  std::vector<v1::ChatMessage> turns_;  // without the system message
};

// Obeys a line that begins with a slash. False for /quit.
absl::StatusOr<bool> Obey(absl::string_view line, Chat* chat) {
  const absl::string_view command = line.substr(0, line.find(' '));
  const absl::string_view rest =
      absl::StripAsciiWhitespace(line.substr(command.size()));
  if (command == "/quit" || command == "/exit") return false;
  if (command == "/help") {
    std::cerr << kCommands;
  } else if (command == "/new" || command == "/reset") {
    chat->StartAnew();
  } else if (command == "/system") {
    chat->SetSystem(rest);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no command ", command,
                     "; /help lists those there are, and a message that "
                     "begins with a slash begins with two"));
  }
  return true;
}

// Reads lines to the end of stdin. At a terminal an error costs its message
// alone; elsewhere it ends the conversation, which would go wrong from there.
absl::Status Converse(Chat* chat, bool is_interactive,
                      const std::string& server) {
  std::string line;
  for (;;) {
    if (is_interactive) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) break;
    absl::string_view text = absl::StripAsciiWhitespace(line);
    if (text.empty()) continue;
    absl::Status status;
    if (absl::StartsWith(text, "/") && !absl::StartsWith(text, "//")) {
      const absl::StatusOr<bool> goes_on = Obey(text, chat);
      if (goes_on.ok() && !*goes_on) return absl::OkStatus();
      status = goes_on.status();
    } else {
      if (absl::StartsWith(text, "//")) text.remove_prefix(1);
      status = chat->Say(text);
      if (absl::IsInvalidArgument(status) && chat->has_history()) {
        status = absl::InvalidArgumentError(
            absl::StrCat(status.message(),
                         "; the message was taken back, and /new starts "
                         "a new conversation"));
      }
    }
    if (!is_interactive) {
      RETURN_IF_ERROR(status);
    } else {
      Report(status, server);
    }
  }
  if (is_interactive) std::cerr << std::endl;
  return absl::OkStatus();
}

absl::Status Run(v1::GenerateRequest request, const ClientOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  v1::Model model;
  {
    InterruptibleCall interruptible;
    if (WaitFromFlag() > absl::ZeroDuration()) {
      RETURN_IF_ERROR(WaitUntilReady(client.get(), request.model(),
                                     WaitFromFlag(),
                                     interruptible.cancellation()));
    }
    CallOptions call;
    call.cancellation = interruptible.cancellation();
    v1::GetModelRequest get_model;
    get_model.set_model(request.model());
    ASSIGN_OR_RETURN(const v1::GetModelResponse response,
                     client->GetModel(get_model, call));
    model = response.model();
  }
  if (!model.has_chat_template()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the model ", model.name(),
        " takes no conversations: it has no chat template, or one that cannot "
        "be read, which the coordinator's log tells; `tern generate` sends it "
        "plain text, and `coordinator --chat_template=FILE` gives it a "
        "template"));
  }
  const bool is_interactive = isatty(STDIN_FILENO) == 1;
  if (is_interactive) {
    std::cerr << "Talking to " << model.name() << ", up to "
              << model.context_length()
              << " tokens. /help lists commands, Ctrl-C stops an answer, "
                 "Ctrl-D ends."
              << std::endl;
  }
  Chat chat(client.get(), std::move(request), model.context_length());
  chat.SetSystem(absl::GetFlag(FLAGS_system));
  return Converse(&chat, is_interactive, options.server);
}

ExitCode RunChat(const Arguments& arguments) {
  if (!arguments.positional.empty()) {
    return ReportUsage("chat",
                       "messages come from the terminal or from stdin, one a "
                       "line, not from the command line");
  }
  v1::GenerateRequest request;
  request.set_model(ModelFromFlag());
  const absl::Status valid = SetGenerationParameters(arguments, &request);
  if (!valid.ok()) return ReportUsage("chat", std::string(valid.message()));
  const ClientOptions options = ClientOptionsFromFlags();
  return Report(Run(std::move(request), options), options.server);
}

}  // namespace

Command ChatCommand() {
  return {"chat",
          "talk to a model that takes conversations",
          absl::StrCat(R"(usage: tern chat [FLAGS]
       tern chat [FLAGS] < FILE

Sends each line as a message, with the conversation so far, and prints the
answer as it comes. Ctrl-C stops an answer, and keeps what came of it. Through a
pipe it reads one message a line, and ends at the first error. Lines that begin
with a slash are commands, in a pipe too:

)",
                       kCommands),
          {"cli/chat.cc", kGenerationFlagsFile, kModelFlagFile, kResumeFlagFile,
           kConnectionFlagsFile, kCredentialFlagsFile},
          &RunChat};
}

}  // namespace tern
