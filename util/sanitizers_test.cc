// What util/sanitizers.cc must do: locks order accesses, and races are still
// seen.

#include <atomic>
#include <cstdlib>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "util/tsan.h"

namespace tern {
namespace {

#ifdef TERN_TSAN
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif

struct Counter {
  absl::Mutex mu;
  int n ABSL_GUARDED_BY(mu) = 0;

  void Add() ABSL_LOCKS_EXCLUDED(mu) {
    absl::MutexLock lock(&mu);
    ++n;
  }
  void AwaitAtLeast(int least) ABSL_LOCKS_EXCLUDED(mu) {
    const auto enough = [this, least]() ABSL_SHARED_LOCKS_REQUIRED(mu) {
      return n >= least;
    };
    absl::MutexLock lock(&mu);
    mu.Await(absl::Condition(&enough));
  }
};

// The sanitizer ends the process with an error if it disagrees.
TEST(Sanitizers, LocksConditionsAndNotificationsOrderAccesses) {
  Counter counter;
  int plain = 0;
  absl::Notification done;
  std::thread adder([&] {
    for (int i = 0; i < 1000; ++i) counter.Add();
    plain = 1;
    done.Notify();
  });
  for (int i = 0; i < 1000; ++i) counter.Add();
  counter.AwaitAtLeast(2000);
  done.WaitForNotification();
  EXPECT_EQ(plain, 1);
  adder.join();
}

TEST(Sanitizers, TheLastHolderOfAStatusMayFreeIt) {
  std::atomic<bool> read{false};
  absl::Status ours = absl::NotFoundError("shared by two threads");
  std::thread reader([&read, theirs = ours]() mutable {
    EXPECT_EQ(theirs.message(), "shared by two threads");
    theirs = absl::OkStatus();
    read.store(true, std::memory_order_relaxed);  // orders nothing
  });
  while (!read.load(std::memory_order_relaxed)) std::this_thread::yield();
  ours = absl::OkStatus();
  reader.join();
}

TEST(SanitizersDeathTest, RacesAreStillSeen) {
  if (!kTsan) GTEST_SKIP() << "not built with ThreadSanitizer";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr int kExitCodeOfTsan = 66;
  EXPECT_EXIT(
      {
        Counter counter;
        int plain = 0;
        std::thread adder([&] {
          ++plain;
          counter.Add();
        });
        ++plain;
        counter.Add();
        adder.join();
        std::exit(plain == 0);
      },
      testing::ExitedWithCode(kExitCodeOfTsan), "data race");
}

}  // namespace
}  // namespace tern
