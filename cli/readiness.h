#ifndef CLI_READINESS_H_
#define CLI_READINESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// Whether a model of the cluster takes requests, and what it waits for.
struct Readiness {
  bool ready = false;
  // For people, such as "stage 1/2 on worker-1 63%". Empty when ready.
  std::string progress;
};

// Of the model called `name`, or of the only one when `name` is empty.
// Percentages are rounded down to multiples of `percent_step`.
Readiness ReadinessOf(const v1::ListModelsResponse& models,
                      const std::string& name, int percent_step);

// Waits until the model takes requests, at most `patience`, and shows on stderr
// how far it is: one line drawn again and again on a terminal, elsewhere a line
// now and then. UNAVAILABLE when it takes longer, CANCELLED when the user does
// not want to wait; other errors of the cluster at once.
absl::Status WaitUntilReady(Client* client, const std::string& model,
                            absl::Duration patience,
                            Cancellation* cancellation);

}  // namespace tern

#endif  // CLI_READINESS_H_
