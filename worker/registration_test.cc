#include "worker/registration.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "util/credentials.h"
#include "util/logging.h"

namespace tern {
namespace {

// Answers as it is told and counts.
class FakeCoordinator : public v1::ClusterService::Service {
 public:
  // Listens on `port`, or on a free one.
  explicit FakeCoordinator(int port = 0) {
    auto credentials = Credentials::Create({});
    CHECK(credentials.ok());
    grpc::ServerBuilder builder;
    CHECK((*credentials)
              ->AddListeningPort(absl::StrCat("127.0.0.1:", port), &builder,
                                 &port_)
              .ok());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    CHECK(server_ != nullptr);
  }

  int port() const { return port_; }

  void AnswerRegistrationsWith(grpc::Status status) {
    absl::MutexLock lock(&mu_);
    registration_answer_ = std::move(status);
  }
  void AnswerHeartbeatsWith(grpc::Status status) {
    absl::MutexLock lock(&mu_);
    heartbeat_answer_ = std::move(status);
  }

  void Release() {
    absl::MutexLock lock(&mu_);
    releases_ = true;
  }

  void WaitForRegistrations(int n) {
    absl::MutexLock lock(&mu_);
    const auto has = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return registrations_ >= n;
    };
    mu_.Await(absl::Condition(&has));
  }
  void WaitForHeartbeats(int n) {
    absl::MutexLock lock(&mu_);
    const auto has = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return heartbeats_ >= n;
    };
    mu_.Await(absl::Condition(&has));
  }
  v1::RegisterWorkerRequest last_registration() {
    absl::MutexLock lock(&mu_);
    return last_registration_;
  }
  v1::SendHeartbeatRequest last_heartbeat() {
    absl::MutexLock lock(&mu_);
    return last_heartbeat_;
  }

 private:
  grpc::Status RegisterWorker(grpc::ServerContext*,
                              const v1::RegisterWorkerRequest* request,
                              v1::RegisterWorkerResponse* response) override {
    absl::MutexLock lock(&mu_);
    ++registrations_;
    last_registration_ = *request;
    response->set_lease_epoch(registrations_);
    response->mutable_heartbeat_interval()->set_nanos(1000000);
    response->mutable_lease_duration()->set_seconds(1);
    response->set_protocol_version(1);
    return registration_answer_;
  }
  grpc::Status SendHeartbeat(grpc::ServerContext*,
                             const v1::SendHeartbeatRequest* request,
                             v1::SendHeartbeatResponse* response) override {
    absl::MutexLock lock(&mu_);
    ++heartbeats_;
    last_heartbeat_ = *request;
    response->set_released(releases_);
    return heartbeat_answer_;
  }

  int port_ = 0;
  absl::Mutex mu_;
  int registrations_ ABSL_GUARDED_BY(mu_) = 0;
  int heartbeats_ ABSL_GUARDED_BY(mu_) = 0;
  v1::RegisterWorkerRequest last_registration_ ABSL_GUARDED_BY(mu_);
  v1::SendHeartbeatRequest last_heartbeat_ ABSL_GUARDED_BY(mu_);
  bool releases_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status registration_answer_ ABSL_GUARDED_BY(mu_);
  grpc::Status heartbeat_answer_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<grpc::Server> server_;
};

class RegistrationTest : public ::testing::Test {
 protected:
  std::unique_ptr<Registration> Register(int port) {
    return Register(std::vector<int>{port});
  }
  std::unique_ptr<Registration> Register(const std::vector<int>& ports) {
    Registration::Options options;
    options.retry_min = absl::Milliseconds(1);
    options.retry_max = absl::Milliseconds(20);
    options.refused_retry = absl::Milliseconds(20);
    WorkerDescription description;
    description.worker_id = "w";
    description.incarnation = 77;
    description.address = "127.0.0.1:5";
    description.numerics_class = "cpu-1";
    description.memory_bytes = 1000;
    description.thread_count = 3;
    description.kernel_isa = "ref";
    description.device = "abacus";
    description.thread_placement = "not bound: no nails";
    description.models = {"m"};
    description.packed_blocks = {48, 320};
    description.step_times = {1, 2, 3, 4, 5};
    description.link_bytes_per_second = 6;
    auto credentials = Credentials::Create({});
    CHECK(credentials.ok());
    std::vector<std::shared_ptr<grpc::Channel>> channels;
    for (const int port : ports) {
      auto channel =
          (*credentials)->CreateChannel(absl::StrCat("127.0.0.1:", port));
      CHECK(channel.ok());
      channels.push_back(*std::move(channel));
    }
    return std::make_unique<Registration>(
        options, description, channels,
        [] {
          return WorkDone{42, 43, 1.5};
        },
        [this](bool is_registered) {
          absl::MutexLock lock(&mu_);
          is_registered_ = is_registered;
          ++n_changes_;
        });
  }
  void WaitForChanges(int n) {
    absl::MutexLock lock(&mu_);
    const auto has = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return n_changes_ >= n;
    };
    mu_.Await(absl::Condition(&has));
  }
  bool is_registered() {
    absl::MutexLock lock(&mu_);
    return is_registered_;
  }

 private:
  absl::Mutex mu_;
  bool is_registered_ ABSL_GUARDED_BY(mu_) = false;
  int n_changes_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST_F(RegistrationTest, IntroducesTheWorkerAndKeepsItsLease) {
  FakeCoordinator coordinator;
  const auto registration = Register(coordinator.port());
  coordinator.WaitForHeartbeats(3);
  EXPECT_TRUE(is_registered());
  const v1::RegisterWorkerRequest r = coordinator.last_registration();
  EXPECT_EQ(r.worker_id(), "w");
  EXPECT_EQ(r.incarnation(), 77);
  EXPECT_EQ(r.protocol_version(), 1);
  EXPECT_EQ(r.address(), "127.0.0.1:5");
  EXPECT_EQ(r.capabilities().numerics_class(), "cpu-1");
  EXPECT_EQ(r.capabilities().memory_bytes(), 1000);
  EXPECT_EQ(r.capabilities().thread_count(), 3);
  EXPECT_EQ(r.capabilities().thread_placement(), "not bound: no nails");
  ASSERT_EQ(r.capabilities().models_size(), 1);
  EXPECT_EQ(r.capabilities().models(0), "m");
  EXPECT_TRUE(r.capabilities().supports_step_token_source());
  EXPECT_EQ(r.capabilities().repeat_max_limit(), 1);
  EXPECT_EQ(r.capabilities().packed_blocks().column_count(), 48);
  EXPECT_EQ(r.capabilities().packed_blocks().byte_count(), 320);
  const v1::StepTimes& times = r.capabilities().step_times();
  EXPECT_EQ(times.layer_step_seconds(), 1);
  EXPECT_EQ(times.layer_token_seconds(), 2);
  EXPECT_EQ(times.layer_context_seconds(), 3);
  EXPECT_EQ(times.head_step_seconds(), 4);
  EXPECT_EQ(times.head_row_seconds(), 5);
  EXPECT_EQ(r.capabilities().link_bytes_per_second(), 6);
  const v1::SendHeartbeatRequest h = coordinator.last_heartbeat();
  EXPECT_EQ(h.worker_id(), "w");
  EXPECT_EQ(h.lease_epoch(), 1);
  EXPECT_EQ(h.finished_step_count(), 42);
  EXPECT_EQ(h.progress(), 43);
  EXPECT_EQ(h.slowdown(), 1.5);
  EXPECT_TRUE(h.has_round_trip());
}

