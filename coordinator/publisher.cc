#include "coordinator/publisher.h"

#include <pthread.h>

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
  if (item->queued_.exchange(true)) return;
  absl::MutexLock lock(&mu_);
  queue_.push_back(std::move(item));
}

void Publisher::Run() {
  pthread_setname_np(pthread_self(), "publisher");  // for top
  std::vector<std::shared_ptr<Publishable>> items;
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &Publisher::HasWork));
      if (queue_.empty()) return;
      items.swap(queue_);
    }
    for (std::shared_ptr<Publishable>& item : items) {
      // Before it publishes: what comes from now on needs another turn.
      item->queued_ = false;
      item->Publish();
      item.reset();
    }
    items.clear();
  }
}

}  // namespace tern
