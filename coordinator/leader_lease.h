#ifndef COORDINATOR_LEADER_LEASE_H_
#define COORDINATOR_LEADER_LEASE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tern {

// Who of several coordinators serves: the one that holds the lease, from when
// it gets it to the end of its process. One that could lose it while it lives,
// such as a Lease of Kubernetes, has to end the process when that happens, so
// that two never write one journal.
//
// Not thread-safe.
class LeaderLease {
 public:
  virtual ~LeaderLease() = default;

  // Takes the lease when nobody holds it. False when somebody does. Errors are
  // those that waiting does not mend.
  virtual absl::StatusOr<bool> TryAcquire() = 0;

  // Who holds it, for people; empty when that is not known.
  virtual std::string Holder() = 0;
};

// A lock (flock) on the file leader.lock in `folder`, which is made if need be.
// The system frees it when the process ends, however it does; one that is
// stopped keeps it. `name` is what others are told of this holder. UNAVAILABLE
// where the file cannot be opened or, on some file systems, not be locked.
absl::StatusOr<std::unique_ptr<LeaderLease>> OpenFileLease(
    const std::string& folder, const std::string& name);

}  // namespace tern

#endif  // COORDINATOR_LEADER_LEASE_H_
