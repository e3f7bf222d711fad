#include "cli/generate.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/model_flag.h"
#include "cli/readiness.h"
#include "cli/report.h"
#include "cli/text_input.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/clock.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, prompt_file, "", "File with the prompt, UTF-8.");
ABSL_FLAG(float, temperature, 1,
          "Logits are divided by it, in [0, 100]. 0: always the most likely "
          "token.");
ABSL_FLAG(int, top_k, 0, "Keeps the k most likely tokens. 0: all.");
ABSL_FLAG(float, top_p, 1,
          "Keeps the fewest most likely tokens whose probabilities add up to "
          "at least this, in (0, 1].");
ABSL_FLAG(float, min_p, 0,
          "Drops tokens less likely than this share of the most likely one's "
          "probability, in [0, 1].");
ABSL_FLAG(int64_t, seed, 0,
          "Seed of the random numbers: the same one gives the same text. Left "
          "out, the cluster draws one, which --stats shows.");
ABSL_FLAG(int, max_tokens, 256, "Most tokens to produce, at least 1.");
ABSL_FLAG(std::string, stop, "",
          "Text that ends the answer and is not part of it; \\n, \\t and \\\\ "
          "stand for the usual characters. May be given up to 16 times.");
ABSL_FLAG(std::string, stop_token_ids, "",
          "Token ids that end the answer, separated by commas.");
ABSL_FLAG(bool, ignore_eos, false,
          "Goes on past the model's end-of-sequence tokens.");
ABSL_FLAG(std::string, request_id, "",
          "Name of the request, up to 128 characters. Left out, one is made "
          "up.");
ABSL_FLAG(absl::Duration, wait, absl::ZeroDuration(),
          "How long to wait for a cluster that is still loading, such as 30s.");
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

  // What the user left out is left out: the defaults are the cluster's.
  v1::SamplingParameters& sampling = *request.mutable_sampling();
  if (arguments.Has("temperature")) {
    sampling.set_temperature(absl::GetFlag(FLAGS_temperature));
  }
  if (arguments.Has("top_k")) sampling.set_top_k(absl::GetFlag(FLAGS_top_k));
  if (arguments.Has("top_p")) sampling.set_top_p(absl::GetFlag(FLAGS_top_p));
  if (arguments.Has("min_p")) sampling.set_min_p(absl::GetFlag(FLAGS_min_p));
  if (arguments.Has("seed")) sampling.set_seed(absl::GetFlag(FLAGS_seed));

  v1::StoppingParameters& stopping = *request.mutable_stopping();
  if (arguments.Has("max_tokens")) {
    stopping.set_max_output_tokens(absl::GetFlag(FLAGS_max_tokens));
  }
  if (arguments.Has("stop")) {
    for (const std::string& text : arguments.given.at("stop")) {
      std::string error;
      if (!absl::CUnescape(text, stopping.add_stop_strings(), &error)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--stop=", text, ": ", error));
      }
    }
  }
  for (absl::string_view id : absl::StrSplit(
           absl::GetFlag(FLAGS_stop_token_ids), ',', absl::SkipEmpty())) {
    int32_t number;
    if (!absl::SimpleAtoi(id, &number)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--stop_token_ids: \"", id, "\" is no token id"));
    }
    stopping.add_stop_token_ids(number);
  }
  if (absl::GetFlag(FLAGS_ignore_eos)) {
    stopping.set_ignore_end_of_sequence(true);
  }
  if (absl::GetFlag(FLAGS_print_ids)) {
    request.mutable_response_options()->set_return_token_ids(true);
  }
  return request;
}

// Prints an answer as it comes, and keeps what is to be said about it.
class Printer {
 public:
  explicit Printer(bool print_ids)
      : print_ids_(print_ids), start_(Clock::System()->Now()) {}

  void Print(const v1::StreamGenerateResponse& message) {
    if (message.has_prompt_info()) info_ = message.prompt_info();
    if (message.has_usage()) usage_ = message.usage();
    if (!message.has_delta()) return;
    last_ = Clock::System()->Now();
    if (!begun_) first_ = last_;
    if (print_ids_) {
      for (const int32_t id : message.delta().token_ids()) {
        std::cout << (begun_ ? " " : "") << id;
        begun_ = true;
      }
    } else {
      std::cout << message.delta().text();
      if (!message.delta().text().empty()) {
        ends_line_ = message.delta().text().back() == '\n';
      }
    }
    begun_ = true;
    std::cout << std::flush;
    if (message.delta().finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      finish_reason_ = message.delta().finish_reason();
    }
  }

  // Whatever comes next starts on a line of its own.
  void EndLine() {
    if (begun_ && !ends_line_) std::cout << std::endl;
    ends_line_ = true;
  }

  std::string Stats() const {
    const int n = usage_.output_token_count();
    // The first token waits for the whole prompt; the rate is that of the rest.
    const absl::Duration decode = last_ - first_;
    std::string stats = absl::StrCat(n, " tokens");
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
    if (finish_reason_ == v1::FINISH_REASON_LENGTH)
      stats += ", ended by length";
    if (finish_reason_ == v1::FINISH_REASON_STOP) stats += ", ended by itself";
    return absl::StrCat(stats, ", seed ", info_.seed(), ", request ",
                        info_.request_id());
  }

 private:
  const bool print_ids_;
  const absl::Time start_;
  absl::Time first_ = start_;
  absl::Time last_ = start_;
  bool begun_ = false;
  bool ends_line_ = false;
  v1::FinishReason finish_reason_ = v1::FINISH_REASON_UNSPECIFIED;
  v1::PromptInfo info_;
  v1::Usage usage_;
};

absl::Status Generate(const v1::GenerateRequest& request,
                      const ClientOptions& options) {
  Cancellation* const cancellation = CancelledByUser();
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  const absl::Duration wait = absl::GetFlag(FLAGS_wait);
  if (wait > absl::ZeroDuration()) {
    RETURN_IF_ERROR(
        WaitUntilReady(client.get(), request.model(), wait, cancellation));
  }
  Printer printer(absl::GetFlag(FLAGS_print_ids));
  CallOptions call;
  call.cancellation = cancellation;
  const absl::Status status = client->StreamGenerate(
      request,
      [&](const v1::StreamGenerateResponse& message) {
        printer.Print(message);
        return true;
      },
      call);
  printer.EndLine();
  RETURN_IF_ERROR(status);
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
the request in the cluster too. A broken connection is tried again as long as
nothing of the answer has been printed.
)",
          {"cli/generate.cc", kModelFlagFile, kConnectionFlagsFile,
           kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
