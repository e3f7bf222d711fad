#ifndef COORDINATOR_REQUEST_LOG_H_
#define COORDINATOR_REQUEST_LOG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/request_validation.h"
#include "coordinator/step_plan.h"
#include "coordinator/token_stream.h"

namespace tern {

// All that there is to know of a request whose caller may come back for it: as
// it was admitted, and what has come of it. A plain value.
struct RequestLog {
  struct Sample {
    std::vector<int32_t> tokens;
    std::vector<TokenLogprobs> logprobs;  // one per token, or none at all
    std::vector<NumericsChange> numerics_changes;
    // How it ended. One that a stop string ended counts as answered; its text
    // says where.
    std::optional<SequenceEnd> end;
  };

  // Whether nothing more will come: every answer has ended, or one has failed.
  bool HasEnded() const {
    bool all = true;
    for (const Sample& sample : samples) {
      if (!sample.end.has_value()) {
        all = false;
      } else if (!sample.end->status.ok()) {
        return true;
      }
    }
    return all;
  }

  // The arithmetic of what comes next: all answers that have not ended change
  // theirs together.
  const std::string& LatestNumericsId() const {
    for (const Sample& sample : samples) {
      if (!sample.end.has_value() && !sample.numerics_changes.empty()) {
        return sample.numerics_changes.back().numerics_id;
      }
    }
    return numerics_id;
  }

  std::string principal;
  CheckedRequest request;  // its deadline, if any, by the wall clock
  absl::Duration resume_window;
  std::string model;
  uint64_t model_fingerprint = 0;
  std::string numerics_id;  // at admission

  std::vector<TokenLogprobs> prompt_logprobs;
  std::vector<Sample> samples;  // by their index
  // Of what happened last, by the wall clock. Of those in a journal only.
  absl::Time changed_at;
};

}  // namespace tern

#endif  // COORDINATOR_REQUEST_LOG_H_
