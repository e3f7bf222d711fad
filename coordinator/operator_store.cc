#include "coordinator/operator_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/record_file.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kFileName[] = "operators.state";

std::string PathIn(const std::string& folder) {
  return absl::StrCat(folder, "/", kFileName);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OperatorStore>> OperatorStore::Open(
    const std::string& folder) {
  const std::string path = PathIn(folder);
  OperatorState state;
  int n_records = 0;
  const absl::StatusOr<int64_t> valid =
      ReadRecords(path, [&](absl::string_view payload) {
        ++n_records;
        ASSIGN_OR_RETURN(state, ParseOperatorState(payload));
        return absl::OkStatus();
      });
  if (absl::IsNotFound(valid.status())) {
    return std::unique_ptr<OperatorStore>(
        new OperatorStore(folder, OperatorState()));
  }
  RETURN_IF_ERROR(valid.status());
  // It takes the old one's place when it is whole: a torn one is damaged.
  if (n_records != 1) {
    return absl::DataLossError(absl::StrCat(
        path, " has ", n_records,
        " whole records and not one: move the file away to start without the "
        "models and drained workers it holds, or bring back an undamaged "
        "copy"));
  }
  return std::unique_ptr<OperatorStore>(
      new OperatorStore(folder, std::move(state)));
}

OperatorStore::OperatorStore(std::string folder, OperatorState state)
    : folder_(std::move(folder)),
      path_(PathIn(folder_)),
      tasks_(kWaitingMax),
      state_(std::move(state)) {
  thread_ = std::thread([this] { Run(); });
}

OperatorStore::~OperatorStore() {
  tasks_.Close();
  thread_.join();
}

OperatorState OperatorStore::state() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

void OperatorStore::Update(std::function<void(OperatorState*)> change,
                           std::function<void(absl::Status)> done) {
  if (tasks_.TryPush({std::move(change), done})) return;
  done(absl::UnavailableError(absl::StrCat(
      path_, ": ", kWaitingMax,
      " changes wait to be written, or the coordinator is shutting down")));
}

void OperatorStore::Run() {
  Task task;
  while (tasks_.Pop(&task)) {
    OperatorState state;
    {
      absl::MutexLock lock(&mu_);
      task.change(&state_);
      state = state_;
    }
    const absl::Status status = Write(state);
    if (!status.ok()) {
      LOG(ERROR) << "event=operator_state_not_written status=" << status;
    }
    task.done(status);
    task = Task();
  }
}

absl::Status OperatorStore::Write(const OperatorState& state) {
  const auto failed = [this](absl::string_view what) {
    return absl::UnavailableError(
        absl::StrCat(path_, ": ", what, ": ", strerror(errno)));
  };
  std::string bytes(kRecordFileMagic.data(), kRecordFileMagic.size());
  AppendRecord(EncodeOperatorState(state), &bytes);
  const std::string unfinished = path_ + ".new";
  const int fd =
      open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return failed("cannot make a new file");
  absl::Status status;
  for (size_t at = 0; status.ok() && at < bytes.size();) {
    const ssize_t n = write(fd, bytes.data() + at, bytes.size() - at);
    if (n > 0) {
      at += n;
    } else if (errno != EINTR) {
      status = failed("cannot write");
    }
  }
  if (status.ok() && fdatasync(fd) != 0) {
    status = failed("cannot force to the disk");
  }
  close(fd);
  if (status.ok() && std::rename(unfinished.c_str(), path_.c_str()) != 0) {
    status = failed("cannot put the new file into its place");
  }
  if (!status.ok()) {
    unlink(unfinished.c_str());
    return status;
  }
  // The name, too.
  const int folder = open(folder_.c_str(), O_RDONLY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
  return absl::OkStatus();
}

}  // namespace tern
