#include "worker/transfer_inbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "util/logging.h"

namespace tern {

absl::Status TransferInbox::AttachSender() {
  absl::MutexLock lock(&mu_);
  if (attached_) {
    return absl::AlreadyExistsError(absl::StrCat(
        "this epoch's ", what_, " come on another stream already"));
  }
  attached_ = true;
  return absl::OkStatus();
}

void TransferInbox::EndOfStream() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
  on_room_ = nullptr;
}

void TransferInbox::Close(absl::Status status) {
  CHECK(!status.ok());
  std::function<void()> on_room;
  {
    absl::MutexLock lock(&mu_);
    if (closed_.ok()) closed_ = std::move(status);
    on_room = std::exchange(on_room_, nullptr);
  }
  // What is offered again meets the status.
  if (on_room) on_room();
}

int64_t TransferInbox::step_count() const {
  absl::MutexLock lock(&mu_);
  return step_count_;
}

}  // namespace tern
