#include "worker/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>

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

void BindThisThread(int processor) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(processor, &mask);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof(mask), &mask);
  if (error == 0) return;
  LOG(WARNING) << "event=thread_not_bound processor=" << processor
               << " error=\"" << std::strerror(error) << "\"";
}

ThreadPlacement NotBound(int n_threads) {
  ThreadPlacement placement;
  placement.n_threads = n_threads;
  return placement;
}

}  // namespace

ThreadPool::CallerBinding::CallerBinding(const ThreadPool& pool) {
  if (pool.placement_.processors.empty() ||
      pthread_getaffinity_np(pthread_self(), sizeof(before_), &before_) != 0) {
    return;
  }
  bound_ = true;
  BindThisThread(pool.placement_.processors[0]);
}

// Fails only when the process has lost all these processors meanwhile; then the
// system has chosen others for this thread already.
ThreadPool::CallerBinding::~CallerBinding() {
  if (bound_) pthread_setaffinity_np(pthread_self(), sizeof(before_), &before_);
}

ThreadPool::ThreadPool(int n_threads) : ThreadPool(NotBound(n_threads)) {}

// With more threads than processors, a spinning thread keeps the one it waits
// for from running.
ThreadPool::ThreadPool(const ThreadPlacement& placement)
    : placement_(placement),
      n_threads_(placement.n_threads),
      nodes_(n_threads_, 0),
      spin_count_(n_threads_ <= AvailableProcessors() ? kSpinCount : 0),
      parts_(n_threads_) {
  CHECK(n_threads_ >= 1);
  const std::vector<int>& nodes = placement.nodes;
  CHECK(nodes.empty() || static_cast<int>(nodes.size()) == n_threads_);
  CHECK(nodes.size() == placement.processors.size());
  for (size_t i = 1; i < nodes.size(); ++i) {
    nodes_[i] = nodes_[i - 1] + (nodes[i] != nodes[i - 1] ? 1 : 0);
  }
  for (int i = 1; i < n_threads_; ++i) {
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
  RunParts(n, grain, 0, 1, /*leaves_node=*/true, fn);
}

void ThreadPool::ParallelForFirstTouch(
    int64_t n, int slice, int n_slices,
    absl::FunctionRef<void(int64_t begin, int64_t end)> fn) {
  RunParts(n, 1, slice, n_slices, /*leaves_node=*/false, fn);
}

std::vector<int64_t> ThreadPool::NodeParts(int64_t n) const {
  std::vector<int64_t> begins = {0};
  for (int thread = 1; thread < n_threads_; ++thread) {
    if (nodes_[thread] == nodes_[thread - 1]) continue;
    begins.push_back(PartBegin(n, thread));
  }
  begins.push_back(n);
  return begins;
}

void ThreadPool::RunParts(
    int64_t n, int64_t grain, int slice, int n_slices, bool leaves_node,
    absl::FunctionRef<void(int64_t begin, int64_t end)> fn) {
  if (n <= 0) return;
  const int64_t n_grains = (n + grain - 1) / grain;
  if (n_threads_ == 1 || n_grains == 1) {
    const int64_t begin = n_grains * slice / n_slices * grain;
    const int64_t end = std::min(n, n_grains * (slice + 1) / n_slices * grain);
    if (begin < end) fn(begin, end);
    return;
  }
  for (int thread = 0; thread < n_threads_; ++thread) {
    Part& part = parts_[thread];
    const int64_t first = PartBegin(n_grains, thread);
    const int64_t size = PartBegin(n_grains, thread + 1) - first;
    const int64_t begin = first + size * slice / n_slices;
    part.end = first + size * (slice + 1) / n_slices;
    part.piece = std::max<int64_t>(1, (part.end - begin) / kPiecesPerPart);
    part.next.store(begin, std::memory_order_relaxed);
  }
  const bool has_other_nodes = nodes_.back() != 0;
  auto take_pieces = [&](Part& part) {
    while (true) {
      const int64_t begin =
          part.next.fetch_add(part.piece, std::memory_order_relaxed);
      if (begin >= part.end) break;
      const int64_t end = std::min(begin + part.piece, part.end);
      fn(begin * grain, std::min(n, end * grain));
    }
  };
  auto job = [&](int thread) {
    for (const bool here : {true, false}) {
      if (!here && !(leaves_node && has_other_nodes)) break;
      for (int i = 0; i < n_threads_; ++i) {
        const int other = (thread + i) % n_threads_;
        if ((nodes_[other] == nodes_[thread]) == here) {
          take_pieces(parts_[other]);
        }
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
  ++barrier_count_;
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
  if (!placement_.processors.empty()) {
    BindThisThread(placement_.processors[thread]);
  }
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
