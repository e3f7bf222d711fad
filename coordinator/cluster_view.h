#ifndef COORDINATOR_CLUSTER_VIEW_H_
#define COORDINATOR_CLUSTER_VIEW_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "coordinator/refused_stage.h"
#include "model/stage_plan.h"
#include "model/step_times.h"

namespace tern {

// Version of the protocol between coordinator and workers. The one before is
// accepted too; there is none before 1.
inline constexpr int kProtocolVersion = 1;

// What a worker says of itself; see cluster.proto for the fields.
struct WorkerRegistration {
  std::string worker_id;
  int64_t incarnation = 0;
  int protocol_version = 0;
  std::string address;
  std::string numerics_class;
  int64_t memory_bytes = 0;
  int thread_count = 0;
  std::string kernel_isa;
  std::string device;
  std::string thread_placement;
  std::vector<std::string> models;
  bool supports_step_token_source = false;
  int repeat_max_limit = 1;
  PackedBlocks packed_blocks;
  StepTimes step_times;              // of the model it has, with an int8 head
  double link_bytes_per_second = 0;  // to other stages; 0 for no limit known
  bool can_fetch_weights = false;

  // Not the worker's: an operator has taken it out of service.
  bool cordoned = false;
};

// A worker whose steps take so many times as long as it measured at its start
// is slow, until they take as little as this again.
inline constexpr double kSlow = 2;
inline constexpr double kNoLongerSlow = 1.5;

// A sign of life; see cluster.proto for the fields.
struct WorkerHeartbeat {
  std::string worker_id;
  int64_t lease_epoch = 0;
  int64_t finished_step_count = 0;
  int64_t progress = 0;
  bool is_draining = false;
  double slowdown = 0;                               // 0: not known
  absl::Duration round_trip = absl::ZeroDuration();  // zero: not known
};

// A worker as the coordinator knows it.
struct Worker {
  WorkerRegistration registration;
  int64_t lease_epoch = 0;
  absl::Time last_heartbeat;
  int64_t finished_step_count = 0;

  // What it has computed, in layers, and when that last grew.
  int64_t progress = 0;
  absl::Time last_progress;

  // How many times as long as its step_times its latest steps have taken, and
  // how long a message of it is under way.
  double slowdown = 1;
  double link_latency_s = 0;
  // From kSlow times as long on, until it is kNoLongerSlow again.
  bool slow = false;

  // It owed a step and did nothing. It gets no stage before it does something
  // again.
  bool hung = false;

  // Its lease has run out.
  bool lost = false;

  // A connection to it broke, and it has given no sign of life since. It keeps
  // its lease, but gets no stage.
  bool unreachable = false;

  // It wants to leave.
  bool draining = false;

  // What its process has in memory of the model: its latest stage.
  absl::optional<StageRange> holds;
  // What it could not load since it registered.
  std::vector<RefusedStage> refused;

  // It wanted to leave, and was told that it may.
  bool let_go = false;

  // It is to be forgotten as soon as it has no stage, so that it registers
  // anew, for another model.
  bool released = false;

  bool IsAlive() const { return !lost && !unreachable && !hung; }
  // Whether what runs on it is to move elsewhere.
  bool MustGo() const { return draining || released || registration.cordoned; }
  // Whether it may get a stage.
  bool IsAvailable() const { return IsAlive() && !MustGo(); }
};

// Who is in the cluster: registrations and leases.
//
// Pure: time is an argument. Not thread-safe: owned by the engine thread.
class ClusterView {
 public:
  struct Options {
    // A worker is lost this long after its last heartbeat.
    absl::Duration lease_duration = absl::Seconds(10);
    // Most workers known at a time, lost ones included.
    int max_workers = 1024;
    // Another process may have a worker's id this long after its last
    // heartbeat: it is believed to be the same worker, restarted.
    absl::Duration suspect_after = absl::Seconds(2);
  };

  explicit ClusterView(const Options& options) : options_(options) {}

  // Makes a worker known and returns the epoch of its lease.
  //
  // INVALID_ARGUMENT    a senseless field
  // FAILED_PRECONDITION another protocol version, or a numerics class other
  //                     than the cluster's, which its first worker decided;
  //                     `may_change_class` lets a new class in once no worker
  //                     of the old one lives: no token of it is owed any more
  // ALREADY_EXISTS      another incarnation holds the id, and nothing says that
  //                     it may be gone: it is not lost, not unreachable, not
  //                     hung, not silent, and was not let go
  // RESOURCE_EXHAUSTED  too many workers
  absl::StatusOr<int64_t> Register(WorkerRegistration registration,
                                   bool may_change_class, absl::Time now);

  // Renews a lease; the worker is reachable again. NOT_FOUND when the worker is
  // unknown or lost, ABORTED when `lease_epoch` is not its latest.
  absl::Status Heartbeat(const WorkerHeartbeat& heartbeat, absl::Time now);

  // Ends leases; returns the ids of the workers lost now. Forgets workers that
  // have been lost for long.
  std::vector<std::string> Expire(absl::Time now);

  // When the next lease ends, unless renewed; InfiniteFuture if none can.
  absl::Time NextExpiry() const;

  // A connection to the worker broke.
  void MarkUnreachable(absl::string_view worker_id);

  // It does nothing, though it should.
  void MarkHung(absl::string_view worker_id);

  // See Worker::holds. What it has loaded it does not refuse any more.
  void SetHolds(absl::string_view worker_id, const StageRange& range);

  // See Worker::refused; nothing when the failure says nothing of the stage.
  void NoteRefused(absl::string_view worker_id, const StageRange& range,
                   const absl::Status& why);

  // See Worker::let_go.
  void LetGo(absl::string_view worker_id);

  // See Worker::released; false when unknown.
  bool Release(absl::string_view worker_id);

  // Takes it out of service, or puts it back; false when unknown.
  bool SetCordoned(absl::string_view worker_id, bool cordoned);

  // As if it had never been.
  void Forget(absl::string_view worker_id);

  // Those that may get a stage of `model`: first those that have its files,
  // then, where `may_fetch`, those that can fetch them; each in order of their
  // ids. Valid until the next call that is not const.
  std::vector<const Worker*> Available(absl::string_view model,
                                       bool may_fetch = false) const;

  // Null when unknown. Valid until the next call that is not const.
  const Worker* Find(absl::string_view worker_id) const;

  // In order of their ids.
  const std::map<std::string, Worker, std::less<>>& workers() const {
    return workers_;
  }

  // Of the cluster, such as "cpu-1"; empty before the first worker.
  const std::string& numerics_class() const { return numerics_class_; }

 private:
  absl::Status CheckClass(const WorkerRegistration& registration,
                          bool may_change_class) const;

  const Options options_;
  std::map<std::string, Worker, std::less<>> workers_;
  std::string numerics_class_;
  int64_t last_lease_epoch_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_CLUSTER_VIEW_H_