TEST_F(RegistrationTest, RegistersAgainWhenForgotten) {
  FakeCoordinator coordinator;
  const auto registration = Register(coordinator.port());
  int n = 1;
  for (const grpc::StatusCode code : {grpc::NOT_FOUND, grpc::ABORTED}) {
    coordinator.WaitForRegistrations(n);
    coordinator.AnswerHeartbeatsWith(grpc::Status(code, "who?"));
    coordinator.WaitForRegistrations(++n);
    coordinator.AnswerHeartbeatsWith(grpc::Status::OK);
  }
  EXPECT_GE(coordinator.last_registration().incarnation(), 77);
}

TEST_F(RegistrationTest, ARefusalIsNoEnd) {
  FakeCoordinator coordinator;
  coordinator.AnswerRegistrationsWith(
      grpc::Status(grpc::ALREADY_EXISTS, "another one lives"));
  const auto registration = Register(coordinator.port());
  coordinator.WaitForRegistrations(3);
  EXPECT_FALSE(is_registered());
  coordinator.AnswerRegistrationsWith(grpc::Status::OK);
  WaitForChanges(1);
  EXPECT_TRUE(is_registered());
}

TEST_F(RegistrationTest, OutlivesTheCoordinator) {
  auto coordinator = std::make_unique<FakeCoordinator>();
  const int port = coordinator->port();
  const auto registration = Register(port);
  coordinator->WaitForHeartbeats(1);
  coordinator.reset();
  WaitForChanges(2);
  EXPECT_FALSE(is_registered());
  coordinator = std::make_unique<FakeCoordinator>(port);
  coordinator->WaitForRegistrations(1);
  WaitForChanges(3);
}

TEST_F(RegistrationTest, GoesToTheCoordinatorThatAnswers) {
  auto first = std::make_unique<FakeCoordinator>();
  auto second = std::make_unique<FakeCoordinator>();
  const std::vector<int> ports = {first->port(), second->port()};
  first.reset();
  const auto registration = Register(ports);
  second->WaitForHeartbeats(2);
  second.reset();
  first = std::make_unique<FakeCoordinator>(ports[0]);
  first->WaitForHeartbeats(2);
  EXPECT_TRUE(is_registered());
}

TEST_F(RegistrationTest, DrainsUntilTheCoordinatorReleasesIt) {
  FakeCoordinator coordinator;
  const auto registration = Register(coordinator.port());
  coordinator.WaitForHeartbeats(2);
  EXPECT_FALSE(coordinator.last_heartbeat().is_draining());
  EXPECT_FALSE(registration->Drain(absl::Milliseconds(50)));
  EXPECT_TRUE(coordinator.last_heartbeat().is_draining());
  coordinator.Release();
  EXPECT_TRUE(registration->Drain(absl::Minutes(1)));
  EXPECT_TRUE(registration->Drain(absl::ZeroDuration()));
}

TEST_F(RegistrationTest, MayLeaveWhenNobodyKnowsIt) {
  auto coordinator = std::make_unique<FakeCoordinator>();
  const auto registration = Register(coordinator->port());
  coordinator->WaitForHeartbeats(1);
  coordinator.reset();
  EXPECT_TRUE(registration->Drain(absl::Minutes(1)));
}

TEST_F(RegistrationTest, EndsWithoutACoordinator) {
  auto coordinator = std::make_unique<FakeCoordinator>();
  const int port = coordinator->port();
  coordinator.reset();
  Register(port);
}

}  // namespace
}  // namespace tern
