#include "worker/step_mailbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

StepMailbox::StepMailbox(size_t capacity,
                         std::function<void(absl::Status)> interrupt)
    : capacity_(capacity), interrupt_(std::move(interrupt)) {
  CHECK(capacity > 0);
}

absl::Status StepMailbox::Attach(std::shared_ptr<StepSink> sink) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(aborted_);
  if (attached_) {
    return absl::AlreadyExistsError(
        "this epoch has, or had, a stream of plans already; a new stream needs "
        "a new epoch");
  }
  attached_ = true;
  sink_ = std::move(sink);
  return absl::OkStatus();
}

absl::Status StepMailbox::Push(StepPlan plan) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(aborted_);
  if (plans_.size() >= capacity_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(plans_.size(), " plans wait already, which is the most"));
  }
  plans_.push_back(std::move(plan));
  return absl::OkStatus();
}

void StepMailbox::End() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
}

void StepMailbox::Abort(absl::Status status) {
  CHECK(!status.ok());
  {
    absl::MutexLock lock(&mu_);
    if (!aborted_.ok()) return;
    aborted_ = status;
    plans_.clear();
  }
  interrupt_(std::move(status));
}

void StepMailbox::Close(absl::Status status) {
  absl::MutexLock lock(&mu_);
  if (aborted_.ok()) aborted_ = std::move(status);
}

absl::StatusOr<absl::optional<StepPlan>> StepMailbox::Next() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &StepMailbox::SomethingForRunner));
  RETURN_IF_ERROR(aborted_);
  absl::optional<StepPlan> plan;
  if (!plans_.empty()) {
    plan = std::move(plans_.front());
    plans_.pop_front();
  }
  return plan;
}

std::shared_ptr<StepSink> StepMailbox::sink() const {
  absl::MutexLock lock(&mu_);
  return sink_;
}

std::shared_ptr<StepSink> StepMailbox::TakeSink() {
  absl::MutexLock lock(&mu_);
  return std::move(sink_);
}

}  // namespace tern
