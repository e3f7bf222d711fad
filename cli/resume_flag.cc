#include "cli/resume_flag.h"

#include <iostream>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

ABSL_FLAG(absl::Duration, resume, absl::Seconds(30),
          "How long to try to go on with an answer whose connection broke, and "
          "how long the cluster keeps it for that; at most 10m. 0: an answer "
          "ends with its connection.");

namespace tern {

void SetResume(CallOptions* call) {
  call->resume_window = absl::GetFlag(FLAGS_resume);
  if (call->resume_window <= absl::ZeroDuration()) return;
  call->on_retry = [said = false](const absl::Status& status,
                                  absl::Duration pause) mutable {
    if (said) return;
    said = true;  // Once an answer: more would be in the way of its text.
    std::cerr << "\ntern: " << status.message()
              << "; trying to go on where it was" << std::endl;
  };
}

}  // namespace tern
