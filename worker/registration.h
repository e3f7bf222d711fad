#ifndef WORKER_REGISTRATION_H_
#define WORKER_REGISTRATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "model/stage_plan.h"
#include "model/step_times.h"
#include "proto/tern/v1/cluster.grpc.pb.h"

namespace tern {

// Version of the protocol that this worker speaks (docs/wire_protocol.md).
inline constexpr int kProtocolVersion = 1;

// What the worker tells the coordinator of itself.
struct WorkerDescription {
  std::string worker_id;
  int64_t incarnation = 0;
  std::string address;  // at which others reach it
  std::string numerics_class;
  int64_t memory_bytes = 0;
  int thread_count = 0;
  std::string kernel_isa;
  std::string device;
  std::string thread_placement;
  std::vector<std::string> models;
  PackedBlocks packed_blocks;
  StepTimes step_times;  // unknown when nobody measured
  double link_bytes_per_second = 0;
  bool can_fetch_weights = false;
};

// What a heartbeat tells; see cluster.proto.
struct WorkDone {
  int64_t finished_step_count = 0;
  int64_t progress = 0;
  double slowdown = 0;
};

// Makes the worker known to the coordinator and keeps it so, on a thread of its
// own: registers, sends heartbeats, and registers again whenever the
// coordinator has forgotten it, has been restarted, or was out of reach; of
// several, one of which serves, it goes to the next when one does not answer.
// It never gives up: neither program needs the other to be there first.
class Registration {
 public:
  struct Options {
    // Wait after the first failure; doubles up to the longest.
    absl::Duration retry_min = absl::Milliseconds(200);
    absl::Duration retry_max = absl::Seconds(5);
    // Wait after an answer that only a change of certificates, flags or
    // versions can change.
    absl::Duration refused_retry = absl::Seconds(5);
    absl::Duration call_timeout = absl::Seconds(5);
  };

  // channels: to the coordinators, at least one.
  // work_done: asked with each heartbeat.
  // on_registered: told, from the thread, whenever the worker becomes known
  //                (true) or stops being so (false).
  Registration(const Options& options, const WorkerDescription& description,
               const std::vector<std::shared_ptr<grpc::Channel>>& channels,
               std::function<WorkDone()> work_done,
               std::function<void(bool)> on_registered);

  // Ends calls and waits under way, then the thread.
  ~Registration();

  // Tells the coordinator that this worker wants to leave, and waits until it
  // has no stage any more. False after `timeout`; true at once when no
  // coordinator knows the worker.
  bool Drain(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Lease {
    int64_t epoch;
    absl::Duration heartbeat_interval;
  };

  void Main();
  v1::ClusterService::Stub& stub() { return *stubs_[current_]; }
  // Goes to the next coordinator. False when all have been tried.
  bool TryNext();
  absl::Status Register(Lease* lease);
  // Sends heartbeats until one fails, or Stop.
  absl::Status KeepAlive(const Lease& lease);
  absl::Status SendHeartbeat(const Lease& lease);
  bool IsDraining() ABSL_LOCKS_EXCLUDED(mu_);
  void SetReleased() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits, or false at once when stopping.
  bool Wait(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mu_);
  // Makes `context` the call that the destructor cancels; false when stopping.
  bool BeginCall(grpc::ClientContext* context) ABSL_LOCKS_EXCLUDED(mu_);
  void EndCall() ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const WorkerDescription description_;
  std::vector<std::unique_ptr<v1::ClusterService::Stub>> stubs_;
  const std::function<WorkDone()> work_done_;
  const std::function<void(bool)> on_registered_;

  size_t current_ = 0;  // of stubs_; the thread's

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool drain_begun_ ABSL_GUARDED_BY(mu_) = false;  // by the thread
  bool released_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mu_) = nullptr;

  // Of the thread: the fastest heartbeat so far.
  absl::Duration round_trip_ = absl::InfiniteDuration();

  std::thread thread_;
};

}  // namespace tern

#endif  // WORKER_REGISTRATION_H_
