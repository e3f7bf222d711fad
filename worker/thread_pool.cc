#include "worker/thread_pool.h"

#include <algorithm>

#include "util/logging.h"
#include "worker/machine.h"

namespace tern {
namespace {

// About 50 us on current x86: longer than any serial part between two loops of
// a forward pass, short enough to cost nothing when the machine is idle.
constexpr int kSpinCount = 2000;

// Pieces of a thread's part of a loop: more make a thread that was stopped hold
// back less, fewer read memory in longer runs.
constexpr int64_t kPiecesPerPart = 8;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// With more threads than processors, a spinning thread keeps the one it waits
// for from running.
ThreadPool::ThreadPool(int n_threads)
    : n_threads_(n_threads),
      spin_count_(n_threads <= AvailableProcessors() ? kSpinCount : 0),
      parts_(n_threads) {
  CHECK(n_threads >= 1);
  for (int i = 1; i < n_threads; ++i) {
    threads_.emplace_back([this, i] { ThreadMain(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_.store(true);
    generation_.fetch_add(1);
    work_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::ParallelFor(
    int64_t n, int64_t grain,
    absl::FunctionRef<void(int64_t begin, int64_t end)> fn) {
  if (n <= 0) return;
  const int64_t n_grains = (n + grain - 1) / grain;
  if (n_threads_ == 1 || n_grains == 1) {
    fn(0, n);
    return;
  }
  for (int i = 0; i < n_threads_; ++i) {
    Part& part = parts_[i];
    const int64_t begin = n_grains * i / n_threads_;
    part.end = n_grains * (i + 1) / n_threads_;
    part.piece = std::max<int64_t>(1, (part.end - begin) / kPiecesPerPart);
    part.next.store(begin, std::memory_order_relaxed);
  }
  auto job = [&](int thread) {
    for (int i = 0; i < n_threads_; ++i) {
      Part& part = parts_[(thread + i) % n_threads_];
      while (true) {
        const int64_t begin =
            part.next.fetch_add(part.piece, std::memory_order_relaxed);
        if (begin >= part.end) break;
        const int64_t end = std::min(begin + part.piece, part.end);
        fn(begin * grain, std::min(n, end * grain));
      }
    }
  };
  Run(job);
}

void ThreadPool::ParallelForEach(
    int64_t n, absl::FunctionRef<void(int64_t i, int thread)> fn) {
  if (n_threads_ == 1 || n <= 1) {
    for (int64_t i = 0; i < n; ++i) fn(i, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  auto part = [&](int thread) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < n;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      fn(i, thread);
    }
  };
  Run(part);
}

// Sleeping and waking never miss each other: the sleeper announces itself
// before it looks at the counter for the last time, the waker changes the
// counter before it looks for sleepers, and all four are sequentially
// consistent.
void ThreadPool::Run(Job job) {
  job_ = &job;
  unfinished_.store(n_threads_ - 1);
  generation_.fetch_add(1);
  if (sleeper_count_.load() > 0) {
    absl::MutexLock lock(&mu_);
    work_.SignalAll();
  }
  job(0);
  for (int spin = 0; spin < spin_count_; ++spin) {
    if (unfinished_.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  absl::MutexLock lock(&mu_);
  caller_sleeps_.store(true);
  while (unfinished_.load() != 0) done_.Wait(&mu_);
  caller_sleeps_.store(false);
}

void ThreadPool::ThreadMain(int thread) {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < spin_count_; ++spin) {
      if (generation_.load(std::memory_order_acquire) != seen) break;
      Pause();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      absl::MutexLock lock(&mu_);
      sleeper_count_.fetch_add(1);
      while (generation_.load() == seen) work_.Wait(&mu_);
      sleeper_count_.fetch_sub(1);
    }
    // The next generation starts only when this one has ended everywhere, so
    // none can be missed.
    ++seen;
    if (stopping_.load()) return;
    (*job_)(thread);
    if (unfinished_.fetch_sub(1) == 1 && caller_sleeps_.load()) {
      absl::MutexLock lock(&mu_);
      done_.Signal();
    }
  }
}

}  // namespace tern
