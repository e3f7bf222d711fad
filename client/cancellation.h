#ifndef CLIENT_CANCELLATION_H_
#define CLIENT_CANCELLATION_H_

#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace tern {

// Ends calls from another thread. One object may be given to several calls, and
// must outlive them. Once cancelled it stays so. Thread-safe, but not to be
// used in a signal handler.
class Cancellation {
 public:
  // Ends the calls in progress with CANCELLED, and later ones at once.
  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

  bool cancelled() const ABSL_LOCKS_EXCLUDED(mu_);

  // Waits at most `duration` for Cancel(). Returns cancelled().
  bool WaitFor(absl::Duration duration) const ABSL_LOCKS_EXCLUDED(mu_);

  // Has `context` cancelled by Cancel() for as long as this object lives.
  class Scope {
   public:
    // `cancellation` may be null.
    Scope(Cancellation* cancellation, grpc::ClientContext* context);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Cancellation* const cancellation_;
    grpc::ClientContext* const context_;
  };

 private:
  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // CLIENT_CANCELLATION_H_
