#include "coordinator/cluster_view.h"

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr bool kMayNot = false;
constexpr bool kMay = true;

WorkerRegistration Registration(const std::string& id, int64_t incarnation) {
  WorkerRegistration r;
  r.worker_id = id;
  r.incarnation = incarnation;
  r.protocol_version = kProtocolVersion;
  r.address = "127.0.0.1:7601";
  r.numerics_class = "cpu-1";
  r.memory_bytes = 1 << 30;
  r.thread_count = 2;
  r.models = {"m"};
  return r;
}

class ClusterViewTest : public ::testing::Test {
 protected:
  absl::StatusCode CodeOf(const WorkerRegistration& r, bool may = kMayNot) {
    return view_.Register(r, may, now_).status().code();
  }
  std::vector<std::string> AvailableIds(absl::string_view model = "m") {
    std::vector<std::string> ids;
    for (const Worker* worker : view_.Available(model)) {
      ids.push_back(worker->registration.worker_id);
    }
    return ids;
  }

  ClusterView view_{{absl::Seconds(10), 3}};
  absl::Time now_ = absl::UnixEpoch();
};

using Ids = std::vector<std::string>;

TEST_F(ClusterViewTest, ListsAvailableWorkersOfAModelInOrder) {
  ASSERT_TRUE(view_.Register(Registration("b", 1), kMayNot, now_).ok());
  ASSERT_TRUE(view_.Register(Registration("a", 2), kMayNot, now_).ok());
  EXPECT_EQ(AvailableIds(), (Ids{"a", "b"}));
  EXPECT_EQ(AvailableIds("other"), Ids{});
}

TEST_F(ClusterViewTest, AWorkerIsSlowFromTwiceItsTimeOn) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  const auto beat = [&](double slowdown, absl::Duration round_trip = {}) {
    EXPECT_TRUE(
        view_.Heartbeat({"a", epoch, 0, 0, false, slowdown, round_trip}, now_)
            .ok());
    return view_.Find("a");
  };
  EXPECT_EQ(beat(0)->slowdown, 1);
  EXPECT_FALSE(beat(1.9)->slow);
  EXPECT_TRUE(beat(2)->slow);
  EXPECT_EQ(beat(0)->slowdown, 2);
  // It takes more than a moment's relief.
  EXPECT_TRUE(beat(1.6)->slow);
  EXPECT_FALSE(beat(1.5)->slow);
  EXPECT_LE(beat(1e300)->slowdown, 1000);
  EXPECT_GE(beat(1e-300)->slowdown, 0.001);
  EXPECT_EQ(beat(std::nan(""))->slowdown, beat(0)->slowdown);
  EXPECT_EQ(beat(0, absl::Milliseconds(4))->link_latency_s, 0.002);
  EXPECT_LE(beat(0, absl::InfiniteDuration())->link_latency_s, 60);
}

TEST_F(ClusterViewTest, TimesThatCannotBeAreRefused) {
  WorkerRegistration r = Registration("a", 1);
  for (const double bad : {-1.0, 1e9, std::nan("")}) {
    r.step_times = {};
    r.step_times.head_row_s = bad;
    EXPECT_EQ(CodeOf(r), absl::StatusCode::kInvalidArgument);
    r.step_times = {};
    r.link_bytes_per_second = bad < 1 ? bad : 1e30;
    EXPECT_EQ(CodeOf(r), absl::StatusCode::kInvalidArgument);
    r.link_bytes_per_second = 0;
  }
  EXPECT_EQ(CodeOf(r), absl::StatusCode::kOk);
}

