#include "coordinator/operator_store.h"

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
    const absl::Status status =
        ReplaceRecordFile(folder_, kFileName, EncodeOperatorState(state));
    if (!status.ok()) {
      LOG(ERROR) << "event=operator_state_not_written status=" << status;
    }
    task.done(status);
    task = Task();
  }
}

}  // namespace tern
