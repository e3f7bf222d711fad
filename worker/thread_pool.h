#ifndef WORKER_THREAD_POOL_H_
#define WORKER_THREAD_POOL_H_

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "worker/thread_placement.h"

namespace tern {

// A fixed set of threads, the caller among them, that share out loops.
//
// A loop ends when all its parts have ended. Between loops the threads spin for
// some microseconds, because the next one of a forward pass follows at once,
// and then sleep. One loop at a time: the loops below may be called from any
// one thread, but not from two at once, and not from inside a loop.
class ThreadPool {
 public:
  // Binds the calling thread to the processor of the pool's thread 0 while it
  // lives, and then lets it run where it might before. Does nothing for a pool
  // that is not bound. Whoever runs many loops does so under one; it must not
  // start threads there, since they would be bound too.
  class CallerBinding {
   public:
    explicit CallerBinding(const ThreadPool& pool);
    ~CallerBinding();
    CallerBinding(const CallerBinding&) = delete;
    CallerBinding& operator=(const CallerBinding&) = delete;

   private:
    cpu_set_t before_;
    bool bound_ = false;
  };

  // Threads that run where the system puts them. `n_threads` counts the caller:
  // n_threads - 1 are started. REQUIRES: n_threads >= 1.
  explicit ThreadPool(int n_threads);
  // Threads where `placement` says; the caller is there under a CallerBinding
  // only. A processor that the system refuses is logged, and its thread not
  // bound.
  explicit ThreadPool(const ThreadPlacement& placement);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }
  const ThreadPlacement& placement() const { return placement_; }

  // Calls fn(begin, end) for ranges that together are [0, n) and begin at
  // multiples of `grain`. Each thread has one contiguous part, as even as that
  // allows and the same each time, which it takes in a few pieces; who is done
  // takes pieces of others, of its own memory node first, so that a thread that
  // the system stopped holds back one piece. For work that is even and reads
  // memory in order.
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

  // As ParallelFor(n, 1, fn), for slice `slice` of `n_slices` of each thread's
  // part, and no piece leaves its part's node. What is written first here lies
  // near the threads that read it in a ParallelFor of as many grains.
  void ParallelForFirstTouch(
      int64_t n, int slice, int n_slices,
      absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

  // Where in [0, n) the part of the first thread of each node begins in
  // ParallelFor(n, 1, ...), and n: ascending, as many as nodes and one.
  std::vector<int64_t> NodeParts(int64_t n) const;

  // Calls fn(i, thread) for each i of [0, n), whoever is free taking the next
  // one; thread, in [0, size()), tells who. For work that is uneven.
  void ParallelForEach(int64_t n,
                       absl::FunctionRef<void(int64_t i, int thread)> fn);

  // Loops so far at whose end all threads waited for each other: those that
  // were more than one thread's.
  int64_t barrier_count() const { return barrier_count_; }

 private:
  using Job = absl::FunctionRef<void(int thread)>;

  // What is left of a thread's part of a loop, in grains. On a cache line of
  // its own.
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
    int64_t piece;
  };

  // Slice `slice` of `n_slices` of each part of the loop over n.
  void RunParts(int64_t n, int64_t grain, int slice, int n_slices,
                bool leaves_node,
                absl::FunctionRef<void(int64_t begin, int64_t end)> fn);
  // First of n_grains in the part of a thread; n_grains for n_threads_.
  int64_t PartBegin(int64_t n_grains, int thread) const {
    return n_grains * thread / n_threads_;
  }
  void Run(Job job);
  void ThreadMain(int thread);

  const ThreadPlacement placement_;
  const int n_threads_;
  std::vector<int> nodes_;  // [n_threads], counted from 0 in the pool's order
  const int spin_count_;
  std::vector<std::thread> threads_;

  std::vector<Part> parts_;  // [n_threads], of the current loop
  int64_t barrier_count_ = 0;
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
