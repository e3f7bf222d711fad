#include "coordinator/publisher.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "util/logging.h"

namespace tern {
namespace {

// Items of a burst. A message takes some five microseconds to send.
constexpr size_t kBurst = 64;

}  // namespace

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

void Publisher::AwaitBurst() {
  if (std::this_thread::get_id() == thread_.get_id()) return;
  absl::MutexLock lock(&burst_mu_);
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
    for (size_t begin = 0; begin < items.size(); begin += kBurst) {
      const size_t end = std::min(begin + kBurst, items.size());
      absl::MutexLock burst(&burst_mu_);
      for (size_t i = begin; i < end; ++i) {
        // Before it publishes: what comes from now on needs another turn.
        items[i]->queued_ = false;
        items[i]->Publish();
        items[i].reset();
      }
    }
    items.clear();
  }
}

}  // namespace tern
