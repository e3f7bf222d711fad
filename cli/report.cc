#include "cli/report.h"

#include <iostream>

#include "absl/strings/str_cat.h"

namespace tern {
namespace {

std::string HintFor(absl::StatusCode code, const std::string& server) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
      return absl::StrCat(
          "is a coordinator running at ", server,
          ", and does it use TLS just as this command does? `tern doctor` "
          "looks closer, and `tern generate --wait=30s` waits for a cluster "
          "that is starting");
    case absl::StatusCode::kDeadlineExceeded:
      return "--deadline gives it more time";
    case absl::StatusCode::kResourceExhausted:
      return "the cluster has too much to do, or the prompt is too large for "
             "it; try later or with less";
    case absl::StatusCode::kNotFound:
      return "`tern status` lists what there is";
    case absl::StatusCode::kAlreadyExists:
      return "choose another --request_id";
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return "--tls_cert_file says who you are to the cluster";
    case absl::StatusCode::kUnimplemented:
      return absl::StrCat("what listens at ", server,
                          " is no Tern coordinator, or of another version");
    default:
      return "";
  }
}

}  // namespace

ExitCode Report(const absl::Status& status, const std::string& server) {
  if (status.ok()) return kExitOk;
  if (absl::IsCancelled(status)) {
    std::cerr << "tern: CANCELLED: " << status.message() << std::endl;
    return kExitInterrupted;
  }
  std::cerr << "tern: " << absl::StatusCodeToString(status.code()) << ": "
            << status.message() << std::endl;
  const std::string hint = HintFor(status.code(), server);
  if (!hint.empty()) std::cerr << "hint: " << hint << std::endl;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitDeadline;
    default:
      return kExitFailed;
  }
}

ExitCode ReportUsage(const std::string& command, const std::string& message) {
  std::cerr << "tern: " << message << "\nhint: `tern help"
            << (command.empty() ? "" : " ") << command << "` says what there is"
            << std::endl;
  return kExitUsage;
}

}  // namespace tern
