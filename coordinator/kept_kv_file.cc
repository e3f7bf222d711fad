#include "coordinator/kept_kv_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/record_file.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kFileName[] = "kept_kv.state";

}  // namespace

absl::Status WriteKeptKvFile(const std::string& folder,
                             const std::vector<KeptKvOfModel>& all) {
  const std::string bytes = EncodeKeptKvs(all);
  if (bytes.size() > kMaxRecordBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("what KV blocks hold takes ", bytes.size(),
                     " bytes, more than a record's ", kMaxRecordBytes));
  }
  return ReplaceRecordFile(folder, kFileName, bytes);
}

std::vector<KeptKvOfModel> TakeKeptKvFile(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kFileName);
  std::vector<KeptKvOfModel> all;
  const absl::StatusOr<int64_t> read =
      ReadRecords(path, [&all](absl::string_view payload) {
        ASSIGN_OR_RETURN(all, ParseKeptKvs(payload));
        return absl::OkStatus();
      });
  if (absl::IsNotFound(read.status())) return {};
  absl::Status status = read.status();
  // Whoever reads it again would take old content for new.
  if (unlink(path.c_str()) != 0) {
    status = absl::UnavailableError(
        absl::StrCat(path, " cannot be removed: ", strerror(errno)));
  }
  if (status.ok()) return all;
  LOG(WARNING) << "event=kept_kv_not_read status=" << status
               << "; what workers have in their KV blocks is computed again";
  return {};
}

}  // namespace tern
