#ifndef WORKER_THREAD_POOL_H_
#define WORKER_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace tern {

// A fixed set of threads, the caller among them, that share out loops.
//
// A loop ends when all its parts have ended. Between loops the threads spin for
// some microseconds, because the next one of a forward pass follows at once,
// and then sleep. One loop at a time: the loops below may be called from any
// one thread, but not from two at once, and not from inside a loop.
class ThreadPool {
 public:
  // `n_threads` counts the caller: n_threads - 1 are started. REQUIRES:
  // n_threads >= 1.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Calls fn(begin, end) for ranges that together are [0, n) and begin at
  // multiples of `grain`. Each thread has one contiguous part, as even as that
  // allows and the same each time, which it takes in a few pieces; who is done
  // takes pieces of others, so that a thread that the system stopped holds back
  // one piece. For work that is even and reads memory in order.
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

  // Calls fn(i, thread) for each i of [0, n), whoever is free taking the next
  // one; thread, in [0, size()), tells who. For work that is uneven.
  void ParallelForEach(int64_t n,
                       absl::FunctionRef<void(int64_t i, int thread)> fn);

 private:
  using Job = absl::FunctionRef<void(int thread)>;

  // What is left of a thread's part of a loop, in grains. On a cache line of
  // its own.
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
    int64_t piece;
  };

  void Run(Job job);
  void ThreadMain(int thread);

  const int n_threads_;
  const int spin_count_;
  std::vector<std::thread> threads_;

  std::vector<Part> parts_;  // [n_threads], of the current loop
  // The job of the current generation; written before generation_ grows.
  const Job* job_ = nullptr;
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> unfinished_{0};  // threads still at the job
  std::atomic<int> sleeper_count_{0};
  std::atomic<bool> caller_sleeps_{false};

  absl::Mutex mu_;
  absl::CondVar work_;  // sleeping threads
  absl::CondVar done_;  // the sleeping caller
};

}  // namespace tern

#endif  // WORKER_THREAD_POOL_H_
