#ifndef WORKER_TRANSFER_INBOX_H_
#define WORKER_TRANSFER_INBOX_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace tern {

// What the inboxes for another stage's streams have in common: one sender in an
// epoch, two ways to end, and whom to tell when a full one has room again.
// Thread-safe.
class TransferInbox {
 public:
  // Claims the inbox for a stream: there is one sender in an epoch.
  // ALREADY_EXISTS for a second one.
  absl::Status AttachSender() ABSL_LOCKS_EXCLUDED(mu_);

  // The sender's stream has ended; nothing more will come.
  void EndOfStream() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends all waiting, now and later, with `status`. The first call counts.
  // REQUIRES: !status.ok().
  void Close(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  // Steps received whole.
  int64_t step_count() const ABSL_LOCKS_EXCLUDED(mu_);

 protected:
  // what: is sent, for messages.
  explicit TransferInbox(absl::string_view what) : what_(what) {}
  ~TransferInbox() = default;

  mutable absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
  int64_t step_count_ ABSL_GUARDED_BY(mu_) = 0;
  // Set while something is held back; called once, without the lock.
  std::function<void()> on_room_ ABSL_GUARDED_BY(mu_);

 private:
  const std::string what_;
  bool attached_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tern

#endif  // WORKER_TRANSFER_INBOX_H_