TEST_F(ClusterViewTest, HeartbeatsKeepALease) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  EXPECT_EQ(view_.NextExpiry(), now_ + absl::Seconds(10));
  now_ += absl::Seconds(9);
  EXPECT_TRUE(view_.Heartbeat({"a", epoch, 7, 0, false}, now_).ok());
  EXPECT_EQ(view_.Find("a")->finished_step_count, 7);
  now_ += absl::Seconds(9);
  EXPECT_TRUE(view_.Expire(now_).empty());
  now_ += absl::Seconds(1);
  EXPECT_EQ(view_.Expire(now_), Ids{"a"});
  EXPECT_TRUE(view_.Expire(now_).empty());  // told once
  EXPECT_EQ(AvailableIds(), Ids{});
  EXPECT_EQ(view_.Heartbeat({"a", epoch, 8, 0, false}, now_).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ClusterViewTest, UnknownWorkersAndStaleLeasesAreTurnedAway) {
  EXPECT_EQ(view_.Heartbeat({"a", 1, 0, 0, false}, now_).code(),
            absl::StatusCode::kNotFound);
  const int64_t old_epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  EXPECT_GT(epoch, old_epoch);
  EXPECT_EQ(view_.Heartbeat({"a", old_epoch, 0, 0, false}, now_).code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(view_.Heartbeat({"a", epoch, 0, 0, false}, now_).ok());
}

TEST_F(ClusterViewTest, ALivingIncarnationKeepsItsId) {
  ASSERT_TRUE(view_.Register(Registration("a", 1), kMayNot, now_).ok());
  now_ += absl::Milliseconds(1999);
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kAlreadyExists);
  // Silent for long enough to be the same worker, restarted.
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kOk);
  EXPECT_EQ(AvailableIds(), Ids{"a"});
}

TEST_F(ClusterViewTest, AWorkerThatWasLetGoLeavesItsIdToTheNext) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  ASSERT_TRUE(view_.Heartbeat({"a", epoch, 0, 0, true}, now_).ok());
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kAlreadyExists);
  view_.LetGo("a");
  ASSERT_TRUE(view_.Heartbeat({"a", epoch, 0, 0, true}, now_).ok());
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kOk);
  EXPECT_EQ(AvailableIds(), Ids{"a"});
  // The old process is not believed any more.
  EXPECT_EQ(view_.Heartbeat({"a", epoch, 0, 0, true}, now_).code(),
            absl::StatusCode::kAborted);
}

TEST_F(ClusterViewTest, CordonedAndReleasedWorkersGetNothing) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  EXPECT_TRUE(view_.SetCordoned("a", true));
  EXPECT_EQ(AvailableIds(), Ids{});
  EXPECT_TRUE(view_.SetCordoned("a", false));
  EXPECT_EQ(AvailableIds(), Ids{"a"});
  EXPECT_TRUE(view_.Release("a"));
  EXPECT_EQ(AvailableIds(), Ids{});
  view_.Forget("a");
  EXPECT_EQ(view_.Heartbeat({"a", epoch, 0, 0, false}, now_).code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(view_.SetCordoned("a", true));
  EXPECT_FALSE(view_.Release("a"));
}

TEST_F(ClusterViewTest, ARestartedWorkerReplacesAnUnreachableOne) {
  ASSERT_TRUE(view_.Register(Registration("a", 1), kMayNot, now_).ok());
  view_.MarkUnreachable("a");
  EXPECT_EQ(AvailableIds(), Ids{});
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kOk);
  EXPECT_EQ(AvailableIds(), Ids{"a"});
}

TEST_F(ClusterViewTest, AHeartbeatMakesAWorkerReachableAgain) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  view_.MarkUnreachable("a");
  EXPECT_TRUE(view_.Heartbeat({"a", epoch, 0, 0, false}, now_).ok());
  EXPECT_EQ(AvailableIds(), Ids{"a"});
}

TEST_F(ClusterViewTest, AHungWorkerIsAvailableOnceItDoesSomething) {
  const int64_t epoch =
      view_.Register(Registration("a", 1), kMayNot, now_).value();
  EXPECT_EQ(view_.Find("a")->last_progress, now_);
  now_ += absl::Seconds(1);
  ASSERT_TRUE(view_.Heartbeat({"a", epoch, 0, 5, false}, now_).ok());
  EXPECT_EQ(view_.Find("a")->last_progress, now_);
  view_.MarkHung("a");
  EXPECT_EQ(AvailableIds(), Ids{});
  now_ += absl::Seconds(1);
  ASSERT_TRUE(view_.Heartbeat({"a", epoch, 0, 5, false}, now_).ok());
  EXPECT_EQ(AvailableIds(), Ids{});
  EXPECT_EQ(view_.Find("a")->last_progress, now_ - absl::Seconds(1));
  ASSERT_TRUE(view_.Heartbeat({"a", epoch, 0, 6, false}, now_).ok());
  EXPECT_EQ(AvailableIds(), Ids{"a"});
  // Or when its process is another one.
  view_.MarkHung("a");
  EXPECT_EQ(CodeOf(Registration("a", 2)), absl::StatusCode::kOk);
  EXPECT_EQ(AvailableIds(), Ids{"a"});
}

