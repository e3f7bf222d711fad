#ifndef COORDINATOR_JOURNAL_PROTO_H_
#define COORDINATOR_JOURNAL_PROTO_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/request_log.h"
#include "coordinator/step_plan.h"
#include "coordinator/token_stream.h"

namespace tern {

// Something that the journal remembers; proto/tern/v1/journal.proto says what
// the fields mean.
struct JournalEvent {
  enum class Kind {
    kEpoch,
    kAdmission,
    kTokens,
    kPromptLogprobs,
    kEnd,
    kForgotten,
    kNumerics
  };
  Kind kind = Kind::kForgotten;
  int64_t number = 0;  // of the request; the epoch of a kEpoch
  int sample_index = 0;
  int first = 0;
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
  SequenceEnd end;
  std::string numerics_id;
  // What has come of it is not part of an admission.
  std::shared_ptr<const RequestLog> admission;
};

// What a journal's records come to.
struct JournalImage {
  int64_t epoch = 0;  // the latest
  int64_t last_number = 0;
  absl::Time written_at =
      absl::InfinitePast();                // the latest record, wall clock
  std::map<int64_t, RequestLog> requests;  // by number
};

// One record of these events.
std::string EncodeRecord(absl::Time wall_time,
                         absl::Span<const JournalEvent> events);

// Takes in one record. Tokens that do not follow on those that are there, or
// that come after an end, are left out: they would be the same another time.
// DATA_LOSS for bytes that are no record and for values that make no sense.
absl::Status ApplyRecord(absl::string_view payload, JournalImage* image);

// Records that come to `image` again.
std::vector<std::string> EncodeImage(const JournalImage& image);

}  // namespace tern

#endif  // COORDINATOR_JOURNAL_PROTO_H_
