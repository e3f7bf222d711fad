#include "cli/generate.h"

#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/generation_flags.h"
#include "cli/model_flag.h"
#include "cli/readiness.h"
#include "cli/report.h"
#include "cli/resume_flag.h"
#include "cli/text_input.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/clock.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, prompt_file, "", "File with the prompt, UTF-8.");
ABSL_FLAG(int, n, 1,
          "How many answers to draw, in [1, 16]; they are printed one after "
          "the other.");
ABSL_FLAG(bool, echo, false, "Prints the prompt in front of the answer.");
ABSL_FLAG(int, logprobs, 0,
          "Prints after the answer a table of its tokens: log-probability, id, "
          "text, and that many of the likeliest tokens at its place, in "
          "[0, 20]. Left out: no table.");
ABSL_FLAG(
    int, prompt_logprobs, 0,
    "Prints in front of the answer the same table of the prompt's tokens, "
    "from the second on, with that many of the likeliest, in [0, 20]. "
    "Left out: no table.");
ABSL_FLAG(std::string, request_id, "",
          "Name of the request, up to 128 characters. Left out, one is made "
          "up.");
ABSL_FLAG(bool, stats, false,
          "Says on stderr at the end how many tokens there were and how fast.");
ABSL_FLAG(bool, print_ids, false,
          "Prints the ids of the tokens, separated by spaces, instead of the "
          "text.");

namespace tern {
namespace {

absl::StatusOr<v1::GenerateRequest> MakeRequest(const Arguments& arguments) {
  v1::GenerateRequest request;
  ASSIGN_OR_RETURN(*request.mutable_text(),
                   ReadText(arguments, absl::GetFlag(FLAGS_prompt_file)));
  request.set_model(ModelFromFlag());
  request.set_request_id(absl::GetFlag(FLAGS_request_id));

  RETURN_IF_ERROR(SetGenerationParameters(arguments, &request));
  if (arguments.Has("n")) {
    request.mutable_sampling()->set_sample_count(absl::GetFlag(FLAGS_n));
  }
  v1::ResponseOptions& response = *request.mutable_response_options();
  if (absl::GetFlag(FLAGS_print_ids)) response.set_return_token_ids(true);
  if (absl::GetFlag(FLAGS_echo)) response.set_echo(true);
  if (arguments.Has("logprobs")) {
    response.set_logprobs(absl::GetFlag(FLAGS_logprobs));
  }
  if (arguments.Has("prompt_logprobs")) {
    response.set_prompt_logprobs(absl::GetFlag(FLAGS_prompt_logprobs));
  }
  return request;
}

// One line of a table of log-probabilities: the token, then its alternatives.
std::string LogprobLine(const v1::TokenLogprob& token) {
  const auto quoted = [](const std::string& piece) {
    return absl::StrCat("\"", absl::Utf8SafeCEscape(piece), "\"");
  };
  std::string line = absl::StrFormat("%9.4f  %7d  %s", token.logprob(),
                                     token.token_id(), quoted(token.piece()));
  for (int i = 0; i < token.alternatives_size(); ++i) {
    const v1::TokenAlternative& other = token.alternatives(i);
    absl::StrAppendFormat(&line, "%s%s %.4f", i == 0 ? "  of " : ", ",
                          quoted(other.piece()), other.logprob());
  }
  return absl::StrCat(line, "\n");
}

// Prints answers as they come, and keeps what is to be said about them. Of
// several, the first that has not ended is shown as it grows; the later ones
// wait for their turn.
class Printer {
 public:
  Printer(bool print_ids, int n_answers)
      : print_ids_(print_ids),
        n_answers_(n_answers),
        start_(Clock::System()->Now()) {}

  void Print(const v1::StreamGenerateResponse& message) {
    if (message.has_prompt_info()) info_ = message.prompt_info();
    if (message.has_usage()) usage_ = message.usage();
    for (const v1::NumericsChange& change : message.numerics_changes()) {
      numerics_changes_.push_back(change);
    }
    for (const v1::TokenLogprob& token : message.prompt_logprobs()) {
      std::cout << LogprobLine(token);
    }
    if (!message.has_delta()) return;
    last_ = Clock::System()->Now();
    if (!begun_) first_ = last_;
    begun_ = true;
    const v1::Candidate& delta = message.delta();
    Answer& answer = answers_[delta.index()];
    if (print_ids_) {
      for (const int32_t id : delta.token_ids()) {
        absl::StrAppend(&answer.waiting, answer.has_ids ? " " : "", id);
        answer.has_ids = true;
      }
    } else {
      answer.waiting += delta.text();
    }
    for (const v1::TokenLogprob& token : delta.logprobs()) {
      answer.table += LogprobLine(token);
    }
    if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      answer.ended = true;
      finish_reason_ = delta.finish_reason();
    }
    Show();
    std::cout << std::flush;
  }

  // Whatever comes next starts on a line of its own.
  void EndLine() {
    if (begun_ && !ends_line_) std::cout << std::endl;
    ends_line_ = true;
  }

