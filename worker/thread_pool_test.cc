#include "worker/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

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

TEST(ThreadPool, IdlePoolsEnd) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace tern
