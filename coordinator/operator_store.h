#ifndef COORDINATOR_OPERATOR_STORE_H_
#define COORDINATOR_OPERATOR_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/operator_state_proto.h"
#include "util/bounded_queue.h"

namespace tern {

// Keeps the operators' state in a file of its own beside the journal,
// "operators.state": a record file (coordinator/record_file.h) with one record.
// Every change writes it anew, forces it to the disk and puts it in the place
// of the old one, on a thread of its own. Thread-safe.
class OperatorStore {
 public:
  // Changes that may wait for the disk.
  static constexpr int kWaitingMax = 1024;

  // Reads what is there; nothing at the first start. REQUIRES: `folder` exists,
  // and nobody else writes there. DATA_LOSS, with the file and what to do, when
  // it is damaged; UNAVAILABLE when it cannot be read.
  static absl::StatusOr<std::unique_ptr<OperatorStore>> Open(
      const std::string& folder);

  // Writes what it was told, and ends the thread.
  ~OperatorStore();

  // With all changes that were done.
  OperatorState state() const ABSL_LOCKS_EXCLUDED(mu_);

  // Has the state changed and written. `done` hears, on the thread or the
  // caller's, whether it is on the disk; it must not block for long. A change
  // that could not be written is written with the next.
  void Update(std::function<void(OperatorState*)> change,
              std::function<void(absl::Status)> done) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Task {
    std::function<void(OperatorState*)> change;
    std::function<void(absl::Status)> done;
  };

  OperatorStore(std::string folder, OperatorState state);
  void Run();

  const std::string folder_;
  const std::string path_;
  BoundedQueue<Task> tasks_;

  mutable absl::Mutex mu_;
  OperatorState state_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_OPERATOR_STORE_H_
