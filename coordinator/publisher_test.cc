#include "coordinator/publisher.h"

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

class Item : public Publishable {
 public:
  explicit Item(std::function<void()> action) : action_(std::move(action)) {}
  void Publish() override {
    ++n_published_;
    action_();
  }
  int n_published() const { return n_published_; }

 private:
  const std::function<void()> action_;
  std::atomic<int> n_published_{0};
};

TEST(Publisher, PublishesOnceForManyWakesWhileQueued) {
  absl::Notification may_go_on, started;
  auto first = std::make_shared<Item>([&] {
    started.Notify();
    may_go_on.WaitForNotification();
  });
  auto second = std::make_shared<Item>([] {});
  {
    Publisher publisher;
    publisher.Wake(first);
    started.WaitForNotification();
    for (int i = 0; i < 10; ++i) publisher.Wake(second);
    may_go_on.Notify();
  }
  EXPECT_EQ(first->n_published(), 1);
  EXPECT_EQ(second->n_published(), 1);
}

TEST(Publisher, AWakeWhilePublishingCountsAgain) {
  Publisher publisher;
  std::shared_ptr<Item> item;
  absl::Notification done;
  bool again = true;  // the publisher's thread alone uses it
  item = std::make_shared<Item>([&] {
    if (again) {
      again = false;
      publisher.Wake(item);
    } else {
      done.Notify();
    }
  });
  publisher.Wake(item);
  done.WaitForNotification();
  EXPECT_EQ(item->n_published(), 2);
}

TEST(Publisher, ReactionsWaitForTheEndOfTheBurst) {
  absl::Notification may_go_on, started;
  std::atomic<bool> second_published{false};
  auto first = std::make_shared<Item>([&] {
    started.Notify();
    may_go_on.WaitForNotification();
  });
  Publisher publisher;
  // Both in one burst: they are there before it begins.
  absl::Notification may_begin, waiting;
  auto before = std::make_shared<Item>([&] {
    waiting.Notify();
    may_begin.WaitForNotification();
  });
  publisher.Wake(before);
  waiting.WaitForNotification();
  publisher.Wake(first);
  auto second = std::make_shared<Item>([&] {
    publisher.AwaitBurst();  // not for itself
    second_published = true;
  });
  publisher.Wake(second);
  may_begin.Notify();
  started.WaitForNotification();
  std::thread reaction([&] {
    publisher.AwaitBurst();
    EXPECT_TRUE(second_published);
  });
  may_go_on.Notify();
  reaction.join();
}

}  // namespace
}  // namespace tern
