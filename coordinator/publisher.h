#ifndef COORDINATOR_PUBLISHER_H_
#define COORDINATOR_PUBLISHER_H_

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tern {

// Something that has output to bring to its caller.
class Publishable {
 public:
  virtual ~Publishable() = default;

  // Brings out what there is. Called on the publisher's thread. Must not block.
  virtual void Publish() = 0;

 private:
  friend class Publisher;
  std::atomic<bool> queued_{false};
};

// A thread that turns tokens into messages, so that neither detokenising nor
// writing to sockets takes the engine's time.
//
// It publishes in bursts, one item after the other. A reaction of gRPC to what
// was published has AwaitBurst() first: else each message that goes out wakes
// one of gRPC's threads, which falls asleep before the next one does. So they
// wake once a burst and find all of its reactions.
//
// Thread-safe. Its queue holds each item at most once, so it is never longer
// than the number of requests in progress.
class Publisher {
 public:
  Publisher();
  // Publishes what is queued, then ends the thread.
  ~Publisher();

  // Has item->Publish() called soon; at least once after this call.
  void Wake(std::shared_ptr<Publishable> item) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until no burst is under way, some hundred microseconds at most: a
  // burst is short, so that gRPC's threads are soon back at what arrives.
  // Returns at once on the publisher's thread.
  void AwaitBurst() ABSL_LOCKS_EXCLUDED(burst_mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || !queue_.empty();
  }

  absl::Mutex burst_mu_;  // held while items publish
  absl::Mutex mu_;
  std::vector<std::shared_ptr<Publishable>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_PUBLISHER_H_