  // A line for each place where an answer went on with another arithmetic.
  std::string NumericsChanges() const {
    std::string text;
    for (const v1::NumericsChange& change : numerics_changes_) {
      absl::StrAppend(
          &text, "note: ",
          n_answers_ > 1
              ? absl::StrCat("answer ", change.candidate_index() + 1, ", ")
              : "",
          "behind token ", change.output_token_count(),
          " the cluster went on with another arithmetic (",
          change.numerics_id(), ", begun with ", info_.numerics_id(),
          "): the tokens may be others than they would have been\n");
    }
    return text;
  }

  std::string Stats() const {
    const int n = usage_.output_token_count();
    // The first token waits for the whole prompt; the rate is that of the rest.
    const absl::Duration decode = last_ - first_;
    std::string stats = absl::StrCat(n, " tokens");
    if (n_answers_ > 1) {
      absl::StrAppend(&stats, " in ", n_answers_, " answers");
    }
    if (n > 1 && decode > absl::ZeroDuration()) {
      absl::StrAppend(&stats,
                      absl::StrFormat(", %.1f tok/s",
                                      (n - 1) / absl::ToDoubleSeconds(decode)));
    }
    absl::StrAppend(
        &stats,
        absl::StrFormat(", first token after %.0f ms",
                        absl::ToDoubleMilliseconds(first_ - start_)),
        ", prompt of ", usage_.prompt_token_count(), " tokens");
    if (n_answers_ == 1) {
      if (finish_reason_ == v1::FINISH_REASON_LENGTH)
        stats += ", ended by length";
      if (finish_reason_ == v1::FINISH_REASON_STOP)
        stats += ", ended by itself";
    }
    return absl::StrCat(stats, ", seed ", info_.seed(), ", request ",
                        info_.request_id());
  }

 private:
  struct Answer {
    std::string waiting;  // to be printed
    std::string table;    // of log-probabilities, printed at its end
    bool has_ids = false;
    bool titled = false;
    bool ended = false;
  };

  void Show() {
    for (auto it = answers_.find(shown_); it != answers_.end();
         it = answers_.find(++shown_)) {
      Answer& answer = it->second;
      if (n_answers_ > 1 && !answer.titled) {
        std::cout << "answer " << shown_ + 1 << " of " << n_answers_ << ":\n";
        answer.titled = true;
      }
      std::cout << answer.waiting;
      if (!answer.waiting.empty()) {
        ends_line_ = answer.waiting.back() == '\n';
        answer.waiting.clear();
      }
      if (!answer.ended) return;
      if (n_answers_ > 1 || !answer.table.empty()) EndLine();
      std::cout << answer.table;
    }
  }

  const bool print_ids_;
  const int n_answers_;
  const absl::Time start_;
  absl::Time first_ = start_;
  absl::Time last_ = start_;
  bool begun_ = false;
  bool ends_line_ = false;
  std::map<int, Answer> answers_;  // by index
  int shown_ = 0;                  // index of the one being shown
  v1::FinishReason finish_reason_ = v1::FINISH_REASON_UNSPECIFIED;
  v1::PromptInfo info_;
  v1::Usage usage_;
  std::vector<v1::NumericsChange> numerics_changes_;
};

absl::Status Generate(const v1::GenerateRequest& request,
                      const ClientOptions& options) {
  Cancellation* const cancellation = CancelledByUser();
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  const absl::Duration wait = WaitFromFlag();
  if (wait > absl::ZeroDuration()) {
    RETURN_IF_ERROR(
        WaitUntilReady(client.get(), request.model(), wait, cancellation));
  }
  Printer printer(absl::GetFlag(FLAGS_print_ids), absl::GetFlag(FLAGS_n));
  CallOptions call;
  call.cancellation = cancellation;
  SetResume(&call);
  const absl::Status status = client->StreamGenerate(
      request,
      [&](const v1::StreamGenerateResponse& message) {
        printer.Print(message);
        return true;
      },
      call);
  printer.EndLine();
  RETURN_IF_ERROR(status);
  std::cerr << printer.NumericsChanges();
  if (absl::GetFlag(FLAGS_stats)) std::cerr << printer.Stats() << std::endl;
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  const ClientOptions options = ClientOptionsFromFlags();
  const auto request = MakeRequest(arguments);
  if (!request.ok()) {
    return ReportUsage("generate", std::string(request.status().message()));
  }
  return Report(Generate(*request, options), options.server);
}

}  // namespace

Command GenerateCommand() {
  return {"generate",
          "stream a model's answer to a prompt",
          R"(usage: tern generate [FLAGS] PROMPT
       tern generate [FLAGS] --prompt_file=FILE
       tern generate [FLAGS] < FILE

Sends the prompt to the cluster and prints the answer as it comes. Ctrl-C ends
the request in the cluster too. An answer whose connection breaks goes on where
it was, for as long as --resume says. With --n, answers after the first are
printed when those before them have ended.
)",
          {"cli/generate.cc", kGenerationFlagsFile, kModelFlagFile,
           kResumeFlagFile, kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
