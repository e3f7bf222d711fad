#ifndef WORKER_TOKEN_RING_H_
#define WORKER_TOKEN_RING_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "worker/sampled_tokens_inbox.h"
#include "worker/stage_link.h"
#include "worker/step.h"

namespace tern {

// Where rows get the tokens that the coordinator did not know yet when it made
// the plan: those that their sequences sampled in an earlier step. The last
// stage knows them, and of several stages sends them to the first one, which
// embeds them; those between need none. Every stage refuses rows that name
// another step than their sequence's latest.
//
// Of a runner; not thread-safe.
class TokenRing {
 public:
  // inbox: of the first of several stages, else null.
  // link:  of the last of several stages, else null.
  TokenRing(std::shared_ptr<SampledTokensInbox> inbox,
            std::shared_ptr<TokenLink> link)
      : inbox_(std::move(inbox)), link_(std::move(link)) {}

  // For each plan, in order, before it runs: fills in the tokens that are
  // missing. The first of several stages waits for them. After a row that
  // failed, and where no token is needed, it is any of the vocabulary.
  //
  // INVALID_ARGUMENT for a step that is not the sequence's latest; UNAVAILABLE
  // when a token does not come within `timeout`; DATA_LOSS when its step's came
  // without it.
  absl::Status Resolve(StepPlan* plan, absl::Duration timeout);

  // For the last stage: what it sampled in the step resolved last.
  absl::Status Send(int64_t step_id, absl::Span<const SampledToken> sampled);

 private:
  // Of a sequence.
  struct Latest {
    int64_t step_id;  // that samples
    absl::optional<int32_t> token;
  };

  absl::Status CheckIsLatest(int64_t step_id, const StepRow& row) const;
  absl::Status Receive(int64_t step_id, absl::Duration timeout);
  void Record(int64_t step_id, int64_t sequence_id, int32_t token_id);

  const std::shared_ptr<SampledTokensInbox> inbox_;
  const std::shared_ptr<TokenLink> link_;
  absl::flat_hash_map<int64_t, Latest> latest_;  // by sequence id
  std::vector<StepTokens> received_;
};

}  // namespace tern

#endif  // WORKER_TOKEN_RING_H_
