#ifndef COORDINATOR_RESUMABLE_REQUESTS_H_
#define COORDINATOR_RESUMABLE_REQUESTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/journal.h"
#include "coordinator/journal_proto.h"
#include "coordinator/kept_request.h"
#include "coordinator/model_instance.h"
#include "coordinator/model_registry.h"
#include "coordinator/publisher.h"
#include "coordinator/request_validation.h"
#include "util/clock.h"

namespace tern {

// The requests whose callers may come back for them: finds them by name, drops
// those whose callers do not come in time, and forgets answers when there are
// too many.
//
// Thread-safe. A thread of its own looks after them ten times a second.
class ResumableRequests {
 public:
  struct Options {
    // Memory for answers that have ended, about; the oldest go first.
    int64_t ended_bytes_max = 256 << 20;
  };

  // What is not null outlives this; `journal` may be null.
  ResumableRequests(Options options, Journal* journal, Publisher* publisher,
                    Clock* clock);

  // Close(). REQUIRES: the engines of all models are shut down.
  ~ResumableRequests();

  // Goes on with what a journal has: those in progress are submitted, answers
  // are kept, what is too old, or for none of `models`, is left out, and what
  // another file of its model had begun ends with FAILED_PRECONDITION. To be
  // called once, before all others.
  void Restore(JournalImage image, const ModelRegistry& models)
      ABSL_LOCKS_EXCLUDED(mu_);

  // A new request, not submitted yet. ALREADY_EXISTS when the principal has one
  // of this name here.
  absl::StatusOr<std::shared_ptr<KeptRequest>> Begin(
      const std::string& principal, std::shared_ptr<ModelInstance> model,
      CheckedRequest request, absl::Duration resume_window, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mu_);

  // NOT_FOUND when the principal has none of this name here.
  absl::StatusOr<std::shared_ptr<KeptRequest>> Find(
      const std::string& principal, const std::string& request_id)
      ABSL_LOCKS_EXCLUDED(mu_);

  // ALREADY_EXISTS when the name is that of a request here.
  absl::Status CheckIsFree(const std::string& principal,
                           const std::string& request_id)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Frees a name. False when there is none.
  bool Forget(const std::string& principal, const std::string& request_id)
      ABSL_LOCKS_EXCLUDED(mu_);

  int size() const ABSL_LOCKS_EXCLUDED(mu_);

  // The coordinator is about to end: what ends from now on goes on with the
  // next one.
  void Close();

 private:
  using Name = std::pair<std::string, std::string>;  // principal, request id

  void RestoreOne(int64_t number, std::shared_ptr<ModelInstance> model,
                  RequestLog log, absl::Duration idle) ABSL_LOCKS_EXCLUDED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void LookAfter() ABSL_LOCKS_EXCLUDED(mu_);
  // Has somebody read a request that its reader has left.
  void StandIn(const std::shared_ptr<KeptRequest>& request)
      ABSL_LOCKS_EXCLUDED(mu_);

  struct Entry {
    std::shared_ptr<KeptRequest> request;
    std::shared_ptr<Publishable> stand_in;  // the latest; may be null
  };

  const Options options_;
  Publisher* const publisher_;
  Clock* const clock_;
  KeptRequest::Context context_;

  mutable absl::Mutex mu_;
  std::map<Name, Entry> requests_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_RESUMABLE_REQUESTS_H_
