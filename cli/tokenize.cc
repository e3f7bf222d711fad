#include "cli/tokenize.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "cli/connection.h"
#include "cli/model_flag.h"
#include "cli/report.h"
#include "cli/text_input.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(bool, add_special, true,
          "Leaves out the beginning-of-sequence token that prompts get where "
          "the model wants one.");
ABSL_FLAG(bool, parse_special, false,
          "Recognises the spelling of special tokens in the text; otherwise "
          "they are plain text.");

namespace tern {
namespace {

absl::Status Tokenize(const v1::TokenizeRequest& request,
                      const ClientOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  CallOptions call;
  call.cancellation = CancelledByUser();
  ASSIGN_OR_RETURN(const v1::TokenizeResponse response,
                   client->Tokenize(request, call));
  const int n = std::min(response.token_ids_size(), response.pieces_size());
  for (int i = 0; i < n; ++i) {
    std::cout << absl::StrFormat("%7d  \"%s\"\n", response.token_ids(i),
                                 absl::Utf8SafeCEscape(response.pieces(i)));
  }
  std::cout << std::flush;
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  const ClientOptions options = ClientOptionsFromFlags();
  const auto text = ReadText(arguments, "");
  if (!text.ok()) {
    return ReportUsage("tokenize", std::string(text.status().message()));
  }
  v1::TokenizeRequest request;
  request.set_model(ModelFromFlag());
  request.set_text(*text);
  request.set_add_special(absl::GetFlag(FLAGS_add_special));
  request.set_parse_special(absl::GetFlag(FLAGS_parse_special));
  return Report(Tokenize(request, options), options.server);
}

}  // namespace

Command TokenizeCommand() {
  return {"tokenize",
          "show a text as a model's tokens",
          R"(usage: tern tokenize [FLAGS] TEXT
       tern tokenize [FLAGS] < FILE

Prints one line per token: its id, and the bytes it stands for, escaped as in C.
)",
          {"cli/tokenize.cc", kModelFlagFile, kConnectionFlagsFile,
           kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
