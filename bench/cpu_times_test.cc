#include "bench/cpu_times.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(CpuTimes, TellsThreadsApartByName) {
  const absl::StatusOr<CpuTimes> before = ReadCpuTimes(getpid());
  ASSERT_TRUE(before.ok()) << before.status();
  std::atomic<bool> named{false};
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    pthread_setname_np(pthread_self(), "busy");
    named = true;
    while (!stop) {
    }
  });
  while (!named) {
  }
  // Until it shows, however busy the machine is.
  absl::StatusOr<CpuTimes> after = ReadCpuTimes(getpid());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (after.ok() && after->by_thread_name["busy"] < absl::Milliseconds(20) &&
         absl::Now() < deadline) {
    after = ReadCpuTimes(getpid());
  }
  stop = true;
  worker.join();
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(before->by_thread_name.count("busy"), 0);
  EXPECT_GE(after->by_thread_name["busy"], absl::Milliseconds(20));
  EXPECT_GE(after->total - before->total, absl::Milliseconds(20));
}

TEST(CpuTimes, NoProcessIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(ReadCpuTimes(0).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadCpuTimes(1 << 30).status()));
}

}  // namespace
}  // namespace tern
