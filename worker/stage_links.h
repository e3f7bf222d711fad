#ifndef WORKER_STAGE_LINKS_H_
#define WORKER_STAGE_LINKS_H_

#include <memory>

#include "absl/status/status.h"
#include "worker/hidden_states_inbox.h"
#include "worker/sampled_tokens_inbox.h"
#include "worker/stage_link.h"

namespace tern {

// What other stages of the pipeline send to one, in one epoch.
struct Inboxes {
  std::shared_ptr<HiddenStatesInbox> hidden;   // null for the first stage
  std::shared_ptr<SampledTokensInbox> tokens;  // for the first of several only
};

// All that ties a stage to the others, in one epoch.
struct StageLinks {
  Inboxes in;
  OutgoingLinks out;
  int index = 0;  // of the stage among them

  bool is_last_stage() const { return out.next == nullptr; }

  // Nothing follows.
  void Finish() const {
    if (out.next != nullptr) out.next->Finish();
    if (out.first != nullptr) out.first->Finish();
  }

  // Ends all, and any waiting, at once. Thread-safe.
  void Close(const absl::Status& status) const {
    if (in.hidden != nullptr) in.hidden->Close(status);
    if (in.tokens != nullptr) in.tokens->Close(status);
    if (out.next != nullptr) out.next->Close();
    if (out.first != nullptr) out.first->Close();
  }
};

}  // namespace tern

#endif  // WORKER_STAGE_LINKS_H_
