#include "util/bounded_queue.h"

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(BoundedQueue, GivesItemsInTheOrderTheyCame) {
  BoundedQueue<int> queue(3);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.Push(2));
  int item = 0;
  ASSERT_TRUE(queue.Pop(&item));
  EXPECT_EQ(item, 1);
  ASSERT_TRUE(queue.Pop(&item));
  EXPECT_EQ(item, 2);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BoundedQueue, RefusesMoreThanItsCapacityAndLeavesTheItemAlone) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(second)));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
}

TEST(BoundedQueue, PopGivesUpAfterItsTimeout) {
  BoundedQueue<int> queue(1);
  int item = 7;
  EXPECT_FALSE(queue.Pop(&item, absl::ZeroDuration()));
  EXPECT_EQ(item, 7);
  std::vector<int> items;
  EXPECT_FALSE(queue.PopAll(&items, absl::ZeroDuration()));
}

TEST(BoundedQueue, PopAllAppendsEverything) {
  BoundedQueue<int> queue(3);
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(queue.Push(i));
  std::vector<int> items = {0};
  ASSERT_TRUE(queue.PopAll(&items));
  EXPECT_EQ(items, (std::vector<int>{0, 1, 2, 3}));
}

TEST(BoundedQueue, AfterCloseNothingGoesInAndTheRestComesOut) {
  BoundedQueue<int> queue(2);
  ASSERT_TRUE(queue.Push(1));
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_FALSE(queue.TryPush(2));
  EXPECT_FALSE(queue.Push(2));
  int item = 0;
  EXPECT_TRUE(queue.Pop(&item));
  EXPECT_EQ(item, 1);
  EXPECT_FALSE(queue.Pop(&item));
}

TEST(BoundedQueue, CloseWakesThoseWhoWait) {
  BoundedQueue<int> empty(1), full(1);
  ASSERT_TRUE(full.Push(1));
  bool popped = true, pushed = true;
  std::thread reader([&] {
    int item;
    popped = empty.Pop(&item);
  });
  std::thread writer([&] { pushed = full.Push(2); });
  empty.Close();
  full.Close();
  reader.join();
  writer.join();
  EXPECT_FALSE(popped);
  EXPECT_FALSE(pushed);
}

TEST(BoundedQueue, LosesAndDoublesNothingBetweenThreads) {
  constexpr int kPerWriter = 2000;
  constexpr int kWriters = 3;
  BoundedQueue<int> queue(4);
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&queue, w] {
      for (int i = 0; i < kPerWriter; ++i) queue.Push(w * kPerWriter + i);
    });
  }
  std::vector<int> seen(kWriters * kPerWriter, 0);
  std::vector<int> last(kWriters, -1);
  for (int n = 0; n < kWriters * kPerWriter; ++n) {
    int item = -1;
    ASSERT_TRUE(queue.Pop(&item));
    ++seen[item];
    EXPECT_LT(last[item / kPerWriter], item) << "out of order";
    last[item / kPerWriter] = item;
  }
  for (std::thread& writer : writers) writer.join();
  for (const int count : seen) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace tern
