#ifndef CLIENT_CLIENT_FIXTURE_H_
#define CLIENT_CLIENT_FIXTURE_H_

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/client.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"
#include "util/fake_clock.h"

namespace tern {

inline constexpr absl::Duration kPatience = absl::Seconds(30);

inline grpc::Status Error(grpc::StatusCode code) {
  return grpc::Status(code, "why");
}
inline grpc::Status Unavailable() {
  return Error(grpc::StatusCode::UNAVAILABLE);
}

inline v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

// Waits until the caller has gone away.
inline grpc::Status WaitForCancellation(grpc::ServerContext* context) {
  while (!context->IsCancelled()) std::this_thread::yield();
  return grpc::Status::CANCELLED;
}

// A client of a fake cluster whose pauses take no time.
class ClientTest : public testing::Test {
 protected:
  ClientOptions Options() {
    ClientOptions options;
    options.server = fake_.address();
    options.clock = &clock_;
    options.random = [] { return 0.0; };
    options.sleep = [this](absl::Duration pause, const Cancellation*) {
      pauses_.push_back(pause);
      clock_.Advance(pause);
    };
    return options;
  }

  std::unique_ptr<Client> MustCreate(ClientOptions options) {
    auto client = Client::Create(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return std::move(client).value();
  }

  // The text that StreamGenerate() passed on; status in *status.
  std::string Stream(Client* client, v1::GenerateRequest request,
                     absl::Status* status, const CallOptions& options = {}) {
    std::string text;
    *status = client->StreamGenerate(
        std::move(request),
        [&](const v1::StreamGenerateResponse& message) {
          text += message.delta().text();
          return true;
        },
        options);
    return text;
  }

  FakeClock clock_;
  FakeCluster fake_;
  std::vector<absl::Duration> pauses_;
};

}  // namespace tern

#endif  // CLIENT_CLIENT_FIXTURE_H_
