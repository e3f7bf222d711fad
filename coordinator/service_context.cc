#include "coordinator/service_context.h"

#include <chrono>

namespace tern {

absl::Time DeadlineOf(const grpc::ServerContextBase& context, Clock* clock) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return absl::InfiniteFuture();
  }
  // The context tells wall time; only the time left is of use.
  return clock->Now() +
         absl::FromChrono(deadline - std::chrono::system_clock::now());
}

}  // namespace tern