TEST_F(ClusterViewTest, OneNumericsClassUntilNobodyOfItLives) {
  ASSERT_TRUE(view_.Register(Registration("a", 1), kMayNot, now_).ok());
  WorkerRegistration other = Registration("b", 2);
  other.numerics_class = "sm90-1";
  EXPECT_EQ(CodeOf(other, kMay), absl::StatusCode::kFailedPrecondition);
  now_ += absl::Seconds(10);
  view_.Expire(now_);
  EXPECT_EQ(CodeOf(other, kMayNot), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(other, kMay), absl::StatusCode::kOk);
  EXPECT_EQ(view_.numerics_class(), "sm90-1");
}

TEST_F(ClusterViewTest, OtherProtocolVersionsAreRefused) {
  for (int version : {0, 2, -1}) {
    WorkerRegistration r = Registration("a", 1);
    r.protocol_version = version;
    EXPECT_EQ(CodeOf(r), absl::StatusCode::kFailedPrecondition) << version;
  }
}

TEST_F(ClusterViewTest, SenselessFieldsAreRefused) {
  std::vector<WorkerRegistration> bad(13, Registration("a", 1));
  bad[0].worker_id = "";
  bad[1].worker_id = std::string(129, 'x');
  bad[2].worker_id = "a\n";
  bad[3].incarnation = 0;
  bad[4].address = "nowhere";
  bad[5].address = "host:70000";
  bad[6].memory_bytes = 0;
  bad[7].thread_count = 0;
  bad[8].repeat_max_limit = 0;
  bad[9].models = {""};
  bad[10].packed_blocks = {0, 0};
  bad[11].packed_blocks = {1025, 128};
  bad[12].packed_blocks = {16, 65537};
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(CodeOf(bad[i]), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_TRUE(view_.workers().empty());
}

TEST_F(ClusterViewTest, WorkersAreBoundedAndForgottenInTheEnd) {
  for (const char* id : {"a", "b", "c"}) {
    ASSERT_TRUE(view_.Register(Registration(id, 1), kMayNot, now_).ok());
  }
  EXPECT_EQ(CodeOf(Registration("d", 1)), absl::StatusCode::kResourceExhausted);
  now_ += absl::Minutes(11);
  view_.Expire(now_);
  EXPECT_TRUE(view_.workers().empty());
  EXPECT_EQ(CodeOf(Registration("d", 1)), absl::StatusCode::kOk);
}

TEST_F(ClusterViewTest, WhatAWorkerCouldNotLoadIsForgottenWithItsRegistration) {
  ASSERT_TRUE(view_.Register(Registration("a", 1), kMayNot, now_).ok());
  view_.NoteRefused("a", {0, 2, true, false}, absl::UnavailableError("gone"));
  EXPECT_TRUE(view_.Find("a")->refused.empty());
  view_.NoteRefused("a", {0, 2, true, false}, absl::DataLossError("damaged"));
  view_.NoteRefused("a", {3, 4, false, true}, absl::DataLossError("damaged"));
  EXPECT_EQ(view_.Find("a")->refused.size(), 2u);
  view_.SetHolds("a", {2, 4, false, true});
  EXPECT_EQ(view_.Find("a")->refused.size(), 1u);
  view_.NoteRefused("b", {0, 2, true, false}, absl::DataLossError("damaged"));
  ASSERT_TRUE(view_.Register(Registration("a", 1), kMayNot, now_).ok());
  EXPECT_TRUE(view_.Find("a")->refused.empty());
}

}  // namespace
}  // namespace tern
