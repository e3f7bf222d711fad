#include "worker/hidden_states_inbox.h"

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "util/crc32c.h"

namespace tern {
namespace {

constexpr int kHidden = 4;
constexpr absl::Duration kLong = absl::Seconds(60);

std::vector<float> Values(int n_tokens, float first) {
  std::vector<float> values(n_tokens * kHidden);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + i;
  return values;
}

class HiddenStatesInboxTest : public testing::Test {
 protected:
  HiddenStatesInboxTest() : inbox_(MakeOptions()) {}

  static HiddenStatesInbox::Options MakeOptions() {
    HiddenStatesInbox::Options options;
    options.hidden_size = kHidden;
    options.max_step_tokens = 3;
    options.waiting_steps_max = 2;
    return options;
  }

  static HiddenStatesSlice Slice(int64_t step_id,
                                 const std::vector<float>& values, size_t begin,
                                 size_t end) {
    HiddenStatesSlice slice;
    slice.step_id = step_id;
    slice.n_tokens = static_cast<int64_t>(values.size()) / kHidden;
    slice.hidden_size = kHidden;
    slice.offset_bytes = static_cast<int64_t>(begin);
    slice.total_bytes = static_cast<int64_t>(values.size() * sizeof(float));
    slice.data = absl::MakeConstSpan(
        reinterpret_cast<const char*>(values.data()) + begin, end - begin);
    slice.crc32c = Crc32c(slice.data.data(), slice.data.size());
    return slice;
  }
  static HiddenStatesSlice Whole(int64_t step_id,
                                 const std::vector<float>& values) {
    return Slice(step_id, values, 0, values.size() * sizeof(float));
  }

  absl::Status Offer(const HiddenStatesSlice& slice) {
    const auto taken = inbox_.Offer(slice, [] {});
    EXPECT_TRUE(!taken.ok() || *taken);
    return taken.status();
  }

  HiddenStatesInbox inbox_;
};

TEST_F(HiddenStatesInboxTest, PutsSlicesTogether) {
  const std::vector<float> values = Values(2, 1);
  // Cut where no element ends.
  ASSERT_TRUE(Offer(Slice(1, values, 0, 5)).ok());
  ASSERT_TRUE(Offer(Slice(1, values, 5, 31)).ok());
  ASSERT_TRUE(Offer(Slice(1, values, 31, 32)).ok());
  std::vector<float> hidden;
  ASSERT_TRUE(inbox_.Take(1, 2, kLong, &hidden).ok());
  EXPECT_EQ(hidden, values);
  EXPECT_EQ(inbox_.step_count(), 1);
}

TEST_F(HiddenStatesInboxTest, StepsComeInOrderAndEarlierOnesAreDropped) {
  ASSERT_TRUE(Offer(Whole(2, Values(1, 2))).ok());
  ASSERT_TRUE(Offer(Whole(5, Values(1, 5))).ok());
  std::vector<float> hidden;
  ASSERT_TRUE(inbox_.Take(5, 1, kLong, &hidden).ok());
  EXPECT_EQ(hidden, Values(1, 5));
}

TEST_F(HiddenStatesInboxTest, ASkippedStepIsDataLoss) {
  ASSERT_TRUE(Offer(Whole(2, Values(1, 2))).ok());
  std::vector<float> hidden;
  EXPECT_TRUE(absl::IsDataLoss(inbox_.Take(1, 1, kLong, &hidden)));
}

TEST_F(HiddenStatesInboxTest, AnotherNumberOfTokensIsDataLoss) {
  ASSERT_TRUE(Offer(Whole(1, Values(2, 0))).ok());
  std::vector<float> hidden;
  EXPECT_TRUE(absl::IsDataLoss(inbox_.Take(1, 3, kLong, &hidden)));
}

TEST_F(HiddenStatesInboxTest, AFlippedBitIsDataLoss) {
  std::vector<float> values = Values(1, 1);
  const HiddenStatesSlice slice = Whole(1, values);
  reinterpret_cast<char*>(values.data())[7] ^= 4;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
}

TEST_F(HiddenStatesInboxTest, MissingRepeatedAndReorderedSlicesAreDataLoss) {
  const std::vector<float> values = Values(2, 1);
  EXPECT_TRUE(absl::IsDataLoss(Offer(Slice(1, values, 8, 16))));
  ASSERT_TRUE(Offer(Slice(1, values, 0, 8)).ok());
  EXPECT_TRUE(absl::IsDataLoss(Offer(Slice(1, values, 0, 8))));
  EXPECT_TRUE(absl::IsDataLoss(Offer(Slice(1, values, 16, 32))));
  // A step may not begin inside another one.
  EXPECT_TRUE(absl::IsDataLoss(Offer(Whole(2, Values(1, 0)))));
  ASSERT_TRUE(Offer(Slice(1, values, 8, 32)).ok());
  // Nor come twice, nor go back.
  EXPECT_TRUE(absl::IsDataLoss(Offer(Whole(1, values))));
  ASSERT_TRUE(Offer(Whole(3, values)).ok());
  EXPECT_TRUE(absl::IsDataLoss(Offer(Whole(2, values))));
}

TEST_F(HiddenStatesInboxTest, SizesThatDoNotFitAreDataLoss) {
  const std::vector<float> values = Values(2, 1);
  HiddenStatesSlice slice = Whole(1, values);
  slice.n_tokens = 4;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
  slice = Whole(1, values);
  slice.n_tokens = int64_t{1} << 60;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
  slice = Whole(1, values);
  slice.n_tokens = -1;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
  slice = Whole(1, values);
  slice.hidden_size = 8;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
  slice = Whole(1, values);
  slice.total_bytes = 16;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));
  slice = Whole(1, values);
  slice.n_tokens = 1;
  slice.total_bytes = 16;
  EXPECT_TRUE(absl::IsDataLoss(Offer(slice)));  // more data than that
  EXPECT_TRUE(absl::IsDataLoss(Offer(Slice(1, values, 0, 0))));
  EXPECT_TRUE(Offer(Whole(1, values)).ok());
}

