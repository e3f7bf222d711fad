#ifndef COORDINATOR_REQUEST_VALIDATION_H_
#define COORDINATOR_REQUEST_VALIDATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/sequence.h"
#include "google/protobuf/duration.pb.h"
#include "model/chat_encoder.h"
#include "model/model_config.h"
#include "model/tokenizer.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// What gRPC threads need to know of the model. Immutable.
struct ServedModel {
  std::string name;
  ModelConfig config;
  const Tokenizer* tokenizer = nullptr;  // outlives this
  // Null for a model that takes no conversations; then `no_chat` says why, and
  // what may be done about it.
  const ChatEncoder* chat = nullptr;  // outlives this
  std::string no_chat;
  std::string head_mode;  // "int8" or "stored"
};

// A GenerateRequest that may go to the engine.
struct CheckedRequest {
  std::string request_id;         // the caller's, or one made up
  SequenceParameters parameters;  // without class and deadline
  std::vector<std::string> stop_strings;
  bool return_token_ids = false;
  int sample_count = 1;
  std::string echo;  // what precedes each candidate's text
  int64_t seed = 0;  // the caller's, or one drawn
};

// Largest text of a prompt; of a conversation, of its messages together.
inline constexpr size_t kMaxTextBytes = 1 << 20;

// An answer must fit a message of 16 MiB: most log-probabilities in one, and
// most bytes of prompts echoed.
inline constexpr int64_t kMaxLogprobs = 1 << 18;
inline constexpr size_t kMaxEchoBytes = 4 << 20;

// Checks every field against the range that inference.proto gives it, fills in
// the defaults, and tokenises the prompt. A conversation that is long may take
// a part of a second: not for the engine's thread.
//
// NOT_FOUND            another model; lists those there are
// INVALID_ARGUMENT     names the field, its value and its range; or what the
//                      chat template has to say
// FAILED_PRECONDITION  a conversation for a model that takes none
absl::StatusOr<CheckedRequest> CheckRequest(const v1::GenerateRequest& request,
                                            const ServedModel& model);

// The resume window of a request that has one: in (0, 10 minutes].
absl::StatusOr<absl::Duration> CheckResumeWindow(
    const google::protobuf::Duration& window);

// Of each candidate of `request`, the tokens that the caller has: at most as
// many as were asked for.
absl::StatusOr<std::vector<int>> CheckFromTokens(
    const v1::ResumeGenerateRequest& resume, const CheckedRequest& request);

// OK when `name` is empty or the model's; NOT_FOUND otherwise.
absl::Status CheckModelName(absl::string_view name, const ServedModel& model);

// A request id: 1 to 128 printable ASCII characters.
absl::Status CheckRequestId(absl::string_view request_id);

// OK when `text`, the value of `field`, is UTF-8 of at most kMaxTextBytes.
absl::Status CheckText(absl::string_view field, absl::string_view text);

}  // namespace tern

#endif  // COORDINATOR_REQUEST_VALIDATION_H_
