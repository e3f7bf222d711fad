#include "worker/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/machine.h"
#include "worker/thread_placement.h"

namespace tern {
namespace {

using Range = std::pair<int64_t, int64_t>;

std::vector<Range> RangesOf(ThreadPool* pool, int64_t n, int64_t grain) {
  absl::Mutex mu;
  std::vector<Range> ranges;
  pool->ParallelFor(n, grain, [&](int64_t begin, int64_t end) {
    absl::MutexLock lock(&mu);
    ranges.push_back({begin, end});
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

TEST(ThreadPool, RangesCoverEverythingOnce) {
  for (const int n_threads : {1, 2, 3, 7}) {
    ThreadPool pool(n_threads);
    for (const int64_t n : {1, 2, 5, 31, 32, 33, 1000}) {
      for (const int64_t grain : {1, 16, 32}) {
        SCOPED_TRACE(testing::Message()
                     << n_threads << " threads, n=" << n << " grain=" << grain);
        int64_t next = 0;
        for (const Range& range : RangesOf(&pool, n, grain)) {
          EXPECT_EQ(range.first, next);
          EXPECT_LT(range.first, range.second);
          EXPECT_EQ(range.first % grain, 0);
          next = range.second;
        }
        EXPECT_EQ(next, n);
      }
    }
  }
}

TEST(ThreadPool, RangesAreEven) {
  ThreadPool pool(4);
  EXPECT_EQ(RangesOf(&pool, 64, 16),
            (std::vector<Range>{{0, 16}, {16, 32}, {32, 48}, {48, 64}}));
}

TEST(ThreadPool, NothingIsCalledForNothing) {
  ThreadPool pool(2);
  EXPECT_TRUE(RangesOf(&pool, 0, 4).empty());
  pool.ParallelForEach(0, [](int64_t, int) { ADD_FAILURE(); });
}

TEST(ThreadPool, EachIndexIsVisitedOnceByAKnownThread) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> visits(1000);
  pool.ParallelForEach(1000, [&](int64_t i, int thread) {
    EXPECT_GE(thread, 0);
    EXPECT_LT(thread, pool.size());
    visits[i].fetch_add(1);
  });
  for (const std::atomic<int>& count : visits) EXPECT_EQ(count, 1);
}

// Plain variables: a barrier that let a loop begin before the last one had
// ended everywhere would be a data race, and a wrong sum.
TEST(ThreadPool, LoopsFollowEachOther) {
  for (const int n_threads : {2, 5}) {
    ThreadPool pool(n_threads);
    std::vector<int64_t> values(64, 0);
    int64_t expected = 0;
    for (int round = 1; round <= 2000; ++round) {
      expected += round;
      pool.ParallelFor(64, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) values[i] += round;
      });
    }
    EXPECT_EQ(values, std::vector<int64_t>(64, expected));
  }
}

// A thread that is held up at its first piece leaves all others to the rest.
TEST(ThreadPool, WhoIsDoneTakesPiecesOfOthers) {
  ThreadPool pool(2);
  std::atomic<int64_t> n_done{0};
  absl::Notification others_done;
  pool.ParallelFor(64, 1, [&](int64_t begin, int64_t end) {
    if (begin == 32) {
      EXPECT_TRUE(
          others_done.WaitForNotificationWithTimeout(absl::Seconds(60)));
      return;
    }
    if ((n_done += end - begin) == 60) others_done.Notify();
  });
  EXPECT_EQ(n_done, 60);
}

// Processors this thread may run on.
std::vector<int> Mask() { return AllowedProcessors(); }

// Which thread ran a part of a loop, and where.
struct Visit {
  std::thread::id thread;
  std::vector<int> mask;
  int processor = -1;
};

// One visit for each thread of the pool: none goes on before all are there, so
// that none can take another's part.
std::vector<Visit> VisitThreads(ThreadPool* pool) {
  std::vector<Visit> visits(pool->size());
  std::atomic<int> n_there{0};
  pool->ParallelFor(pool->size(), 1, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(end, begin + 1);
    n_there.fetch_add(1);
    while (n_there.load() < pool->size()) std::this_thread::yield();
    visits[begin] = {std::this_thread::get_id(), Mask(), sched_getcpu()};
  });
  return visits;
}

ThreadPlacement PlacementOn(std::vector<int> processors,
                            std::vector<int> nodes) {
  ThreadPlacement placement;
  placement.n_threads = static_cast<int>(processors.size());
  placement.processors = std::move(processors);
  placement.nodes = std::move(nodes);
  return placement;
}

TEST(ThreadPool, ThreadsRunOnTheirProcessors) {
  std::vector<int> processors = Mask();
  // Not in the order in which the system would give them.
  std::reverse(processors.begin(), processors.end());
  const std::vector<int> before = Mask();
  ThreadPool pool(
      PlacementOn(processors, std::vector<int>(processors.size(), 0)));
  {
    const ThreadPool::CallerBinding binding(pool);
    std::set<std::vector<int>> masks;
    for (const Visit& visit : VisitThreads(&pool)) {
      ASSERT_EQ(visit.mask.size(), 1u);
      EXPECT_EQ(visit.mask[0], visit.processor);
      masks.insert(visit.mask);
    }
    EXPECT_EQ(masks.size(), processors.size());
    EXPECT_EQ(Mask(), std::vector<int>{processors[0]});
  }
  EXPECT_EQ(Mask(), before);
}

// A pool in a process that may use one processor of several stays there.
TEST(ThreadPool, TheMaskOfTheProcessIsRespected) {
  const std::vector<int> all = Mask();
  if (all.size() < 2) GTEST_SKIP() << "there is one processor only";
  std::thread([&] {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(all[1], &mask);
    ASSERT_EQ(sched_setaffinity(0, sizeof(mask), &mask), 0);
    const auto placement =
        PlaceThreads({{}, AllowedProcessors()}, 1, PinMode::kOn);
    ASSERT_TRUE(placement.ok());
    EXPECT_EQ(placement->processors, std::vector<int>{all[1]});
    ThreadPool bound(*placement);
    const ThreadPool::CallerBinding binding(bound);
    EXPECT_EQ(Mask(), std::vector<int>{all[1]});
    ThreadPool pool(2);
    for (const Visit& visit : VisitThreads(&pool)) {
      EXPECT_EQ(visit.mask, std::vector<int>{all[1]});
    }
  }).join();
}

// Thousands of processors are more than any system here has.
TEST(ThreadPool, AProcessorThatIsRefusedIsDoneWithout) {
  ThreadPool pool(PlacementOn({CPU_SETSIZE - 1, CPU_SETSIZE - 1}, {0, 0}));
  const std::vector<int> before = Mask();
  const ThreadPool::CallerBinding binding(pool);
  for (const Visit& visit : VisitThreads(&pool)) EXPECT_EQ(visit.mask, before);
}

// Four threads on two nodes, all on one processor: only the nodes' numbers
// matter here.
ThreadPlacement OnTwoNodes() {
  const int processor = Mask()[0];
  return PlacementOn({processor, processor, processor, processor},
                     {0, 0, 1, 1});
}

TEST(ThreadPool, PartsOfNodesFollowEachOther) {
  const ThreadPool pool(OnTwoNodes());
  EXPECT_EQ(pool.NodeParts(16), (std::vector<int64_t>{0, 8, 16}));
  EXPECT_EQ(pool.NodeParts(7), (std::vector<int64_t>{0, 3, 7}));
  EXPECT_EQ(pool.NodeParts(1), (std::vector<int64_t>{0, 0, 1}));
  const ThreadPool unbound(4);
  EXPECT_EQ(unbound.NodeParts(16), (std::vector<int64_t>{0, 16}));
}

// All threads but the second are held up at their first pieces until it has
// done all else that its node has to do; meanwhile the other node's pieces are
// there to be taken.
TEST(ThreadPool, PiecesOfTheOwnNodeAreTakenFirst) {
  ThreadPool pool(OnTwoNodes());
  absl::Mutex mu;
  std::map<std::thread::id, std::vector<int64_t>> taken;  // begins
  std::atomic<int> n_there{0};
  std::atomic<int64_t> n_done{0};  // of the first node
  absl::Notification node_done;
  pool.ParallelFor(64, 1, [&](int64_t begin, int64_t end) {
    {
      absl::MutexLock lock(&mu);
      taken[std::this_thread::get_id()].push_back(begin);
    }
    // So that each thread begins with its own part.
    n_there.fetch_add(1);
    while (n_there.load() < 4) std::this_thread::yield();
    if (begin == 0 || begin == 32 || begin == 48) {
      EXPECT_TRUE(node_done.WaitForNotificationWithTimeout(absl::Seconds(60)));
    } else if (begin < 32 && (n_done += end - begin) == 30) {
      node_done.Notify();
    }
  });
  ASSERT_EQ(taken.size(), 4u);
  EXPECT_EQ(taken[std::this_thread::get_id()][0], 0);
  for (const auto& [thread, begins] : taken) {
    const bool is_second = begins[0] >= 32;
    bool went_away = false;
    for (const int64_t begin : begins) {
      const bool is_away = (begin >= 32) != is_second;
      EXPECT_TRUE(is_away || !went_away) << begin;
      went_away = went_away || is_away;
    }
  }
}

TEST(ThreadPool, FirstTouchStaysOnTheNode) {
  ThreadPool pool(OnTwoNodes());
  absl::Mutex mu;
  std::map<std::thread::id, std::vector<int64_t>> taken;
  std::atomic<int> n_there{0};
  std::atomic<int64_t> n_first_node{0};
  pool.ParallelForFirstTouch(64, 0, 1, [&](int64_t begin, int64_t end) {
    {
      absl::MutexLock lock(&mu);
      taken[std::this_thread::get_id()].push_back(begin);
    }
    n_there.fetch_add(1);
    while (n_there.load() < 4) std::this_thread::yield();
    // The second node has nothing left to do for a long time before the first
    // has done its own.
    if (begin < 32) {
      n_first_node += end - begin;
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
    }
  });
  EXPECT_EQ(n_first_node, 32);
  ASSERT_EQ(taken.size(), 4u);
  for (const auto& [thread, begins] : taken) {
    for (const int64_t begin : begins) {
      EXPECT_EQ(begin >= 32, begins[0] >= 32) << begin;
    }
  }
}

// The thread that writes a part first is the one that reads it.
TEST(ThreadPool, FirstTouchAndParallelForShareOutAlike) {
  for (const int n_threads : {2, 3, 5}) {
    ThreadPool pool(n_threads);
    std::vector<std::thread::id> first(n_threads);
    std::atomic<int> n_there{0};
    pool.ParallelForFirstTouch(n_threads, 0, 1, [&](int64_t begin, int64_t) {
      n_there.fetch_add(1);
      while (n_there.load() < n_threads) std::this_thread::yield();
      first[begin] = std::this_thread::get_id();
    });
    const std::vector<Visit> visits = VisitThreads(&pool);
    for (int i = 0; i < n_threads; ++i) EXPECT_EQ(first[i], visits[i].thread);
  }
}

// Slices of a loop together are the loop, each thread's part in its order.
TEST(ThreadPool, FirstTouchTakesSlicesOfTheSameParts) {
  for (const int n_threads : {1, 2, 3}) {
    ThreadPool pool(n_threads);
    for (const int64_t n : {1, 2, 10, 100}) {
      std::vector<int> visits(n);
      for (int slice = 0; slice < 3; ++slice) {
        std::vector<int> in_slice(n);
        pool.ParallelForFirstTouch(n, slice, 3,
                                   [&](int64_t begin, int64_t end) {
                                     for (int64_t i = begin; i < end; ++i)
                                       ++in_slice[i];
                                   });
        for (int64_t i = 0; i < n; ++i) visits[i] += in_slice[i];
        for (int thread = 0; thread < n_threads && n > 1; ++thread) {
          const int64_t first = n * thread / n_threads;
          const int64_t size = n * (thread + 1) / n_threads - first;
          for (int64_t i = 0; i < size; ++i) {
            EXPECT_EQ(in_slice[first + i],
                      i >= size * slice / 3 && i < size * (slice + 1) / 3)
                << n_threads << " threads, " << i << " of part " << thread
                << ", n=" << n << " slice=" << slice;
          }
        }
      }
      EXPECT_EQ(visits, std::vector<int>(n, 1));
    }
  }
}

TEST(ThreadPool, LoopsOfOneThreadAreNoBarriers) {
  const auto nothing = [](int64_t, int64_t) {};
  ThreadPool one(1);
  one.ParallelFor(100, 1, nothing);
  EXPECT_EQ(one.barrier_count(), 0);
  ThreadPool pool(2);
  pool.ParallelFor(16, 16, nothing);
  pool.ParallelForEach(1, [](int64_t, int) {});
  EXPECT_EQ(pool.barrier_count(), 0);
  pool.ParallelFor(17, 16, nothing);
  EXPECT_EQ(pool.barrier_count(), 1);
  pool.ParallelForEach(2, [](int64_t, int) {});
  EXPECT_EQ(pool.barrier_count(), 2);
}

TEST(ThreadPool, IdlePoolsEnd) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace tern
