#ifndef BENCH_TIMED_STREAM_H_
#define BENCH_TIMED_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace tern {

// A sampled answer to a prompt of random tokens, which is read in a thread of
// its own and remembers when each token came. Thread-safe.
class TimedStream {
 public:
  // Begins. `client` outlives it; prompt and answer depend on the seed alone.
  TimedStream(Client* client, int n_prompt, int n_output, int vocab_size,
              uint64_t seed, const CallOptions& call = {});
  // Waits for the end.
  ~TimedStream();

  // Waits until so many tokens have come, or the stream has ended.
  void AwaitTokens(size_t n) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status AwaitEnd() ABSL_LOCKS_EXCLUDED(mu_);

  std::vector<int32_t> tokens() const ABSL_LOCKS_EXCLUDED(mu_);
  // REQUIRES: a token has come.
  absl::Duration first_token() const ABSL_LOCKS_EXCLUDED(mu_);
  // When the stream went on after the longest pause that ended after `time`.
  absl::Time GoesOnAfter(absl::Time time) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const absl::Time begin_;
  mutable absl::Mutex mu_;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Time> times_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread reader_;
};

}  // namespace tern

#endif  // BENCH_TIMED_STREAM_H_
