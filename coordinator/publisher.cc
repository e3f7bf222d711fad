#include "coordinator/publisher.h"

#include <utility>

#include "util/logging.h"

namespace tern {

Publisher::Publisher() : thread_([this] { Run(); }) {}

Publisher::~Publisher() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void Publisher::Wake(std::shared_ptr<Publishable> item) {
  CHECK(item != nullptr);
  absl::MutexLock lock(&mu_);
  if (item->queued_) return;
  item->queued_ = true;
  queue_.push_back(std::move(item));
}

void Publisher::Run() {
  for (;;) {
    std::shared_ptr<Publishable> item;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &Publisher::HasWork));
      if (queue_.empty()) return;
      item = std::move(queue_.front());
      queue_.pop_front();
      // Before it publishes: what comes from now on needs another turn.
      item->queued_ = false;
    }
    item->Publish();
  }
}

}  // namespace tern