TEST_F(HiddenStatesInboxTest, HoldsBackWhatDoesNotFitUntilThereIsRoom) {
  ASSERT_TRUE(Offer(Whole(1, Values(1, 1))).ok());
  ASSERT_TRUE(Offer(Whole(2, Values(1, 2))).ok());
  std::atomic<int> calls{0};
  const std::vector<float> third = Values(1, 3);
  const auto taken = inbox_.Offer(Whole(3, third), [&calls] { ++calls; });
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(*taken);
  EXPECT_EQ(calls, 0);
  std::vector<float> hidden;
  ASSERT_TRUE(inbox_.Take(1, 1, kLong, &hidden).ok());
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(Offer(Whole(3, third)).ok());
  ASSERT_TRUE(inbox_.Take(2, 1, kLong, &hidden).ok());
  ASSERT_TRUE(inbox_.Take(3, 1, kLong, &hidden).ok());
  EXPECT_EQ(hidden, third);
  EXPECT_EQ(calls, 1);
}

TEST_F(HiddenStatesInboxTest, TakeWaitsForTheTensor) {
  std::vector<float> hidden;
  absl::Status status;
  std::thread runner([&] { status = inbox_.Take(1, 1, kLong, &hidden); });
  ASSERT_TRUE(Offer(Whole(1, Values(1, 1))).ok());
  runner.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(hidden, Values(1, 1));
}

TEST_F(HiddenStatesInboxTest, WaitingHasAnEnd) {
  std::vector<float> hidden;
  EXPECT_TRUE(
      absl::IsUnavailable(inbox_.Take(1, 1, absl::Milliseconds(1), &hidden)));
}

TEST_F(HiddenStatesInboxTest, ASenderThatLeavesEndsTheWaitingAfterItsTensors) {
  ASSERT_TRUE(Offer(Whole(1, Values(1, 1))).ok());
  inbox_.EndOfStream();
  std::vector<float> hidden;
  EXPECT_TRUE(inbox_.Take(1, 1, kLong, &hidden).ok());
  EXPECT_TRUE(absl::IsUnavailable(inbox_.Take(2, 1, kLong, &hidden)));
}

TEST_F(HiddenStatesInboxTest, CloseEndsEverythingWithItsStatus) {
  ASSERT_TRUE(Offer(Whole(1, Values(1, 1))).ok());
  ASSERT_TRUE(Offer(Whole(2, Values(1, 1))).ok());
  absl::Notification again;
  const std::vector<float> third = Values(1, 3);
  ASSERT_TRUE(inbox_.Offer(Whole(3, third), [&] { again.Notify(); }).ok());
  inbox_.Close(absl::AbortedError("over"));
  inbox_.Close(absl::InternalError("too late"));
  EXPECT_TRUE(again.HasBeenNotified());
  std::vector<float> hidden;
  EXPECT_EQ(inbox_.Take(1, 1, kLong, &hidden), absl::AbortedError("over"));
  EXPECT_EQ(Offer(Whole(3, third)), absl::AbortedError("over"));
}

TEST_F(HiddenStatesInboxTest, HasOneSender) {
  EXPECT_TRUE(inbox_.AttachSender().ok());
  EXPECT_TRUE(absl::IsAlreadyExists(inbox_.AttachSender()));
}

}  // namespace
}  // namespace tern
